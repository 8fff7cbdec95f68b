"""How well anchor shapes cover real boxes: the reasoning behind `retinanet_signverod`'s anchors.

    python benchmarks/anchors.py --data ../shared/data

For each set of aspect ratios it prints, per class, the share of boxes for which some anchor (at the
best position) has an IoU of at least 0.5, and the mean of the best IoU. The stock shapes of RetinaNet
are in the same table. Pages are fitted into a 640² input, aspect ratio kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib

import numpy as np

INPUT_SIZE = 640
STOCK = (0.5, 1.0, 2.0)
CANDIDATES = (STOCK, (1.0, 2.0, 4.0), (1.0, 3.0, 6.0), (1.5, 4.0, 9.0), (1.0, 2.0, 4.0, 8.0))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, help="folder with signverod/ and tobacco800-signatures/"
    )
    arguments = parser.parse_args()
    sets = {"tobacco": tobacco_sizes(arguments.data / "tobacco800-signatures" / "labels")}
    sets |= signverod_sizes(arguments.data / "signverod")
    for name, sizes in sets.items():
        width, height = np.median(sizes, axis=0)
        print(f"{name}: {len(sizes)} boxes, median {width:.0f} x {height:.0f} px at {INPUT_SIZE}²")
    print(f"\n{'aspect ratios':22} levels scales size  " + "  ".join(f"{name:>11}" for name in sets))
    for aspects in CANDIDATES:
        for levels, scales, size in (((3, 7), 3, 4.0), ((3, 7), 3, 3.0), ((3, 6), 2, 3.0)):
            anchors = anchor_sizes(aspects, levels, scales, size)
            cells = [
                f"{recall:.2f} / {mean:.2f}"
                for recall, mean in (coverage(box, anchors) for box in sets.values())
            ]
            print(f"{aspects!s:22} {levels[0]}-{levels[1]}    {scales}      {size}   " + "  ".join(cells))


def anchor_sizes(aspects: tuple[float, ...], levels: tuple[int, int], scales: int, size: float) -> np.ndarray:
    """Width and height of every anchor in pixels, float64 [n, 2], by tf-models' formula."""
    return np.array(
        [
            (
                size * 2 ** (level + octave / scales) * aspect**0.5,
                size * 2 ** (level + octave / scales) / aspect**0.5,
            )
            for level in range(levels[0], levels[1] + 1)
            for octave in range(scales)
            for aspect in aspects
        ]
    )


def coverage(boxes: np.ndarray, anchors: np.ndarray) -> tuple[float, float]:
    """Share of boxes with a concentric anchor of IoU ≥ 0.5, and the mean best IoU."""
    overlap = np.minimum(boxes[:, None], anchors[None]).prod(axis=2)
    union = boxes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - overlap
    best = (overlap / union).max(axis=1)
    return float((best >= 0.5).mean()), float(best.mean())


def tobacco_sizes(folder: pathlib.Path) -> np.ndarray:
    """Width and height in input pixels of every box of the YOLO label files."""
    rows = [line.split() for file in sorted(folder.glob("*.txt")) for line in file.read_text().splitlines()]
    return np.array([(float(row[3]), float(row[4])) for row in rows if row]) * INPUT_SIZE


def signverod_sizes(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The same for SignVerOD's CSV files, by class name."""
    with open(folder / "categories.csv", encoding="utf-8") as stream:
        names = {row["id"]: row["name"] for row in csv.DictReader(stream)}
    with open(folder / "image_ids.csv", encoding="utf-8") as stream:
        pages = {row["id_new"]: (int(row["height"]), int(row["width"])) for row in csv.DictReader(stream)}
    sizes: dict[str, list[tuple[float, float]]] = {name: [] for name in names.values()}
    for split in ("train", "test"):
        with open(folder / f"{split}.csv", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                _, _, width, height = json.loads(row["bbox"])
                page_height, page_width = pages[row["image_id_new"]]
                scale = INPUT_SIZE / max(page_height, page_width)
                box = (width * page_width * scale, height * page_height * scale)
                if min(box) > 0:
                    sizes[names[row["category_id"]]].append(box)
    return {name: np.array(rows) for name, rows in sizes.items()}


if __name__ == "__main__":
    main()
