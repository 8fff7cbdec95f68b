"""Command line of the data tools: `python -m training.data --help`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from training.data.page import Page
from training.data.synthetic import command as synthesize
from training.errors import UserError, run_command

if TYPE_CHECKING:
    from training.data import signverod

_EXAMPLES = """
examples:
  python -m training.data synthesize pages --output=data/pages --count=1200 --seed=7
  python -m training.data synthesize sheet --output=sheet.png
  python -m training.data convert yolo --input=export --names=signature --output=data/letters
  python -m training.data convert coco --annotations=a.json --images=images --output=data/pages
  python -m training.data convert signverod --input=signverod --output=data/signverod --max_side=1400
  python -m training.data check data/signverod
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data",
        description="Make, convert and check data sets of annotated pages.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_convert(commands.add_parser("convert", help="COCO, YOLO, SignVerOD or TFRecords into a data set"))
    check = commands.add_parser(
        "check", help="look for faults before a run; exit code 1 when there are errors"
    )
    check.add_argument("folder", type=pathlib.Path)
    check.add_argument("--json", action="store_true", help="findings as JSON")
    synthesize.add_arguments(commands.add_parser("synthesize", help="make pages with a generator"))
    return parser.parse_args(arguments)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="{coco,yolo,signverod,tfrecord}")
    coco = formats.add_parser("coco", help="a COCO detection file and its images")
    coco.add_argument("--annotations", type=pathlib.Path, required=True)
    coco.add_argument("--images", type=pathlib.Path, required=True)
    yolo = formats.add_parser("yolo", help="images/ and labels/, or train/, valid/, test/ with them")
    yolo.add_argument("--input", type=pathlib.Path, required=True)
    yolo.add_argument("--names", help="class names by number, e.g. signature,date; default: data.yaml")
    signverod = formats.add_parser("signverod", help="its CSV files and page images, its own splits repaired")
    signverod.add_argument("--input", type=pathlib.Path, required=True)
    signverod.add_argument("--partial", action="store_true", help="leave absent pages out")
    tfrecord = formats.add_parser(
        "tfrecord", help="TFRecords of the object-detection schema, e.g. SignVerOD's"
    )
    tfrecord.add_argument(
        "--input", type=pathlib.Path, required=True, help="folder with train* and eval* shards"
    )
    tfrecord.add_argument("--names", help="class names from label 1 on; default: label_map.pbtxt")
    for kind in (coco, yolo, signverod, tfrecord):
        kind.add_argument("--output", type=pathlib.Path, required=True, help="folder to make")
        kind.add_argument("--shards", type=int, default=4, help="files of the training split (default 4)")
        kind.add_argument(
            "--max_side", type=int, default=0, help="reduce pages with a longer side, e.g. 1400"
        )
        kind.add_argument(
            "--document_pattern", help="regular expression; its first group is a page's document"
        )
    for kind in (coco, yolo):
        kind.add_argument("--eval_fraction", type=float, default=0.2, help="share of documents held out")
        kind.add_argument("--seed", type=int, default=0, help="decides which documents")


def convert(arguments: argparse.Namespace) -> int:
    """Writes a data set from another format."""
    from training.data import formats, splits, tfrecord

    options = formats.Options(arguments.max_side, arguments.document_pattern)
    notes: list[str] = []
    if arguments.format == "signverod":
        pages, classes, notes = _signverod(arguments, options)
    elif arguments.format == "tfrecord":
        pages, classes = _tfrecords(arguments)
    else:
        if arguments.format == "coco":
            found, classes = formats.read_coco(arguments.annotations, arguments.images, options)
        else:
            names = arguments.names.split(",") if arguments.names else None
            found, classes = formats.read_yolo(arguments.input, names, options)
        pages = dict(splits.by_document(_progress(found, "pages"), arguments.eval_fraction, arguments.seed))
        if not all(pages.values()):
            raise UserError("a split is empty: take another --eval_fraction or --seed, or add documents.")
    card = tfrecord.write_dataset(
        arguments.output,
        pages,
        classes,
        shards={"train": arguments.shards, "eval": 1},
        source=arguments.format,
        seed=getattr(arguments, "seed", None),
        notes=notes,
    )
    for split, summary in card["splits"].items():
        boxes = ", ".join(f"{count} {name}" for name, count in summary["boxes"].items())
        size = f"{summary['pages']} pages of {summary['documents']} documents"
        print(f"{arguments.output}: {split}: {size}, {boxes}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _signverod(
    arguments: argparse.Namespace, options: object
) -> tuple[dict[str, Iterable[Page]], dict[int, str], list[str]]:
    from training.data import signverod, splits

    annotation = signverod.read_annotation(arguments.input)
    pages, absent = signverod.read_pages(arguments.input, annotation, options, arguments.partial)  # type: ignore[arg-type]
    notes = list(annotation.notes)
    if absent:
        notes.append(
            f"{len(absent)} annotated pages were absent and left out, among them {', '.join(absent[:3])}."
        )
    if absent and not all(_present(annotation, absent).values()):
        everything = itertools.chain(*pages.values())
        notes.append(
            "The published splits leave a side empty here; documents were split anew, 1 in 5 held out."
        )
        anew = splits.by_document(_progress(everything, "pages"), 0.2, 0)
        return dict(anew), annotation.classes, notes
    return {split: _progress(found, split) for split, found in pages.items()}, annotation.classes, notes


def _present(annotation: signverod.Annotation, absent: list[str]) -> dict[str, int]:
    missing = set(absent)
    return {
        split: sum(annotation.files[identity] not in missing for identity in ids)
        for split, ids in annotation.splits.items()
    }


def _tfrecords(arguments: argparse.Namespace) -> tuple[dict[str, Iterable[Page]], dict[int, str]]:
    from training.data import splits, tfrecord

    if arguments.names:
        classes = dict(enumerate(arguments.names.split(","), start=1))
    else:
        classes = tfrecord.read_label_map(arguments.input / tfrecord.LABEL_MAP)

    def pages(split: str) -> Iterator[Page]:
        import dataclasses

        for page in tfrecord.read_pages(f"{arguments.input}/{split}*"):
            yield dataclasses.replace(
                page, document=splits.document_of(page.name, arguments.document_pattern)
            )

    return {split: _progress(pages(split), split) for split in ("train", "eval")}, classes


def _progress(pages: Iterable[Page], name: str) -> Iterator[Page]:
    from tqdm import tqdm

    yield from tqdm(pages, desc=name, unit="page", mininterval=0.5 if sys.stderr.isatty() else 60)


def check(arguments: argparse.Namespace) -> int:
    """Prints what is wrong with a data set."""
    import dataclasses

    from training.data.check import check_dataset

    findings, counts = check_dataset(arguments.folder)
    errors = sum(finding.severity == "error" for finding in findings)
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
        print(f"{arguments.folder}: {summary}; {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    commands = {"convert": convert, "check": check, "synthesize": synthesize.run}
    return commands[arguments.command](arguments)


if __name__ == "__main__":
    run_command(main)
