"""From a source format to splits: what `convert` does before it writes.

Every reader yields items that know their document and load their page later, so a data set of any
size is divided without holding its images in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from training.data import formats, leaks, records, signatures, signverod, splits, tfrecord
from training.data.page import Page
from training.errors import UserError
from training.files import sha256

# How the shards of a split begin, in the data sets that are around.
_SHARD_PREFIXES = {"train": ("train",), "eval": ("eval", "val"), "test": ("test",)}


class Item(Protocol):
    """A page that is not read yet."""

    @property
    def document(self) -> str:
        """Id of the document that it belongs to."""

    def load(self, max_side: int) -> Page:
        """Reads the page, reduced to `max_side` pixels where that is not 0."""


class _OnDisk(Protocol):
    """An item that is a file of its own."""

    @property
    def document(self) -> str:
        """Id of the document that it belongs to."""

    @property
    def path(self) -> pathlib.Path:
        """Its file."""


@dataclasses.dataclass
class Source:
    """What a reader found.

    Attributes:
      splits: the source's own splits; a single one where it has none, or where they are not kept.
      classes: label to name.
      same: documents with an equal image, see `splits.join_equal`.
      notes: what was repaired or left out, one sentence each.
    """

    splits: Mapping[str, list[Item]]
    classes: dict[int, str]
    same: dict[str, str]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Renumbered:
    """An item whose boxes get other labels."""

    item: Item
    labels: dict[int, int]

    @property
    def document(self) -> str:
        return self.item.document

    def load(self, max_side: int) -> Page:
        page = self.item.load(max_side)
        boxes = (dataclasses.replace(box, label=self.labels[box.label]) for box in page.boxes)
        return dataclasses.replace(page, boxes=tuple(boxes))


def in_order(source: Source, names: Sequence[str]) -> Source:
    """The same pages with classes numbered as asked for: found by name, whatever the source's numbers.

    Raises:
      UserError: a class of the source has none of these names.
    """
    places = {name.lower(): label for label, name in enumerate(names, start=1)}
    unknown = [name for name in source.classes.values() if name.lower() not in places]
    if unknown:
        raise UserError(
            f"--classes {','.join(names)}: the source has {', '.join(unknown)} too; --names renames them."
        )
    labels = {label: places[name.lower()] for label, name in source.classes.items()}
    items: dict[str, list[Item]] = {
        split: [_Renumbered(item, labels) for item in found] for split, found in source.splits.items()
    }
    return dataclasses.replace(source, splits=items, classes=dict(enumerate(names, start=1)))


def divide(source: Source, evaluation_share: float, seed: int) -> dict[str, list[Item]]:
    """The source's splits with every document on one side, or new ones where it has no usable ones.

    Adds what was done to the source's notes.

    Raises:
      UserError: a side would be empty.
    """
    if source.same:
        documents = len(set(source.same.values()))
        source.notes.append(
            f"{len(source.same)} documents hold images of each other; they count as {documents}."
        )
    found, moved = splits.separate(source.splits, source.same)
    if len(found) > 1 and not all(found.values()):
        source.notes.append("The source's own splits leave a side empty here; documents were split anew.")
    elif len(found) > 1:
        if moved:
            source.notes.append(
                f"{moved} held-out pages belong to documents with training pages; they were moved there."
            )
        return found
    everything = [item for items in source.splits.values() for item in items]
    if len({item.document for item in everything}) == 1 < len(everything):
        raise UserError(
            f"all {len(everything)} pages count as one document, '{everything[0].document}', by their names, "
            "and a document is never divided. Say which belong together with --document_pattern; with '(.*)' "
            "every page is a document of its own (scripts/finetune.sh: CONVERT='--document_pattern=(.*)')."
        )
    found = splits.by_document(everything, evaluation_share, seed, source.same)
    if not all(found.values()):
        raise UserError("a split is empty: take another --eval_fraction or --seed, or add documents.")
    return found


def _coco(arguments: argparse.Namespace) -> Source:
    files, classes = formats.read_coco(arguments.annotations, arguments.images, arguments.document_pattern)
    if arguments.names:
        if len(arguments.names) != len(classes):
            raise UserError(f"--names: {len(arguments.names)} for {len(classes)} categories: {classes}.")
        classes = dict(enumerate(arguments.names, start=1))
    return Source({"train": list(files)}, classes, _equal_files(files), [])


def _yolo(arguments: argparse.Namespace) -> Source:
    files, classes = formats.read_yolo(arguments.input, arguments.names, arguments.document_pattern)
    return Source({"train": list(files)}, classes, _equal_files(files), [])


def _signverod(arguments: argparse.Namespace) -> Source:
    annotation = signverod.read_annotation(arguments.input, arguments.document_pattern)
    found = signverod.locate(arguments.input, annotation, arguments.partial)
    same = _equal_files(file for files in found.values() for file in files)
    items: dict[str, list[Item]] = {split: list(files) for split, files in found.items()}
    return Source(items, annotation.classes, same, annotation.notes)


def _signatures(arguments: argparse.Namespace) -> Source:
    files = signatures.read_signatures(arguments.input, arguments.document_pattern)
    notes = [
        "A document is a writer; a box is the extent of the ink; paper was whitened above Otsu's threshold."
    ]
    same = _equal_files(files)
    forged = [file.label == signatures.FORGED for file in files]
    if any(forged):
        found = leaks.of_files([file.path for file in files], forged)
        notes.append(
            "As published, before whitening, trivial cues tell genuine from forged with these AUCs (0.5 is "
            f"nothing): {leaks.sentence(found)}."
        )
    folders = sum(file.document == file.path.parent.name for file in files)
    if not arguments.document_pattern and not signatures.is_cedar(files):
        told = "folders" if folders else "file names without page numbers"
        notes.append(
            f"Writers are told by {told}, e.g. {files[0].document}; --document_pattern tells otherwise."
        )
    wanted = arguments.eval_writers
    if wanted is None and signatures.is_cedar(files):
        wanted = signatures.CEDAR_HELD_OUT
    if wanted is None:
        return Source({"train": list(files)}, signatures.CLASSES, same, notes)
    held, absent = signatures.held_out(files, wanted)
    if not held["eval"]:
        if arguments.eval_writers:
            raise UserError(f"--eval_writers: none of {', '.join(absent)} is in {arguments.input}.")
        notes.append(
            "None of the signers that SignVer holds out is here; writers were split by --eval_fraction."
        )
        return Source({"train": list(files)}, signatures.CLASSES, same, notes)
    if absent:
        notes.append(f"Held-out writers that are not in the set: {', '.join(absent)}.")
    items: dict[str, list[Item]] = {split: list(part) for split, part in held.items()}
    return Source(items, signatures.CLASSES, same, notes)


def _equal_files(files: Iterable[_OnDisk]) -> dict[str, str]:
    """Documents with byte-equal images; only files of one size are read."""
    sizes: dict[int, list[_OnDisk]] = {}
    for file in files:
        try:
            sizes.setdefault(file.path.stat().st_size, []).append(file)
        except OSError as error:
            raise UserError(f"{file.path}: {error.strerror}.") from error
    suspects = (file for group in sizes.values() if len(group) > 1 for file in group)
    return splits.join_equal((file.document, sha256(file.path)) for file in suspects)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A page in a shard of the source."""

    reader: records.RecordReader
    number: int
    place: str
    document: str

    def load(self, max_side: int) -> Page:
        import tensorflow as tf

        page = tfrecord.parse_example(tf.train.Example.FromString(self.reader.read(self.number)))
        try:
            image, width, height = formats.recode(page.image, max_side)
        except formats.UNREADABLE as error:
            raise UserError(f"{self.place}: cannot read its image ({error}).") from error
        return dataclasses.replace(page, document=self.document, image=image, width=width, height=height)


