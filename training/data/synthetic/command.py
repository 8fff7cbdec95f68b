"""`python -m training.data synthesize pages|sheet`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Iterator

from training.data.page import Page
from training.errors import UserError
from training.files import atomic_file

_HELP = """Scanned-looking letters, memos, contracts, leases, forms and cheques with exact boxes.
Handwriting comes from a kinematic model, so no real person's signature is in them.
The same seed gives the same bytes on any number of processes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `pages` and `sheet`."""
    parser.description = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{pages,sheet}")
    pages = kinds.add_parser("pages", help="a data set of TFRecords", description=_HELP)
    pages.add_argument("--output", type=pathlib.Path, required=True, help="folder to make")
    pages.add_argument("--count", type=int, default=1200, help="training pages (default 1200)")
    pages.add_argument(
        "--eval_count", type=int, default=150, help="evaluation pages, by other writers (default 150)"
    )
    pages.add_argument("--shards", type=int, default=4, help="files of the training split (default 4)")
    pages.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores"
    )
    pages.add_argument(
        "--classes",
        choices=("signverod", "signature"),
        default="signverod",
        help="signverod: signature, initials, redaction, date (default); signature: that class alone",
    )
    sheet = kinds.add_parser("sheet", help="a picture of some pages with their boxes, to look at")
    sheet.add_argument("--output", type=pathlib.Path, required=True, help="PNG file to make")
    sheet.add_argument("--count", type=int, default=12, help="pages on it (default 12)")
    for kind in (pages, sheet):
        kind.add_argument("--seed", type=int, default=0)
        kind.add_argument(
            "--long_side", type=int, default=1000, help="pixels of a page's longer side (default 1000)"
        )


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    if arguments.count < 1 or arguments.long_side < 200:
        raise UserError("--count must be at least 1 and --long_side at least 200.")
    return _sheet(arguments) if arguments.what == "sheet" else _pages(arguments)


def _pages(arguments: argparse.Namespace) -> int:
    from training.data.synthetic.page import CLASSES
    from training.data.tfrecord import write_dataset

    classes = CLASSES if arguments.classes == "signverod" else {1: CLASSES[1]}
    if arguments.eval_count < 1:
        raise UserError("--eval_count must be at least 1: a training without evaluation pages tells nothing.")
    splits = {
        "train": _generate(arguments, arguments.count, False, len(classes)),
        "eval": _generate(arguments, arguments.eval_count, True, len(classes)),
    }
    card = write_dataset(
        arguments.output,
        splits,
        classes,
        shards={"train": arguments.shards, "eval": 1},
        source=f"synthetic pages, {arguments.long_side} pixels long",
        seed=arguments.seed,
        notes=["Writers of the eval split write no page of the train split."],
    )
    for split, summary in card["splits"].items():
        boxes = ", ".join(f"{count} {name}" for name, count in summary["boxes"].items())
        print(f"{arguments.output}: {split}: {summary['pages']} pages, {boxes}")
    return 0


def _generate(arguments: argparse.Namespace, count: int, evaluation: bool, labels: int) -> Iterator[Page]:
    from tqdm import tqdm

    make = functools.partial(_make, arguments.seed, arguments.long_side, evaluation, labels)
    name = "eval pages" if evaluation else "train pages"
    # Processes are spawned: TensorFlow, which the writer has loaded, does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(max(1, arguments.processes)) as pool:
        pages = pool.imap(make, range(count), chunksize=8)
        interval = 0.5 if sys.stderr.isatty() else 60
        yield from tqdm(pages, total=count, desc=name, unit="page", mininterval=interval)


def _make(seed: int, long_side: int, evaluation: bool, labels: int, index: int) -> Page:
    import cv2

    from training.data.synthetic.page import synthesize_page

    cv2.setNumThreads(1)
    page = synthesize_page(seed, index, long_side=long_side, evaluation=evaluation)
    return dataclasses.replace(page, boxes=tuple(box for box in page.boxes if box.label <= labels))


def _sheet(arguments: argparse.Namespace, side: int = 480) -> int:
    from PIL import Image, ImageDraw

    from training.data.synthetic.page import CLASSES, synthesize_page

    columns = min(4, arguments.count)
    rows = -(-arguments.count // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "lightgrey")
    colours = {1: "red", 2: "blue", 3: "magenta", 4: "green"}
    for index in range(arguments.count):
        page = synthesize_page(arguments.seed, index, long_side=arguments.long_side)
        image = Image.open(io.BytesIO(page.image)).convert("RGB")
        draw = ImageDraw.Draw(image)
        for box in page.boxes:
            corners = [
                box.xmin * image.width,
                box.ymin * image.height,
                box.xmax * image.width,
                box.ymax * image.height,
            ]
            draw.rectangle(corners, outline=colours[box.label], width=3)
        image.thumbnail((side - 6, side - 6))
        sheet.paste(image, (index % columns * side, index // columns * side))
    with atomic_file(arguments.output) as temporary:
        sheet.save(temporary, format="PNG")
    print(
        f"{arguments.output}: {arguments.count} pages; "
        + ", ".join(f"{CLASSES[k]} {c}" for k, c in colours.items())
    )
    return 0
