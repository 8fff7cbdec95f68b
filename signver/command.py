"""The command line `signver`: find signatures on pages, clean crops. `signver --help` teaches."""

from __future__ import annotations

import argparse
import glob
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from signver.errors import SignVerError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_EXAMPLES = """
examples:
  signver detect letter.png --detector detector.onnx
  signver detect scans/ 'more/*.jpg' --detector detector.onnx --json > found.json
  signver detect letter.png --detector detector.onnx --output marked/       # pictures with boxes
  signver clean crop.png --cleaner cleaner.onnx --output clean/
  signver clean letter.png --cleaner cleaner.onnx --detector detector.onnx --output clean/
                                        # finds the signatures on the page first, cleans each

Exit codes: 0 all files done, 1 some could not be used (each is said), 2 a mistake in the command.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's values; loads no model and no numpy."""
    parser = argparse.ArgumentParser(
        prog="signver",
        description="Find and clean signatures with models exported by the harness.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    detect = commands.add_parser("detect", help="what is on these pages, and where")
    detect.add_argument("--output", type=pathlib.Path, help="folder for pictures with the boxes drawn")
    clean = commands.add_parser("clean", help="the ink of these crops, or of the signatures on these pages")
    clean.add_argument("--cleaner", required=True, help="ONNX file of a cleaner")
    clean.add_argument("--output", type=pathlib.Path, required=True, help="folder for the cleaned pictures")
    for command in (detect, clean):
        command.add_argument("files", nargs="+", help="pictures, folders of them, or quoted patterns")
        command.add_argument("--detector", required=command is detect, help="ONNX file of a detector")
        command.add_argument(
            "--threshold", type=_share, help="keep what scores this much; default: the detector's own"
        )
        command.add_argument("--json", action="store_true", help="one JSON document on standard output")
        command.add_argument("--threads", type=int, default=0, help="cores to use; 0 takes all")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        files = list(find_files(options.files))
        worker = _detect(options) if options.command == "detect" else _clean(options)
    except SignVerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results, failed = [], 0
    for number, file in enumerate(files, start=1):
        _progress(number, len(files))
        try:
            result = worker(file)
        except (SignVerError, OSError) as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        results.append(result)
        if not options.json:
            print(_line(result))
    if options.json:
        json.dump({"files": results, "failed": failed}, sys.stdout, indent=2)
        print()
    return 1 if failed else 0


def find_files(names: Sequence[str]) -> Iterator[str]:
    """Each picture that a list of files, folders and patterns names, once.

    Raises:
      SignVerError: a name matches nothing.
    """
    seen: set[str] = set()
    for name in names:
        path = pathlib.Path(name)
        if path.is_dir():
            found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        else:
            found = [name] if path.exists() else sorted(glob.glob(name))
        if not found:
            raise SignVerError(f"{name}: no such file, no folder with pictures, no pattern that matches.")
        yield from (file for file in found if file not in seen)
        seen.update(found)


def _detect(options: argparse.Namespace) -> Callable[[str], dict[str, Any]]:
    from signver.detector import Detector
    from signver.visualization import visualize_boxes

    detector = Detector(options.threads).load(options.detector)
    threshold = detector.score_threshold if options.threshold is None else options.threshold

    def work(file: str) -> dict[str, Any]:
        found = detector.detect(file)
        marks = [
            {
                "class": detector.class_names.get(int(label), str(label)),
                "score": round(float(score), 4),
                "box": [round(float(side), 5) for side in box],
            }
            for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
            if score >= threshold
        ]
        result: dict[str, Any] = {"file": file, "marks": marks}
        if options.output:
            drawn = visualize_boxes(
                file, found.boxes, found.scores, threshold, "#c62828", found.classes, detector.class_names
            )
            result["picture"] = _save(drawn, options.output, f"{pathlib.Path(file).stem}.png")
        return result

    return work


def _clean(options: argparse.Namespace) -> Callable[[str], dict[str, Any]]:
    from signver.cleaner import Cleaner
    from signver.detector import Detector
    from signver.visualization import get_image_crops

    cleaner = Cleaner(options.threads).load(options.cleaner)
    detector = Detector(options.threads).load(options.detector) if options.detector else None

    def work(file: str) -> dict[str, Any]:
        stem = pathlib.Path(file).stem
        if detector is None:
            return {"file": file, "pictures": [_save(cleaner.clean(file), options.output, f"{stem}.png")]}
        threshold = detector.score_threshold if options.threshold is None else options.threshold
        found = detector.detect(file)
        signatures = [detector.class_names.get(int(label)) == "signature" for label in found.classes]
        crops = get_image_crops(file, found.boxes[signatures], found.scores[signatures], threshold, 0.05)
        pictures = [
            _save(cleaner.clean(crop), options.output, f"{stem}-{number}.png")
            for number, crop in enumerate(crops, start=1)
        ]
        return {"file": file, "pictures": pictures}

    return work


def _save(pixels: Any, folder: pathlib.Path, name: str) -> str:
    """Writes a PNG whole or not at all; returns its path."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as stream:
        temporary = stream.name
        try:
            Image.fromarray(pixels).save(stream, "PNG")
        except BaseException:
            os.unlink(temporary)
            raise
    os.replace(temporary, folder / name)
    return str(folder / name)


def _line(result: dict[str, Any]) -> str:
    if "pictures" in result:
        return f"{result['file']}: " + (", ".join(result["pictures"]) or "no signature found")
    marks = ", ".join(f"{mark['class']} {mark['score']:.2f}" for mark in result["marks"]) or "nothing found"
    return f"{result['file']}: {marks}"


def _progress(number: int, count: int) -> None:
    """A counter for whoever watches; nothing in a log."""
    if count > 5 and sys.stderr.isatty():
        print(f"\r{number}/{count} ", end="\n" if number == count else "", file=sys.stderr, flush=True)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
