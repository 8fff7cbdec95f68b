"""Looks at a data set before a run is paid for: every fault with its file and record."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import pathlib
import struct
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from training.data.page import Box, Page
from training.data.tfrecord import CARD, LABEL_MAP, parse_example, read_label_map
from training.errors import UserError
from training.files import sha256

# A box may reach this far beyond the page before it counts as wrong: annotation tools round.
_ROUNDING = 0.005
_HEADER = struct.Struct("<QI")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
      severity: error (a run would be wrong or fail) or warning.
      file: shard or side file, its name without the folder.
      record: number in the shard, from 0; None for the whole file.
      message: what was found.
    """

    severity: str
    file: str
    record: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.record is None else f"{self.file}, record {self.record}"
        return f"{self.severity}: {place}: {self.message}"


def check_dataset(folder: pathlib.Path) -> tuple[list[Finding], dict[str, int]]:
    """Reads every record of a data set folder.

    Returns:
      Findings, errors first, and counts: pages, boxes, shards.

    Raises:
      UserError: the folder holds no shard.
    """
    shards = sorted([*folder.glob("*.tfrecord"), *folder.glob("*-of-*[0-9]")])
    if not shards:
        raise UserError(f"{folder}: no *.tfrecord and no *-of-NNNNN here; is this a data set folder?")
    findings: list[Finding] = []
    classes = _read_classes(folder, findings)
    counts: collections.Counter[str] = collections.Counter(shards=len(shards))
    seen = _Seen()
    for shard in shards:
        records = 0
        for number, page in _pages(shard, findings):
            records += 1
            counts["pages"] += 1
            counts["boxes"] += len(page.boxes)
            _check_page(shard.name, number, page, classes, findings)
            seen.add(shard.name, number, page, findings)
        if not records and not any(finding.file == shard.name for finding in findings):
            findings.append(Finding("error", shard.name, None, "empty: no record in this shard"))
    seen.check_documents(findings)
    _check_card(folder, findings)
    if counts["pages"] and not counts["boxes"]:
        findings.append(Finding("error", folder.name, None, "no box on any page"))
    return sorted(findings, key=lambda finding: finding.severity != "error"), dict(counts)


class _Seen:
    """What stands twice: images over splits, documents over splits, source ids."""

    def __init__(self) -> None:
        self._images: dict[str, tuple[str, int]] = {}
        self._documents: dict[str, dict[str, tuple[str, int]]] = collections.defaultdict(dict)

    def add(self, file: str, number: int, page: Page, findings: list[Finding]) -> None:
        split = file.split("-")[0]
        digest = hashlib.sha256(page.image).hexdigest()
        first = self._images.setdefault(digest, (file, number))
        if first != (file, number):
            other = first[0].split("-")[0]
            severity = "error" if other != split else "warning"
            words = f"the same image as {first[0]}, record {first[1]}"
            findings.append(
                Finding(severity, file, number, words + (", in another split" if other != split else ""))
            )
        self._documents[page.document].setdefault(split, (file, number))

    def check_documents(self, findings: list[Finding]) -> None:
        for document, places in self._documents.items():
            if len(places) > 1:
                file, number = places[sorted(places)[0]]
                splits = " and ".join(sorted(places))
                findings.append(
                    Finding("error", file, number, f"document '{document}' has pages in {splits}")
                )


