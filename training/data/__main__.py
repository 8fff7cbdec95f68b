"""Command line of the data tools: `python -m training.data --help`."""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

from training import options
from training.data import fetch, location, signatures
from training.data.page import Page
from training.data.synthetic import command as synthesize
from training.errors import run_command

_EXAMPLES = """
examples:
  python -m training.data synthesize pages --output=data/pages --count=1200 --seed=7
  python -m training.data synthesize sheet --output=sheet.png
  python -m training.data convert yolo --input=export --names=signature --output=data/letters
  python -m training.data convert coco --annotations=a.json --images=images --output=data/pages
  python -m training.data convert signverod --input=signverod --output=data/signverod --max_side=1400
  python -m training.data convert signatures --input=cedar --output=data/cedar
  python -m training.data synthesize signatures --output=data/signatures --writers=300
  python -m training.data check data/signverod
  python -m training.data fetch signverod --output=data
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data",
        description="Make, convert and check data sets of annotated pages and of signatures.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_convert(
        commands.add_parser("convert", help="COCO, YOLO, SignVerOD, signatures or TFRecords into a data set")
    )
    check = commands.add_parser(
        "check", help="look for faults before a run; exit code 1 when there are errors"
    )
    check.add_argument("folder", type=pathlib.Path)
    location.add_argument(check)
    check.add_argument("--json", action="store_true", help="findings as JSON")
    fetch.add_arguments(
        commands.add_parser(
            "fetch", help="SignVerOD, CEDAR or the Siamese set from Kaggle, converted and checked"
        )
    )
    synthesize.add_arguments(
        commands.add_parser("synthesize", help="make pages or signatures with a generator")
    )
    return parser.parse_args(arguments)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(
        dest="format", required=True, metavar="{coco,yolo,signverod,signatures,tfrecord}"
    )
    coco = formats.add_parser("coco", help="a COCO detection file and its images")
    coco.add_argument("--annotations", type=pathlib.Path, required=True)
    coco.add_argument("--images", type=pathlib.Path, required=True)
    coco.add_argument(
        "--names", type=_names, help="other names for the categories, in the order of their ids"
    )
    yolo = formats.add_parser("yolo", help="images/ and labels/, or train/, valid/, test/ with them")
    yolo.add_argument("--input", type=pathlib.Path, required=True)
    yolo.add_argument("--names", type=_names, help="classes by number; default: those of data.yaml")
    signverod = formats.add_parser("signverod", help="its CSV files and page images, its own splits repaired")
    signverod.add_argument("--input", type=pathlib.Path, required=True)
    signverod.add_argument("--partial", action="store_true", help="leave absent pages out")
    tfrecord = formats.add_parser(
        "tfrecord", help="TFRecords of the object-detection schema, e.g. SignVerOD's"
    )
    tfrecord.add_argument(
        "--input", type=pathlib.Path, required=True, help="folder with train* and eval* shards"
    )
    tfrecord.add_argument("--names", type=_names, help="classes from label 1 on; default: label_map.pbtxt")
    single = formats.add_parser(
        "signatures", help="images of single signatures: CEDAR, WRITER/genuine|forged, …"
    )
    signatures.add_arguments(single)
    for kind in (coco, yolo, tfrecord):
        kind.add_argument(
            "--classes",
            type=_names,
            help="number the classes in this order, found by name, e.g. signature,initials,redaction,date",
        )
    for kind in (coco, yolo, signverod, tfrecord, single):
        location.add_argument(kind)
        kind.add_argument("--output", type=pathlib.Path, required=True, help="folder to make")
        kind.add_argument(
            "--shards", type=options.whole(1), default=4, help="files of the training split (default 4)"
        )
        kind.add_argument(
            "--max_side", type=options.whole(0), default=0, help="reduce pages with a longer side, e.g. 1400"
        )
        kind.add_argument(
            "--document_pattern",
            type=_pattern,
            help="regular expression; its first group is a page's document",
        )
        kind.add_argument(
            "--eval_fraction",
            type=_fraction,
            default=0.2,
            help="share of documents held out where the source has no usable split (default 0.2)",
        )
        kind.add_argument("--seed", type=int, default=0, help="decides which documents (default 0)")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return value


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression ({error})") from error
    if not groups:
        raise argparse.ArgumentTypeError(f"'{text}' has no group; write ([^-]+)-.* to keep what is in ()")
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}' has an empty name; write signature,date")
    return names


def convert(arguments: argparse.Namespace) -> int:
    """Writes a data set from another format."""
    from training.data import conversion, tfrecord

    arguments.output = location.locate_path(arguments.output)
    source = conversion.READERS[arguments.format](arguments)
    if "classes" in arguments and arguments.classes:
        source = conversion.in_order(source, arguments.classes)
    splits = conversion.divide(source, arguments.eval_fraction, arguments.seed)
    card = tfrecord.write_dataset(
        arguments.output,
        {
            split: _progress((item.load(arguments.max_side) for item in items), split, len(items))
            for split, items in splits.items()
        },
        source.classes,
        # More shards than pages would leave some empty, which `check` calls an error.
        shards={
            split: min(arguments.shards if split == "train" else 1, len(items))
            for split, items in splits.items()
        },
        source=arguments.format,
        seed=arguments.seed,
        notes=source.notes,
    )
    for split, summary in card["splits"].items():
        boxes = ", ".join(f"{count} {name}" for name, count in summary["boxes"].items()) or "no box"
        size = f"{summary['pages']} pages of {summary['documents']} documents"
        print(f"{arguments.output}: {split}: {size}, {boxes}")
    for note in source.notes:
        print(f"note: {note}")
    return 0


def _progress(pages: Iterable[Page], name: str, total: int) -> Iterator[Page]:
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 60
    yield from tqdm(pages, desc=name, unit="page", total=total, mininterval=interval)


def check(arguments: argparse.Namespace) -> int:
    """Prints what is wrong with a data set."""
    import dataclasses

    from training.data.check import check_dataset

    arguments.folder = location.locate_path(arguments.folder)
    findings, counts = check_dataset(arguments.folder)
    errors, warnings = (
        sum(finding.severity == level for finding in findings) for level in ("error", "warning")
    )
    if arguments.json:
        print(
            json.dumps(
                {"counts": counts, "findings": [dataclasses.asdict(finding) for finding in findings]},
                indent=2,
            )
        )
    else:
        for finding in findings:
            print(finding)
        summary = ", ".join(f"{counts.get(key, 0)} {key}" for key in ("shards", "pages", "boxes"))
        print(f"{arguments.folder}: {summary}; {errors} errors, {warnings} warnings")
    return 1 if errors else 0


def main() -> int:
    """Entry point; returns the exit code."""
    return _run(parse_arguments())


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "fetch":
        return fetch.run(arguments, lambda command: _run(parse_arguments(command)))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    commands = {"convert": convert, "check": check, "synthesize": synthesize.run}
    return commands[arguments.command](arguments)


if __name__ == "__main__":
    run_command(main)
