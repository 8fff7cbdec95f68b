"""The detector on real letters, end to end: YOLO folder in, AP50 on held-out pages and ms a page out.

    python benchmarks/detector_real.py --data ../shared/data/tobacco800-signatures --output runs/detector_real

Steps, each kept and reused when the command is repeated: split the pages by document (train, and a
fifth held out), synthesise pages, pre-train on them, fine-tune on the real training pages, export to
ONNX, run the held-out pages through the SDK. The held-out pages choose nothing: the last checkpoint is
measured, once. Prints AP and AP50 (COCO, one class) and ms a page of the SDK, and writes the worst pages
with true (green) and found (red) boxes to OUTPUT/worst.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.commands import call, processor
from export import report_pages
from training.data.page import Box, Page
from training.data.tfrecord import read_pages

# Boxes under this score are not drawn; AP uses all of them.
SHOWN_SCORE = 0.3


def main() -> None:
    """Runs what is not there yet, then measures."""
    arguments = parse_arguments()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    prepare_data(arguments)
    pretrained = arguments.pretrained or train(
        output / "synthetic",
        output / "pages",
        arguments,
        arguments.synthetic_epochs,
        0.002,
    )
    letters = output / "letters"
    tuned = train(output / "real", letters, arguments, arguments.real_epochs, 0.001, pretrained)
    onnx = tuned / "detector.onnx"
    if not onnx.exists():
        call("export", "onnx", f"--model_dir={tuned}", "--checkpoint=last", f"--output={onnx}")
    pages = list(read_pages(str(output / "letters" / "eval*")))
    found, milliseconds = detect(onnx, pages)
    pages, detections = of_class(pages, found, 1)
    scores = average_precision(pages, detections)
    draw_worst(pages, detections, output / "worst.png")
    figures = {
        "AP": scores[0],
        "AP50": scores[1],
        "pages": len(pages),
        "boxes": sum(len(page.boxes) for page in pages),
        "ms_median": float(np.median(milliseconds)),
        "ms_90th": float(np.percentile(milliseconds, 90)),
        "onnx_megabytes": onnx.stat().st_size / 1e6,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }
    (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for key, value in figures.items():
        print(f"{key:15} {value:.3f}" if isinstance(value, float) else f"{key:15} {value}")


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="YOLO folder with images/ and labels/"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/detector_real"))
    parser.add_argument("--config", default="configs/detector/cpu.yaml")
    parser.add_argument("--synthetic_pages", type=int, default=2600)
    parser.add_argument("--synthetic_epochs", type=float, default=3.0)
    parser.add_argument("--real_epochs", type=float, default=24.0)
    parser.add_argument("--side", type=int, default=640, help="input pixels, a multiple of 64 (default 640)")
    parser.add_argument(
        "--pretrained", type=pathlib.Path, help="model_dir to fine-tune instead of pre-training here"
    )
    parser.add_argument("--seed", type=int, default=11)
    return parser.parse_args()


def prepare_data(arguments: argparse.Namespace) -> None:
    """The real pages split by document, and the synthetic ones."""
    output = arguments.output.resolve()
    if not (output / "letters").exists():
        call(
            *("training.data", "convert", "yolo", f"--input={arguments.data.resolve()}"),
            *("--names=signature", f"--output={output / 'letters'}"),
            *("--eval_fraction=0.2", f"--seed={arguments.seed}", "--shards=1"),
        )
    if arguments.pretrained is None and not (output / "pages").exists():
        call(
            *("training.data", "synthesize", "pages", f"--output={output / 'pages'}"),
            *(f"--count={arguments.synthetic_pages}", "--eval_count=100", f"--seed={arguments.seed}"),
        )


def train(
    model_dir: pathlib.Path,
    data: pathlib.Path,
    arguments: argparse.Namespace,
    epochs: float,
    rate: float,
    initial: pathlib.Path | None = None,
) -> pathlib.Path:
    """Trains to the end, or continues; returns the model_dir."""
    import yaml

    sections = {
        "task": {
            "model": {"input_size": [arguments.side, arguments.side, 3]},
            "train_data": {"input_path": f"{data.resolve()}/train*"},
            "validation_data": {"input_path": f"{data.resolve()}/eval*"},
        },
        "schedule": {"epochs": epochs, "learning_rate": rate, "evaluations": 1},
        "seed": arguments.seed,
    }
    if initial is not None:
        sections["task"]["init_checkpoint"] = str(initial.resolve())
        sections["task"]["init_checkpoint_modules"] = "all"
    model_dir = model_dir.resolve()
    model_dir.mkdir(parents=True, exist_ok=True)
    override = model_dir / "override.yaml"
    override.write_text(yaml.safe_dump(sections))
    call(
        *("training.train", "--experiment=retinanet_signverod", "--mode=train"),
        *(f"--model_dir={model_dir}", f"--config_file={arguments.config}", f"--config_file={override}"),
    )
    return model_dir


def detect(onnx: pathlib.Path, pages: Sequence[Page], threads: int = 0) -> tuple[list, list[float]]:
    """Every page through the SDK: (boxes, scores, classes) of each, and milliseconds for the decoded page."""
    from signver.detector import Detector

    detector = Detector(threads)
    detector.load(str(onnx))
    detections, milliseconds = [], []
    for number, page in enumerate(pages):
        image = np.asarray(Image.open(io.BytesIO(page.image)).convert("RGB"))
        if number == 0:
            detector.detect(image)  # memory is laid out on the first call
        start = time.perf_counter()
        boxes, scores, classes, _ = detector.detect(image)
        milliseconds.append(1000 * (time.perf_counter() - start))
        detections.append((np.asarray(boxes), np.asarray(scores), np.asarray(classes)))
    return detections, milliseconds


def of_class(pages: Sequence[Page], detections: list, label: int) -> tuple[list[Page], list]:
    """The boxes of one class: pages with those alone, and (boxes, scores) of each page."""
    kept = [
        dataclasses.replace(page, boxes=tuple(box for box in page.boxes if box.label == label))
        for page in pages
    ]
    return kept, [
        (boxes[classes == label], scores[classes == label]) for boxes, scores, classes in detections
    ]


def average_precision(pages: list[Page], detections: list) -> tuple[float, float]:
    """COCO's AP and AP50 of one class, -1 where no page holds it."""
    labels = {box.label for page in pages for box in page.boxes}
    if not labels:
        return -1.0, -1.0
    (label,) = labels
    results = []
    for page, (boxes, scores) in zip(pages, detections, strict=True):
        found = [
            report_pages.Found(Box(*map(float, box), label), float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]
        results.append(report_pages.PageResult(page, tuple(found), (), (), 0.0))
    figures = report_pages.average_precision(results, [label])[label]
    return figures["AP"], figures["AP50"]


def page_errors(page, boxes: np.ndarray, scores: np.ndarray) -> int:
    """Missed boxes plus false ones at the shown score, by IoU 0.5."""
    kept = [box for box, score in zip(boxes, scores, strict=True) if score >= SHOWN_SCORE]
    true = [(box.ymin, box.xmin, box.ymax, box.xmax) for box in page.boxes]
    missed = sum(all(overlap(a, b) < 0.5 for b in kept) for a in true)
    return missed + sum(all(overlap(a, b) < 0.5 for b in true) for a in kept)


def overlap(a, b) -> float:
    """Intersection over union of two normalised boxes."""
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, height) * max(0.0, width)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def draw_worst(pages: list, detections: list, target: pathlib.Path, count: int = 12, side: int = 480) -> None:
    """A contact sheet of the pages with the most errors."""
    order = sorted(range(len(pages)), key=lambda i: -page_errors(pages[i], *detections[i]))[:count]
    sheet = Image.new("RGB", (4 * side, -(-len(order) // 4) * side), "white")
    for place, number in enumerate(order):
        image = Image.open(io.BytesIO(pages[number].image)).convert("RGB").resize((side, side))
        draw = ImageDraw.Draw(image)
        for box in pages[number].boxes:
            draw.rectangle(
                [box.xmin * side, box.ymin * side, box.xmax * side, box.ymax * side], outline="green", width=2
            )
        for (ymin, xmin, ymax, xmax), score in zip(*detections[number], strict=True):
            if score >= SHOWN_SCORE:
                draw.rectangle([xmin * side, ymin * side, xmax * side, ymax * side], outline="red", width=2)
                draw.text((xmin * side, ymin * side - 12), f"{score:.2f}", fill="red")
        sheet.paste(image, (place % 4 * side, place // 4 * side))
    sheet.save(target)


if __name__ == "__main__":
    main()
