"""SignVerOD as it is published: CSV files of boxes, page images, ready TFRecords.

Measured on the published annotation: 2,765 pages share 2,133 ids, so a join on `image_id` mixes the
boxes of two documents; and 320 pages stand in both CSV files. Corrected columns (`id_new`,
`image_id_new`) are used where the files have them; where they do not, colliding ids are refused.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from training.data import formats
from training.data.page import Box, Page
from training.data.splits import document_of
from training.errors import UserError

_SPLITS = {"train": "train.csv", "eval": "test.csv"}


@dataclasses.dataclass
class Annotation:
    """What the CSV files say.

    Attributes:
      classes: label to name, from categories.csv.
      files: page id to image file name.
      boxes: page id to boxes, doubles removed.
      splits: split name to page ids, in file order; no page is in two.
      notes: what was found and repaired, one sentence each.
    """

    classes: dict[int, str]
    files: dict[str, str]
    boxes: dict[str, list[Box]]
    splits: dict[str, list[str]]
    notes: list[str]


def read_annotation(folder: pathlib.Path) -> Annotation:
    """Reads and repairs SignVerOD's CSV files.

    Raises:
      UserError: a file or column is missing, a value cannot be read, or ids collide without repair.
    """
    rows = {
        name: _rows(folder / name) for name in ("categories.csv", "image_ids.csv", "train.csv", "test.csv")
    }
    classes = {int(row["id"]): row["name"] for row in rows["categories.csv"]}
    notes: list[str] = []
    corrected = all("id_new" in row for row in rows["image_ids.csv"])
    page_key, box_key = ("id_new", "image_id_new") if corrected else ("id", "image_id")
    ids = [row[page_key] for row in rows["image_ids.csv"]]
    doubled = sum(
        count > 1 for count in collections.Counter(row["id"] for row in rows["image_ids.csv"]).values()
    )
    if doubled:
        notes.append(
            f"{doubled} of the original page ids stand for more than one page; the corrected ids were used."
        )
    if len(set(ids)) != len(ids):
        raise UserError(
            f"{folder / 'image_ids.csv'}: {len(ids)} pages share {len(set(ids))} ids; boxes would mix.\n"
            "Take a copy with the columns id_new and image_id_new, or delete the pages of one source."
        )
    files = {row[page_key]: row["file_name"] for row in rows["image_ids.csv"]}
    boxes: dict[str, list[Box]] = {identity: [] for identity in files}
    splits: dict[str, list[str]] = {name: [] for name in _SPLITS}
    seen: dict[str, str] = {}
    shared: set[str] = set()
    for split, name in _SPLITS.items():
        for number, row in enumerate(rows[name], start=2):
            identity = row[box_key]
            if identity not in files:
                raise UserError(f"{folder / name}:{number}: page id {identity} is not in image_ids.csv.")
            if seen.setdefault(identity, split) != split:
                shared.add(identity)
            elif not boxes[identity] or identity not in splits[split]:
                splits[split].append(identity)
            box = _box(row, folder / name, number, classes)
            if box not in boxes[identity]:
                boxes[identity].append(box)
    if shared:
        notes.append(
            f"{len(shared)} pages stand in both train.csv and test.csv; they were kept in train alone."
        )
    _separate_documents(splits, files, notes)
    unboxed = [identity for identity, found in boxes.items() if not found]
    splits["train"] += unboxed
    return Annotation(classes, files, boxes, splits, notes)


def read_pages(
    folder: pathlib.Path, annotation: Annotation, options: formats.Options, partial: bool
) -> tuple[dict[str, Iterator[Page]], list[str]]:
    """Pages of each split, and the file names that are absent.

    Args:
      partial: leave absent pages out instead of failing.

    Raises:
      UserError: pages are absent and `partial` is not set, or none is present.
    """
    places = {
        path.name: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in formats.IMAGE_SUFFIXES
    }
    absent = [
        annotation.files[identity]
        for ids in annotation.splits.values()
        for identity in ids
        if annotation.files[identity] not in places
    ]
    total = sum(len(ids) for ids in annotation.splits.values())
    if len(absent) == total:
        raise UserError(f"{folder}: none of the {total} annotated pages is here.")
    if absent and not partial:
        raise UserError(
            f"{folder}: {len(absent)} of {total} annotated pages are absent, the first {absent[0]}.\n"
            "Complete the folder, or convert what is here with --partial."
        )
    pages: dict[str, Iterator[Page]] = {
        split: (
            formats.load_page(places[annotation.files[identity]], annotation.boxes[identity], options)
            for identity in ids
            if annotation.files[identity] in places
        )
        for split, ids in annotation.splits.items()
    }
    return pages, absent


def _separate_documents(splits: dict[str, list[str]], files: dict[str, str], notes: list[str]) -> None:
    """Moves evaluation pages of documents that also have training pages to the training side."""
    training = {document_of(files[identity]) for identity in splits["train"]}
    mixed = [identity for identity in splits["eval"] if document_of(files[identity]) in training]
    if mixed:
        splits["train"] += mixed
        moved = set(mixed)
        splits["eval"] = [identity for identity in splits["eval"] if identity not in moved]
        notes.append(
            f"{len(mixed)} test pages belong to documents with training pages; they were moved to train."
        )


def _box(row: dict[str, str], path: pathlib.Path, number: int, classes: dict[int, str]) -> Box:
    try:
        x, y, width, height = (float(value) for value in json.loads(row["bbox"]))
        label = int(row["category_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}:{number}: cannot read bbox and category_id ({error}).") from error
    if label not in classes:
        raise UserError(f"{path}:{number}: category {label} is not in categories.csv.")
    if max(x, y, width, height) > 2:
        raise UserError(
            f"{path}:{number}: bbox {row['bbox']} is in pixels; fractions of the page are expected."
        )
    return Box(y, x, y + height, x + width, label)


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a SignVerOD folder holds it.") from error
