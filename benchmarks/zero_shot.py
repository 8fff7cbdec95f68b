"""A detector on real pages that it never learnt from: what a newcomer gets who trains nothing.

    python benchmarks/zero_shot.py --detector runs/default/detector/detector.onnx \
        --yolo ../shared/data/tobacco800-signatures --signverod ../shared/data/signverod

Every page goes through the SDK. Prints, for each folder and class: AP and AP50 (COCO), the recall that
goes with half a false box a page, precision and recall at the score recorded in the file, and ms a page.
Intervals are 95 %, from 1,000 draws of documents (pages of one document fail together). The worst pages are
drawn to OUTPUT: green true, red found; with --cleaner, forty crops before and after it too. Nothing here
chooses a threshold or a checkpoint.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import sys
import time

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import detector_real
from benchmarks.commands import processor
from signver.detector import Detector
from training.data import formats, signverod
from training.data.page import Page

# False boxes a page at which recall is read.
FALSE_BOXES = 0.5
DRAWS = 1000
# Scans of 4,400 pixels are held at this size: the SDK would reduce them anyway.
MAX_SIDE = 1600


def main() -> None:
    """Measures what the command line names."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    threshold = Detector().load(arguments.detector).score_threshold
    sources = {}
    if arguments.yolo:
        sources["yolo"] = yolo_pages(arguments.yolo)
    if arguments.signverod:
        sources["signverod"] = signverod_pages(arguments.signverod)
    report = {
        name: measure(arguments, pages, classes, threshold, arguments.output / f"worst_{name}.png")
        for name, (pages, classes) in sources.items()
    }
    if arguments.cleaner and arguments.yolo:
        cleaned(arguments.cleaner, sources["yolo"][0]).save(arguments.output / "cleaned.png")
    report["detector"] = {
        "megabytes": arguments.detector.stat().st_size / 1e6,
        "score_threshold": threshold,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }
    (arguments.output / "zero_shot.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def cleaned(path: pathlib.Path, pages: list[Page], count: int = 40, seed: int = 0) -> Image.Image:
    """Annotated signatures of documents drawn at random, each beside its ink: for a person to judge."""
    from signver import Cleaner, get_image_crops
    from signver.pipeline import MARGIN

    cleaner = Cleaner().load(path)
    sheet, columns, cell = Image.new("RGB", (8 * 236, -(-count // 4) * 126), "#c8c8c8"), 4, (230, 120)
    order = np.random.default_rng(seed).permutation([n for n, page in enumerate(pages) if page.boxes])
    for place, number in enumerate(order[:count]):
        page = pages[number]
        box = page.boxes[0]
        sides = np.array([[box.ymin, box.xmin, box.ymax, box.xmax]])
        (crop,) = get_image_crops(Image.open(io.BytesIO(page.image)).convert("RGB"), sides, margin=MARGIN)
        for side, pixels in enumerate((crop, cleaner.clean(crop))):
            shown = Image.fromarray(pixels).convert("RGB")
            shown.thumbnail(cell)
            x = (place % columns * 2 + side) * 236
            sheet.paste(shown, (x + 3, place // columns * 126 + 3))
    return sheet


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", type=pathlib.Path, required=True, help="ONNX file")
    parser.add_argument("--yolo", type=pathlib.Path, help="folder with images/ and labels/ of signatures")
    parser.add_argument("--signverod", type=pathlib.Path, help="folder with SignVerOD's CSV files and pages")
    parser.add_argument(
        "--cleaner", type=pathlib.Path, help="ONNX file; draws crops of the YOLO pages before and after it"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/zero_shot"))
    parser.add_argument("--threads", type=int, default=0, help="cores a page may use (default: all)")
    arguments = parser.parse_args()
    if not (arguments.yolo or arguments.signverod):
        parser.error("name --yolo, --signverod or both")
    return arguments


def yolo_pages(folder: pathlib.Path) -> tuple[list[Page], dict[int, str]]:
    """All pages of a YOLO folder of signatures."""
    files, classes = formats.read_yolo(folder, ["signature"])
    return [file.load(MAX_SIDE) for file in files], classes


def signverod_pages(folder: pathlib.Path) -> tuple[list[Page], dict[int, str]]:
    """The annotated pages of SignVerOD that are here, whichever split they stand in."""
    annotation = signverod.read_annotation(folder)
    files = signverod.locate(folder, annotation, partial=True)
    return [file.load(MAX_SIDE) for split in files.values() for file in split], annotation.classes


def measure(
    arguments: argparse.Namespace,
    pages: list[Page],
    classes: dict[int, str],
    threshold: float,
    worst: pathlib.Path,
) -> dict:
    """Figures of each class that the pages have, and the pages with the most errors as a picture."""
    found, milliseconds = detector_real.detect(arguments.detector, pages, arguments.threads)
    documents = [page.document for page in pages]
    report: dict = {
        "pages": len(pages),
        "documents": len(set(documents)),
        "ms_median": float(np.median(milliseconds)),
        "ms_90th": float(np.percentile(milliseconds, 90)),
    }
    for label, name in classes.items():
        kept, detections = detector_real.of_class(pages, found, label)
        if any(page.boxes for page in kept):
            report[name] = figures(kept, detections, documents, threshold)
        if label == 1:
            detector_real.draw_worst(kept, detections, worst)
    return report


def figures(pages: list[Page], detections: list, documents: list[str], threshold: float) -> dict:
    """AP, AP50, recall at FALSE_BOXES a page with intervals, and counts at the recorded score."""
    outcomes = [outcome(page, *found) for page, found in zip(pages, detections, strict=True)]
    precision = detector_real.average_precision(pages, detections) if any(map(len, outcomes)) else (0, 0)
    truth = np.array([len(page.boxes) for page in pages])
    hits = sum(int((marks[:, 1] * (marks[:, 0] >= threshold)).sum()) for marks in outcomes)
    kept = sum(int((marks[:, 0] >= threshold).sum()) for marks in outcomes)
    low, high = intervals(outcomes, truth, documents)
    return {
        "boxes": int(truth.sum()),
        "AP": precision[0],
        "AP50": precision[1],
        "AP50_interval": [low[0], high[0]],
        "recall": recall_at(outcomes, truth),
        "recall_interval": [low[1], high[1]],
        "recall_at_threshold": hits / max(1, int(truth.sum())),
        "precision_at_threshold": hits / max(1, kept),
        "false_boxes_a_page_at_threshold": (kept - hits) / len(pages),
    }


def outcome(page: Page, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Score and success of each found box of a page, float64 [n, 2]; COCO's matching at IoU 0.5."""
    free = [(box.ymin, box.xmin, box.ymax, box.xmax) for box in page.boxes]
    marks = np.zeros((len(boxes), 2))
    for place, number in enumerate(np.argsort(-scores, kind="stable")):
        overlaps = [detector_real.overlap(boxes[number], true) for true in free]
        best = int(np.argmax(overlaps)) if overlaps else -1
        success = best >= 0 and overlaps[best] >= 0.5
        if success:
            free.pop(best)
        marks[place] = scores[number], success
    return marks


def average_precision50(outcomes: list[np.ndarray], truth: np.ndarray) -> float:
    """AP50 over 101 recalls, as COCO computes it."""
    marks = np.concatenate(outcomes)
    marks = marks[np.argsort(-marks[:, 0], kind="stable")]
    hits = np.cumsum(marks[:, 1])
    precision = hits / np.arange(1, len(marks) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / max(1, truth.sum()), np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def recall_at(outcomes: list[np.ndarray], truth: np.ndarray) -> float:
    """The highest recall with at most FALSE_BOXES false boxes a page."""
    marks = np.concatenate(outcomes)
    marks = marks[np.argsort(-marks[:, 0], kind="stable")]
    allowed = np.cumsum(1 - marks[:, 1]) <= FALSE_BOXES * len(outcomes)
    return float((marks[:, 1] * allowed).sum() / max(1, truth.sum()))


def intervals(
    outcomes: list[np.ndarray], truth: np.ndarray, documents: list[str]
) -> tuple[list[float], list[float]]:
    """2.5th and 97.5th percentiles of AP50 and recall over draws of documents with replacement."""
    rng = np.random.default_rng(0)
    places: dict[str, list[int]] = {}
    for place, document in enumerate(documents):
        places.setdefault(document, []).append(place)
    groups = list(places.values())
    drawn = []
    for _ in range(DRAWS):
        chosen = [i for group in rng.integers(0, len(groups), len(groups)) for i in groups[group]]
        sample, counts = [outcomes[i] for i in chosen], truth[chosen]
        drawn.append((average_precision50(sample, counts), recall_at(sample, counts)))
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    return low.tolist(), high.tolist()


if __name__ == "__main__":
    main()
