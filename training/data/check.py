"""Looks at a data set before a run is paid for: every fault with its file and record."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from training.data import formats, leaks, signatures
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
      severity: error (a run would be wrong or fail), warning, or note.
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


@dataclasses.dataclass(frozen=True)
class Record:
    """A page as it lies in a shard.

    Attributes:
      file: name of the shard without its folder.
      number: in the shard, from 0.
      page: its content.
      source_id: as stored; tf-models reads a number from it.
      digest: SHA-256 of the image as stored, "" where none is.
    """

    file: str
    number: int
    page: Page
    source_id: str
    digest: str

    @property
    def split(self) -> str:
        """What the shard's name begins with: train, eval, test."""
        return self.file.split("-")[0]


def check_dataset(folder: pathlib.Path) -> tuple[list[Finding], dict[str, int]]:
    """Reads every record of a data set folder.

    Returns:
      Findings, errors first, and counts: pages, boxes, shards.

    Raises:
      UserError: the folder holds no shard.
    """
    shards = _shards(folder)
    if not shards:
        raise UserError(f"{folder}: no *.tfrecord and no *-of-NNNNN here; is this a data set folder?")
    findings: list[Finding] = []
    classes = _read_classes(folder, findings)
    counts: collections.Counter[str] = collections.Counter(shards=len(shards))
    seen, signed = _Seen(), _Signatures()
    for shard in shards:
        records = 0
        for record in read_shard(shard, findings):
            records += 1
            counts["pages"] += 1
            counts["boxes"] += len(record.page.boxes)
            pixels = _check_page(record, classes, findings)
            seen.add(record, pixels, findings)
            if classes == signatures.CLASSES:
                signed.add(record)
        if not records and not any(finding.file == shard.name for finding in findings):
            findings.append(Finding("error", shard.name, None, "empty: no record in this shard"))
    seen.check_documents(findings)
    signed.check_leaks(folder, findings)
    _check_card(folder, findings)
    if counts["pages"] and not counts["boxes"]:
        findings.append(Finding("error", folder.name, None, "no box on any page"))
    return sorted(findings, key=lambda finding: finding.severity != "error"), dict(counts)


class _Signatures:
    """Trivial cues of single signatures against their labels."""

    def __init__(self) -> None:
        self._cues: list[tuple[float, ...]] = []
        self._forged: list[bool] = []

    def add(self, record: Record) -> None:
        """Looks at a signature; what is no image has its finding already."""
        try:
            with Image.open(io.BytesIO(record.page.image)) as image:
                self._cues.append(leaks.picture_cues(np.asarray(image.convert("L"))))
        except formats.UNREADABLE:
            return
        self._forged.append(any(box.label == signatures.FORGED for box in record.page.boxes))

    def check_leaks(self, folder: pathlib.Path, findings: list[Finding]) -> None:
        """One line with the AUC of every cue."""
        if not any(self._forged) or all(self._forged):
            return
        found = {
            name: leaks.separation([row[n] for row in self._cues], self._forged)
            for n, name in enumerate(leaks.PICTURE)
        }
        severity = "warning" if max(found.values()) > leaks.LEAK else "note"
        message = (
            f"what trivial cues tell of genuine or forged (AUC, 0.5 is nothing): {leaks.sentence(found)}"
        )
        findings.append(Finding(severity, folder.name, None, message))


class _Seen:
    """What stands twice: images, documents over splits, source ids."""

    def __init__(self) -> None:
        self._images: dict[str, Record] = {}
        self._source_ids: dict[tuple[str, str], Record] = {}
        self._documents: dict[str, dict[str, Record]] = collections.defaultdict(dict)

    def add(self, record: Record, pixels: str, findings: list[Finding]) -> None:
        """Compares a record with all before it; `pixels` is a digest of its decoded image."""
        light = dataclasses.replace(record, page=dataclasses.replace(record.page, image=b""))
        first = self._images.setdefault(pixels, light)
        if first is not light:
            words = f"the same image as {first.file}, record {first.number}"
            across = first.split != record.split
            findings.append(
                Finding(
                    "error" if across else "warning",
                    record.file,
                    record.number,
                    words + (", in another split" if across else ""),
                )
            )
        self._check_source_id(light, findings)
        self._documents[record.page.document].setdefault(record.split, light)

    def _check_source_id(self, record: Record, findings: list[Finding]) -> None:
        message = ""
        first = self._source_ids.setdefault((record.split, record.source_id), record)
        if not record.source_id.isdecimal():
            message = f"image/source_id is '{record.source_id[:40]}'; tf-models needs a number"
        elif first is not record:
            message = f"has the image/source_id of {first.file}, record {first.number}; scores would mix"
        if message:
            findings.append(Finding("error", record.file, record.number, message))

    def check_documents(self, findings: list[Finding]) -> None:
        """Documents that a split divides."""
        for document, places in self._documents.items():
            if len(places) > 1:
                first = places[sorted(places)[0]]
                splits = " and ".join(sorted(places))
                findings.append(
                    Finding("error", first.file, first.number, f"document '{document}' has pages in {splits}")
                )