@dataclasses.dataclass
class _Images:
    """Images seen so far: (document, digest) of each, the split of each digest, pages left out."""

    documents: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    splits: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: int = 0


def _tfrecords(arguments: argparse.Namespace) -> Source:
    folder: pathlib.Path = arguments.input
    label_map = folder / tfrecord.LABEL_MAP
    if arguments.names:
        classes = dict(enumerate(arguments.names, start=1))
    elif label_map.exists():
        classes = tfrecord.read_label_map(label_map)
    else:
        known = ",".join(signverod.CLASSES.values())
        raise UserError(f"{folder}: no {tfrecord.LABEL_MAP}; say --names, for SignVerOD {known}.")
    found: dict[str, list[Item]] = {}
    images = _Images()
    for split, prefixes in _SHARD_PREFIXES.items():
        files = sorted(
            file
            for prefix in prefixes
            for file in glob.glob(f"{glob.escape(str(folder))}/{prefix}*")
            if pathlib.Path(file).is_file()
        )
        if files:
            found[split] = _stored(files, arguments.document_pattern, split, images)
    if not found:
        raise UserError(f"{folder}: no file begins with train, eval, val or test; name the shards' folder.")
    notes = []
    if images.left_out:
        notes.append(f"{images.left_out} pages stand in several splits; they were kept in the first alone.")
    return Source(found, classes, splits.join_equal(images.documents), notes)


def _stored(files: list[str], pattern: str | None, split: str, images: _Images) -> list[Item]:
    """Items of a split's records, each looked at once, without images of earlier splits."""
    from training.data import check

    findings: list[check.Finding] = []
    index = records.index_records([glob.escape(file) for file in files])
    reader = records.RecordReader(index)
    items: list[Item] = []
    for number, file in enumerate(files):
        first = int(np.searchsorted(index.file_numbers, number))
        for record in check.read_shard(pathlib.Path(file), findings):
            page = record.page
            # Only our own records name a document; elsewhere it follows from the file's name.
            named = page.document != page.name and not pattern
            document = page.document if named else splits.document_of(page.name, pattern)
            digest = hashlib.sha256(page.image).hexdigest()
            if images.splits.setdefault(digest, split) != split:
                images.left_out += 1
                continue
            place = f"{file}, record {record.number}"
            items.append(_Stored(reader, first + record.number, place, document))
            images.documents.append((document, digest))
        if findings:
            raise UserError(f"{file}, record {findings[0].record}: {findings[0].message}.")
    return items


READERS: dict[str, Callable[[argparse.Namespace], Source]] = {
    "coco": _coco,
    "yolo": _yolo,
    "signverod": _signverod,
    "signatures": _signatures,
    "tfrecord": _tfrecords,
}