def _pages(shard: pathlib.Path, findings: list[Finding]) -> Iterator[tuple[int, Page]]:
    """Pages of a shard, as far as they can be read; a broken frame ends the shard."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    size = shard.stat().st_size
    number = 0
    iterator = tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()
    while True:
        try:
            serialised = next(iterator)
        except StopIteration:
            break
        except tf.errors.OpError:
            findings.append(Finding("error", shard.name, number, _broken_frame(shard, number, size)))
            return
        try:
            page = parse_example(tf.train.Example.FromString(serialised))
        except (DecodeError, ValueError, KeyError) as error:
            reason = (
                "not a tf.Example"
                if isinstance(error, DecodeError)
                else "box sides and labels differ in number"
            )
            findings.append(Finding("error", shard.name, number, reason))
        else:
            yield number, page
        number += 1


def _broken_frame(shard: pathlib.Path, number: int, size: int) -> str:
    """Says how a record's frame is broken, by walking the lengths up to it."""
    position = 0
    with open(shard, "rb") as stream:
        for _ in range(number):
            stream.seek(position)
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size:
                break
            position += _HEADER.size + _HEADER.unpack(header)[0] + 4
        stream.seek(position)
        header = stream.read(_HEADER.size)
    end = position + _HEADER.size + _HEADER.unpack(header)[0] + 4 if len(header) == _HEADER.size else size + 1
    if end > size:
        return f"truncated: the record starts at byte {position} and the file ends at {size}"
    return f"damaged: its checksum does not fit (bytes {position} to {end})"


def _check_page(
    file: str, number: int, page: Page, classes: Mapping[int, str] | None, findings: list[Finding]
) -> None:
    def report(severity: str, message: str) -> None:
        findings.append(Finding(severity, file, number, f"{page.name or 'unnamed page'}: {message}"))

    try:
        with Image.open(io.BytesIO(page.image)) as image:
            image.load()
            if image.format not in ("JPEG", "PNG"):
                report("error", f"is a {image.format}; JPEG or PNG is expected")
            if (image.height, image.width) != (page.height, page.width):
                report(
                    "error", f"is {image.width}x{image.height}, the record says {page.width}x{page.height}"
                )
    except Exception as error:  # Pillow raises anything from OSError to struct.error on damaged files
        report("error", f"broken image ({type(error).__name__}: {error})")
        return
    for place, box in enumerate(page.boxes):
        for severity, message in _box_faults(box, classes):
            report(severity, f"box {place} {message}")
    doubled = len(page.boxes) - len(set(page.boxes))
    if doubled:
        report("warning", f"{doubled} boxes stand twice")


def _box_faults(box: Box, classes: Mapping[int, str] | None) -> Iterator[tuple[str, str]]:
    sides = np.array([box.ymin, box.xmin, box.ymax, box.xmax])
    if not np.isfinite(sides).all():
        yield "error", "has a side that is no number"
        return
    if classes is not None and box.label not in classes:
        yield "error", f"has the unknown class {box.label}"
    if box.ymax <= box.ymin or box.xmax <= box.xmin:
        yield "error", "has no area"
    beyond = max(-sides.min(), sides.max() - 1)
    if beyond > _ROUNDING:
        yield "error", f"reaches {beyond:.1%} of the page beyond it"
    elif (box.ymax - box.ymin) * (box.xmax - box.xmin) > 0.5:
        yield "warning", "covers more than half of the page"


def _read_classes(folder: pathlib.Path, findings: list[Finding]) -> dict[int, str] | None:
    try:
        return read_label_map(folder / LABEL_MAP)
    except (UserError, UnicodeDecodeError) as error:
        findings.append(Finding("warning", LABEL_MAP, None, str(error)))
        return None


def _check_card(folder: pathlib.Path, findings: list[Finding]) -> None:
    path = folder / CARD
    if not path.exists():
        findings.append(Finding("warning", CARD, None, "missing: counts and checksums cannot be compared"))
        return
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        listed = [file for summary in splits.values() for file in summary["files"]]
        expected = {file["name"]: file["sha256"] for file in listed}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        findings.append(Finding("error", CARD, None, f"cannot be read ({error})"))
        return
    for name, digest in expected.items():
        if not (folder / name).exists():
            findings.append(Finding("error", name, None, "listed in the card, but missing"))
        elif sha256(folder / name) != digest:
            findings.append(
                Finding("error", name, None, "changed since the card was written: SHA-256 differs")
            )