def read_shard(shard: pathlib.Path, findings: list[Finding]) -> Iterator[Record]:
    """Records of a shard, checksums verified; what is no page is reported, a broken frame ends it."""
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
            example = tf.train.Example.FromString(serialised)
            page = parse_example(example)
        except (DecodeError, ValueError, KeyError) as error:
            reason = (
                "not a tf.Example"
                if isinstance(error, DecodeError)
                else "box sides and labels differ in number"
            )
            findings.append(Finding("error", shard.name, number, reason))
        else:
            yield Record(
                shard.name,
                number,
                page,
                _text(example, "image/source_id"),
                _text(example, "image/key/sha256"),
            )
        number += 1


def _text(example: Any, key: str) -> str:
    values = example.features.feature[key].bytes_list.value
    return values[0].decode("utf-8", "replace") if values else ""


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
    return f"damaged: its checksum does not fit (bytes {position} to {end}); what follows was not read"


def _check_page(record: Record, classes: Mapping[int, str] | None, findings: list[Finding]) -> str:
    """Looks at one page; returns a digest of its pixels, or of its bytes where it has none."""
    page = record.page

    def report(severity: str, message: str) -> None:
        message = f"{page.name or 'unnamed page'}: {message}"
        findings.append(Finding(severity, record.file, record.number, message))

    stored = hashlib.sha256(page.image).hexdigest()
    if record.digest and record.digest != stored:
        report("warning", "image/key/sha256 is not that of the image")
    try:
        with Image.open(io.BytesIO(page.image)) as image:
            image.load()
            pixels = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()
            if image.format not in ("JPEG", "PNG"):
                report("error", f"is a {image.format}; JPEG or PNG is expected")
            if image.mode not in ("L", "RGB"):
                report("warning", f"its pixels are {image.mode}; 8-bit grey or RGB is expected")
            if image.getexif().get(0x0112, 1) != 1:
                report("warning", "is turned by its EXIF data, which training does not read")
            if (image.height, image.width) != (page.height, page.width):
                report(
                    "error", f"is {image.width}x{image.height}, the record says {page.width}x{page.height}"
                )
    except Exception as error:  # Pillow raises anything from OSError to struct.error on damaged files
        report("error", f"broken image ({type(error).__name__}: {error})")
        return stored
    for place, box in enumerate(page.boxes):
        for severity, message in _box_faults(box, classes):
            report(severity, f"box {place} {message}")
    doubled = len(page.boxes) - len(set(page.boxes))
    if doubled:
        report("warning", f"{doubled} boxes stand twice")
    return pixels


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
    elif classes != signatures.CLASSES and (box.ymax - box.ymin) * (box.xmax - box.xmin) > 0.5:
        yield "warning", "covers more than half of the page"


def _read_classes(folder: pathlib.Path, findings: list[Finding]) -> dict[int, str] | None:
    try:
        return read_label_map(folder / LABEL_MAP)
    except (UserError, UnicodeDecodeError) as error:
        findings.append(Finding("warning", LABEL_MAP, None, str(error)))
        return None


def _shards(folder: pathlib.Path) -> list[pathlib.Path]:
    found = {*folder.glob("*.tfrecord"), *folder.glob("*-of-*[0-9]")}
    return sorted(path for path in found if path.is_file())


def _check_numbering(folder: pathlib.Path, findings: list[Finding]) -> None:
    """Without a card, `-00000-of-00004` still says how many shards there should be."""
    names = {shard.name for shard in _shards(folder)}
    for name in sorted(names):
        numbers = re.search(r"-(\d+)-of-(\d+)", name)
        # A damaged or odd name may claim any count; one that no disk holds is not enumerated.
        if numbers is None or int(numbers[2]) > 100_000 or int(numbers[1]) != 0:
            continue
        for number in range(int(numbers[2])):
            digits = f"-{number:0{len(numbers[1])}d}-of-{numbers[2]}"
            sibling = name[: numbers.start()] + digits + name[numbers.end() :]
            if sibling not in names:
                findings.append(Finding("error", sibling, None, f"missing: {name} says that it exists"))


def _check_card(folder: pathlib.Path, findings: list[Finding]) -> None:
    path = folder / CARD
    if not path.exists():
        findings.append(Finding("warning", CARD, None, "missing: counts and checksums cannot be compared"))
        _check_numbering(folder, findings)
        return
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        listed = [file for summary in splits.values() for file in summary["files"]]
        expected = {file["name"]: file["sha256"] for file in listed}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        findings.append(Finding("error", CARD, None, f"cannot be read ({error})"))
        return
    for shard in _shards(folder):
        if shard.name not in expected:
            findings.append(Finding("error", shard.name, None, "not listed in the card; a run would read it"))
    for name, digest in expected.items():
        if not (folder / name).exists():
            findings.append(Finding("error", name, None, "listed in the card, but missing"))
        elif sha256(folder / name) != digest:
            findings.append(
                Finding("error", name, None, "changed since the card was written: SHA-256 differs")
            )
