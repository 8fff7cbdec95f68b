"""The score to keep boxes from: where F1 on held-out synthetic pages is best. Real pages have no say in it.

    python benchmarks/score_threshold.py --detector detector.onnx --pages 'runs/default/pages/eval*'

Prints the threshold alone, for `python -m export onnx --score_threshold`. All classes count together; a box
is right where it overlaps a true box of its class by IoU 0.5.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import detector_real, zero_shot
from training.data.tfrecord import read_pages


def main() -> None:
    """Prints the best threshold, rounded to hundredths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", type=pathlib.Path, required=True, help="ONNX file")
    parser.add_argument("--pages", required=True, help="pattern of TFRecords")
    arguments = parser.parse_args()
    pages = list(read_pages(arguments.pages))
    found, _ = detector_real.detect(arguments.detector, pages)
    outcomes, truth = [], 0
    for label in sorted({box.label for page in pages for box in page.boxes}):
        kept, detections = detector_real.of_class(pages, found, label)
        truth += sum(len(page.boxes) for page in kept)
        outcomes += [zero_shot.outcome(page, *found) for page, found in zip(kept, detections, strict=True)]
    print(f"{best_threshold(np.concatenate(outcomes), truth):.2f}")


def best_threshold(marks: np.ndarray, truth: int) -> float:
    """The score at which F1 is highest.

    Args:
      marks: float64 [n, 2], score of each found box and whether it was right.
      truth: number of true boxes.
    """
    marks = marks[np.argsort(-marks[:, 0], kind="stable")]
    f1 = 2 * np.cumsum(marks[:, 1]) / (np.arange(1, len(marks) + 1) + truth)
    return float(marks[int(f1.argmax()), 0])


if __name__ == "__main__":
    main()
