"""What the command line `signver` understands; loads no model and no numpy."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from signver.results import QUESTIONS

_EXAMPLES = """
examples:
  signver annotate letter.png                          # signed? initialled? dated? redacted?
  signver annotate contracts/ --require signed,dated   # exit code 3 where one is not
  signver annotate letter.pdf --json --output marked/  # for programs, and a picture of each page

  signver enroll "Ada Lovelace" ada1.png ada2.png ada3.png --index writers.index
  signver verify questioned.png --name "Ada Lovelace" --index writers.index && echo genuine
  signver verify questioned.png --reference ada1.png --reference ada2.png     # without an index
  signver identify questioned.png --index writers.index
  signver writers --index writers.index                # who is enrolled; --remove NAME forgets one
  signver search ada1.png 'archive/**/*.tif'           # which pages did this hand sign?

  signver detect scans/ 'more/*.jpg' --json > found.json
  signver clean crop.png --output clean/
  signver clean letter.png --pages --output clean/     # finds the signatures first, cleans each

The models are those that ship with the package, those of --bundle FOLDER, or single ONNX files: --detector,
--cleaner, --extractor. A signature is a picture of one; with --pages it is found on a page first. Folders
take their pictures and PDFs; quote patterns, ** goes through subfolders.

exit codes:
  0  all files done; verify: all are genuine; identify: all are of somebody enrolled; search: found
  1  some files could not be used, each is said; the others are done
  2  a mistake in the command, or a model or index that cannot be used
  3  all files done, and the answer is no: verify, identify, search, annotate --require
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        prog="signver",
        description="Find, clean, verify and identify signatures, with models exported by the harness.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print it and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (help_text, add) in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=f"{help_text.capitalize()}.")
        add(command)
        if name != "writers":
            _add_common(command)
    options = parser.parse_args(arguments)
    if "pages" in options and options.detector:
        options.pages = True
    return options


class _Version(argparse.Action):
    """Prints what is installed; asked for only then, since that takes longer than the rest of the help."""

    def __init__(self, **options: Any):
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        from importlib import metadata

        try:
            version = metadata.version("signver-harness")
        except metadata.PackageNotFoundError:
            version = "not installed: run from its folder"
        print(f"signver {version}")
        parser.exit()


def _add_detect(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", help="pages: pictures, PDFs, folders, quoted patterns")
    _add_score(command)


def _add_annotate(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", help="documents: pictures, PDFs, folders, quoted patterns")
    command.add_argument("--index", help="file of enrolled writers: say whose each signature is")
    command.add_argument(
        "--require",
        type=_questions,
        default=(),
        metavar="LIST",
        help=f"exit code 3 where a document is not all of these: {', '.join(QUESTIONS)}",
    )
    _add_score(command)


def _add_clean(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", help="crops of one signature each; pages with --pages")
    _add_signatures(command, clean=False)


def _add_enroll(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="of the writer")
    command.add_argument("files", nargs="+", help="its signatures; three to five serve better than one")
    command.add_argument("--index", required=True, help="file of enrolled writers, made where it is not")
    _add_signatures(command)


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", help="questioned signatures")
    command.add_argument("--name", help="whose they claim to be, enrolled in --index")
    command.add_argument("--index", help="file of enrolled writers")
    command.add_argument("--reference", action="append", help="a genuine signature; may be repeated")
    _add_cosine(command)
    _add_signatures(command)


def _add_identify(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", help="questioned signatures")
    command.add_argument("--index", required=True, help="file of enrolled writers")
    command.add_argument("--count", type=_positive, default=5, help="candidates to list (default 5)")
    _add_cosine(command)
    _add_signatures(command)


def _add_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("signature", help="picture of the signature to look for")
    command.add_argument("files", nargs="+", help="documents to look in")
    command.add_argument("--no-clean", dest="clean", action="store_false", help="SIGNATURE is ink alone")
    _add_cosine(command)
    _add_score(command)


def _add_writers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--index", required=True, help="file of enrolled writers")
    command.add_argument("--remove", action="append", metavar="NAME", help="forget a writer; may be repeated")
    command.add_argument("--json", action="store_true", help="one JSON document on standard output")


_COMMANDS = {
    "annotate": ("what is on these documents: signed, initialled, dated, redacted?", _add_annotate),
    "detect": ("where marks are on these pages", _add_detect),
    "clean": ("the ink of these signatures alone", _add_clean),
    "enroll": ("take signatures as a writer's own", _add_enroll),
    "verify": ("are these signatures of the writer they claim to be?", _add_verify),
    "identify": ("whose are these signatures?", _add_identify),
    "search": ("which documents hold a signature of this hand?", _add_search),
    "writers": ("who is enrolled?", _add_writers),
}


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=pathlib.Path, metavar="FOLDER", help="for pictures of the answer")
    command.add_argument("--json", action="store_true", help="one JSON document on standard output")
    command.add_argument("--bundle", metavar="FOLDER", help="models; default: those of the package")
    command.add_argument("--detector", metavar="FILE", help="ONNX file of a detector")
    command.add_argument("--cleaner", metavar="FILE", help="ONNX file of a cleaner")
    command.add_argument("--extractor", metavar="FILE", help="ONNX file of an extractor")
    command.add_argument(
        "--threads", type=_natural, default=0, help="cores to use, over all files at a time; 0 takes all"
    )


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold", type=_share, help="keep marks of a page that score this; default: the detector's own"
    )


def _add_cosine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--similarity", type=_cosine, help="what counts as genuine, a cosine; default: the extractor's own"
    )


def _add_signatures(command: argparse.ArgumentParser, clean: bool = True) -> None:
    command.add_argument(
        "--pages",
        action="store_true",
        help="the files are pages: signatures are found first; verify takes the one most like the writer's, "
        "enroll and identify the surest; implied by --detector",
    )
    _add_score(command)
    if clean:
        command.add_argument("--no-clean", dest="clean", action="store_false", help="they are ink alone")


def _questions(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in QUESTIONS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(QUESTIONS)}")
    return names


def _share(text: str) -> float:
    return _between(text, 0.0, 1.0)


def _cosine(text: str) -> float:
    return _between(text, -1.0, 1.0)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"'{text}' is not between {low:g} and {high:g}")
    return value


def _natural(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} on")
    return int(text)
