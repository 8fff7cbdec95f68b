"""SignVerOD as it is published: CSV files of boxes and page images.

Measured on the published annotation: 2,765 pages share 2,133 ids, so a join on `image_id` mixes the
boxes of two documents; and 320 pages stand in both CSV files. Corrected columns (`id_new`,
`image_id_new`) are used where the files have them. Where they do not, the order of the rows tells the
pages apart: two annotations, each numbered from 1, were appended to each other in every file.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib

from training.data import formats
from training.data.page import Box
from training.data.splits import document_of
from training.errors import UserError

# Labels of the published set, also of its ready TFRecords.
CLASSES = {1: "signature", 2: "initials", 3: "redaction", 4: "date"}

_SPLITS = {"train": "train.csv", "eval": "test.csv"}
_COLUMNS = {
    "categories.csv": ("id", "name"),
    "image_ids.csv": ("id", "file_name", "width", "height"),
    "train.csv": ("image_id", "category_id", "bbox"),
    "test.csv": ("image_id", "category_id", "bbox"),
}
# Id of a page: the number of the annotation run and the number in it.
_Id = tuple[int, str]


@dataclasses.dataclass
class Annotation:
    """What the CSV files say.

    Attributes:
      classes: label to name, from categories.csv.
      splits: split name to pages in file order, with doubled boxes removed; no page is in two.
        A page's `path` is its bare file name until `locate` has found it.
      notes: what was found and repaired, one sentence each.
    """

    classes: dict[int, str]
    splits: dict[str, list[formats.PageFile]]
    notes: list[str]


def read_annotation(folder: pathlib.Path, document_pattern: str | None = None) -> Annotation:
    """Reads and repairs SignVerOD's CSV files.

    Raises:
      UserError: a file or column is missing, a value cannot be read, or ids collide without repair.
    """
    rows = {name: _rows(folder / name) for name in _COLUMNS}
    try:
        classes = {int(row["id"]): row["name"] for row in rows["categories.csv"]}
    except ValueError as error:
        raise UserError(f"{folder / 'categories.csv'}: a class id is no number ({error}).") from error
    notes: list[str] = []
    ids = _ids(folder, rows, notes)
    pages = dict(zip(ids["image_ids.csv"], rows["image_ids.csv"], strict=True))
    boxes: dict[_Id, dict[Box, None]] = {identity: {} for identity in pages}
    sides: dict[_Id, str] = {}
    shared: set[_Id] = set()
    for split, name in _SPLITS.items():
        for number, (identity, row) in enumerate(zip(ids[name], rows[name], strict=True), start=2):
            if identity not in pages:
                raise UserError(f"{folder / name}:{number}: page id {identity[1]} is not in image_ids.csv.")
            if sides.setdefault(identity, split) != split:
                shared.add(identity)
            boxes[identity][_box(row, folder / name, number, classes)] = None
    if shared:
        notes.append(
            f"{len(shared)} pages stand in both train.csv and test.csv; they were kept in train alone."
        )
    notes.append(
        f"{len(pages):,} pages and {sum(map(len, boxes.values())):,} distinct boxes are annotated here; its "
        "author counts 2,576 and 7,103."
    )
    # Pages without a box stand in neither file; they train the background.
    order = [*sides, *(identity for identity in pages if identity not in sides)]
    splits: dict[str, list[formats.PageFile]] = {split: [] for split in _SPLITS}
    for identity in order:
        file = _page_file(pages[identity], tuple(boxes[identity]), document_pattern)
        splits[sides.get(identity, "train")].append(file)
    return Annotation(classes, splits, notes)


def locate(folder: pathlib.Path, annotation: Annotation, partial: bool) -> dict[str, list[formats.PageFile]]:
    """Finds the page images by name anywhere below `folder`.

    Args:
      folder: with the images.
      annotation: its notes say afterwards how many pages were absent.
      partial: leave absent pages out instead of failing.

    Raises:
      UserError: pages are absent and `partial` is not set, or none is present.
    """
    places = {
        path.name: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in formats.IMAGE_SUFFIXES
    }
    everything = [page for pages in annotation.splits.values() for page in pages]
    absent = [page.name for page in everything if page.name not in places]
    if len(absent) == len(everything):
        raise UserError(f"{folder}: none of the {len(everything)} annotated pages is here.")
    if absent:
        listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        if not partial:
            raise UserError(
                f"{folder}: {len(absent)} of {len(everything)} annotated pages are absent: {listed}.\n"
                "Complete the folder, or convert what is here with --partial."
            )
        annotation.notes.append(f"{len(absent)} annotated pages were absent and left out: {listed}.")
    return {
        split: [dataclasses.replace(page, path=places[page.name]) for page in pages if page.name in places]
        for split, pages in annotation.splits.items()
    }


def _ids(
    folder: pathlib.Path, rows: dict[str, list[dict[str, str]]], notes: list[str]
) -> dict[str, list[_Id]]:
    """Ids that tell all pages apart, one for each row of image_ids.csv, train.csv and test.csv."""
    originals = collections.Counter(row["id"] for row in rows["image_ids.csv"])
    doubled = sum(count > 1 for count in originals.values())
    corrected = all(
        row.get("id_new" if name == "image_ids.csv" else "image_id_new")
        for name in ("image_ids.csv", *_SPLITS.values())
        for row in rows[name]
    )
    suffix = "_new" if corrected else ""
    columns = {"image_ids.csv": f"id{suffix}", **dict.fromkeys(_SPLITS.values(), f"image_id{suffix}")}
    plain = {name: [row[column] for row in rows[name]] for name, column in columns.items()}
    if corrected or not doubled:
        ids = {name: [(0, identity) for identity in found] for name, found in plain.items()}
        words = "the corrected ids were used"
    else:
        ids = {name: _numbered_runs(found) for name, found in plain.items()}
        words = "the order of the rows told them apart"
        runs = {name: found[-1][0] if found else 0 for name, found in ids.items()}
        if len(set(runs.values())) > 1:
            counted = ", ".join(f"{name} {number + 1}" for name, number in runs.items())
            raise UserError(
                f"{folder}: {len(plain['image_ids.csv'])} pages share {len(originals)} ids, and the files "
                f"disagree on how often the numbering starts anew ({counted}).\n"
                "Take a copy with the columns id_new and image_id_new."
            )
    if len(set(ids["image_ids.csv"])) != len(ids["image_ids.csv"]):
        raise UserError(
            f"{folder / 'image_ids.csv'}: pages share ids, so their boxes would mix.\n"
            "Take a copy with the columns id_new and image_id_new."
        )
    if doubled:
        notes.append(f"{doubled} of the original page ids stand for more than one page; {words}.")
    return ids


def _numbered_runs(identities: list[str]) -> list[_Id]:
    """Each id with the number of times that the numbering has started anew before it."""
    run, last, found = 0, -1, []
    for identity in identities:
        number = int(identity) if identity.isdecimal() else last
        run += number < last
        last = number
        found.append((run, identity))
    return found


def _page_file(row: dict[str, str], boxes: tuple[Box, ...], document_pattern: str | None) -> formats.PageFile:
    name = row["file_name"]
    width, height = row["width"], row["height"]
    size = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    if size is not None and 0 in size:
        size = None
    return formats.PageFile(pathlib.Path(name), name, document_of(name, document_pattern), boxes, size)


def _box(row: dict[str, str], path: pathlib.Path, number: int, classes: dict[int, str]) -> Box:
    try:
        x, y, width, height = (float(value) for value in json.loads(row["bbox"]))
        label = int(row["category_id"])
    except (ValueError, TypeError, RecursionError) as error:
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
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, restval=""))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a SignVerOD folder holds it.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file ({error}).") from error
    missing = [column for column in _COLUMNS[path.name] if rows and column not in rows[0]]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(str(key) for key in rows[0])}."
        )
    return rows
