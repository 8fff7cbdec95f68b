"""`python -m training.data synthesize pages|signatures|sheet`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import multiprocessing
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from training import distribution
from training.data import location
from training.data.page import Page
from training.errors import UserError
from training.files import atomic_file

_HELP = """Scanned-looking letters, memos, contracts, leases, forms and cheques with exact boxes.
Handwriting comes from a kinematic model, so no real person's signature is in them.
The same seed gives the same bytes on any number of processes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `pages`, `signatures` and `sheet`."""
    parser.description = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{pages,signatures,sheet}")
    pages = kinds.add_parser("pages", help="a data set of TFRecords", description=_HELP)
    location.add_argument(pages)
    pages.add_argument("--output", type=pathlib.Path, required=True, help="folder to make")
    pages.add_argument("--count", type=int, default=1200, help="training pages (default 1200)")
    pages.add_argument(
        "--eval_count", type=int, default=150, help="evaluation pages, by other writers (default 150)"
    )
    pages.add_argument("--shards", type=int, default=4, help="files of the training split (default 4)")
    pages.add_argument("--processes", type=int, default=distribution.cores(), help="default: all cores")
    pages.add_argument(
        "--classes",
        choices=("signverod", "signature"),
        default="signverod",
        help="signverod: signature, initials, redaction, date (default); signature: that class alone",
    )
    pages.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="millimetres that boxes leave around signatures and dates, on a page 280 mm long; half as much "
        "again around initials, half around redactions; people who annotate leave about 1 (default 0: exact)",
    )
    single = kinds.add_parser(
        "signatures", help="single signatures, genuine and forged, by synthetic writers"
    )
    location.add_argument(single)
    single.add_argument("--output", type=pathlib.Path, required=True, help="folder to make")
    single.add_argument(
        "--writers", type=int, default=300, help="writers of the training split (default 300)"
    )
    single.add_argument("--eval_writers", type=int, default=40, help="other writers, held out (default 40)")
    single.add_argument("--genuine", type=int, default=6, help="genuine signatures a writer (default 6)")
    single.add_argument("--forged", type=int, default=2, help="skilled forgeries a writer (default 2)")
    single.add_argument("--seed", type=int, default=0)
    single.add_argument("--shards", type=int, default=4, help="files of the training split (default 4)")
    single.add_argument("--processes", type=int, default=distribution.cores(), help="default: all cores")
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
    arguments.output = location.locate_path(arguments.output)
    for name, least in (("shards", 1), ("processes", 1), ("seed", 0)):
        if getattr(arguments, name, least) < least:
            raise UserError(f"--{name} must be at least {least}.")
    if arguments.what == "signatures":
        return _signatures(arguments)
    if arguments.count < 1 or arguments.long_side < 200:
        raise UserError("--count must be at least 1 and --long_side at least 200.")
    return _sheet(arguments) if arguments.what == "sheet" else _pages(arguments)


def _pages(arguments: argparse.Namespace) -> int:
    from training.data.synthetic.sheet import CLASSES
    from training.data.tfrecord import write_dataset

    classes = CLASSES if arguments.classes == "signverod" else {1: CLASSES[1]}
    if arguments.eval_count < 1:
        raise UserError("--eval_count must be at least 1: a training without evaluation pages tells nothing.")
    if not 0 <= arguments.margin <= 20:
        raise UserError("--margin must be 0 to 20 millimetres.")
    splits = {
        "train": _generate(arguments, arguments.count, False, len(classes)),
        "eval": _generate(arguments, arguments.eval_count, True, len(classes)),
    }
    card = write_dataset(
        arguments.output,
        splits,
        classes,
        shards={"train": min(arguments.shards, arguments.count), "eval": 1},
        source=f"synthetic pages, {arguments.long_side} pixels long",
        seed=arguments.seed,
        notes=["Writers of the eval split write no page of the train split."],
    )
    for split, summary in card["splits"].items():
        boxes = ", ".join(f"{count} {name}" for name, count in summary["boxes"].items())
        print(f"{arguments.output}: {split}: {summary['pages']} pages, {boxes}")
    return 0


def _generate(arguments: argparse.Namespace, count: int, evaluation: bool, labels: int) -> Iterator[Page]:
    make = functools.partial(_make, arguments.seed, arguments.long_side, evaluation, labels, arguments.margin)
    name = "eval pages" if evaluation else "train pages"
    yield from _in_processes(make, range(count), arguments.processes, name, "page")


def _in_processes(
    make: Callable[[Any], Page], numbers: Sequence[Any], processes: int, name: str, unit: str
) -> Iterator[Page]:
    """Pages in order, made by several processes, with a progress bar."""
    from tqdm import tqdm

    # Processes are spawned: TensorFlow, which the writer has loaded, does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(max(1, processes)) as pool:
        pages = pool.imap(make, numbers, chunksize=8)
        interval = 0.5 if sys.stderr.isatty() else 60
        yield from tqdm(pages, total=len(numbers), desc=name, unit=unit, mininterval=interval)


def _signatures(arguments: argparse.Namespace) -> int:
    from training.data.signatures import CLASSES, FORGED, GENUINE, MOST_WRITERS
    from training.data.tfrecord import write_dataset

    counts = (arguments.writers, arguments.eval_writers, arguments.genuine)
    if min(counts) < 1 or arguments.forged < 0:
        raise UserError("--writers, --eval_writers and --genuine start at 1, --forged at 0.")
    if sum(counts[:2]) > MOST_WRITERS:
        raise UserError(f"--writers and --eval_writers: {MOST_WRITERS:,} together at most.")
    shares = {"train": range(arguments.writers), "eval": range(arguments.writers, sum(counts[:2]))}
    items = {
        split: [
            (writer, number, label)
            for writer in writers
            for label, count in ((GENUINE, arguments.genuine), (FORGED, arguments.forged))
            for number in range(count)
        ]
        for split, writers in shares.items()
    }
    make = functools.partial(_make_signature, arguments.seed)
    card = write_dataset(
        arguments.output,
        {
            split: _in_processes(make, numbers, arguments.processes, f"{split} signatures", "image")
            for split, numbers in items.items()
        },
        CLASSES,
        shards={"train": min(arguments.shards, len(items["train"])), "eval": 1},
        source="synthetic signatures",
        seed=arguments.seed,
        notes=["A document is a writer; no writer stands in both splits; forgers sign nothing of their own."],
    )
    for split, summary in card["splits"].items():
        boxes = ", ".join(f"{count} {name}" for name, count in summary["boxes"].items())
        print(f"{arguments.output}: {split}: {summary['documents']} writers, {boxes}")
    return 0


def _make_signature(seed: int, item: tuple[int, int, int]) -> Page:
    import cv2

    from training.data.signatures import synthesize

    cv2.setNumThreads(1)
    return synthesize(seed, *item)


def _make(seed: int, long_side: int, evaluation: bool, labels: int, margin: float, index: int) -> Page:
    import cv2

    from training.data.synthetic.page import synthesize_page

    cv2.setNumThreads(1)
    page = synthesize_page(seed, index, long_side=long_side, evaluation=evaluation, margin=margin)
    return dataclasses.replace(page, boxes=tuple(box for box in page.boxes if box.label <= labels))


def _sheet(arguments: argparse.Namespace, side: int = 480) -> int:
    from PIL import Image, ImageDraw

    from training.data.synthetic.page import synthesize_page
    from training.data.synthetic.sheet import CLASSES

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
