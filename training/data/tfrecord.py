"""Data sets on disk: sharded TFRecords in the object-detection schema that tf-models reads.

A folder holds `SPLIT-00000-of-00004.tfrecord` files, `label_map.pbtxt`, and a data card
(`dataset_card.json` and `.md`) with counts, sizes and SHA-256 of every shard. It is written beside
its final name and renamed, so it is whole or absent.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from training.data.page import Box, Page
from training.data.records import RecordReader, index_records
from training.errors import UserError
from training.files import atomic_folder, sha256

CARD = "dataset_card.json"
CARD_TEXT = "dataset_card.md"
LABEL_MAP = "label_map.pbtxt"


def write_dataset(
    output: pathlib.Path,
    splits: Mapping[str, Iterable[Page]],
    classes: Mapping[int, str],
    *,
    shards: int | Mapping[str, int] = 4,
    source: str,
    seed: int | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes pages as a data set and returns its card.

    Pages go round the shards in turn, in the order given, so the same pages give the same bytes.

    Args:
      output: the folder to make; an existing one is replaced when the new one is whole.
      splits: split name (train, eval, test) to its pages.
      classes: label, from 1 on, to class name.
      shards: files a split, for all or by split name.
      source: where the pages come from, for the card.
      seed: what decided their order or content, for the card.
      notes: sentences for the card: repairs, omissions.

    Raises:
      UserError: the folder cannot be written or holds other files, or a split has no page.
    """
    _refuse_other_files(output)
    card: dict[str, Any] = {
        "source": source,
        "seed": seed,
        "classes": {str(label): classes[label] for label in sorted(classes)},
        "notes": list(notes),
        "splits": {},
    }
    with atomic_folder(output) as folder, _write_errors(output):
        identity = 0
        for split, pages in splits.items():
            count = shards if isinstance(shards, int) else shards.get(split, 1)
            summary, identity = _write_split(folder, split, pages, classes, count, identity)
            if not summary["pages"]:
                raise UserError(f"{output}: split '{split}' has no page; nothing was written.")
            card["splits"][split] = summary
        (folder / LABEL_MAP).write_text(_label_map(classes), encoding="utf-8")
        (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / CARD_TEXT).write_text(_card_text(output.name, card), encoding="utf-8")
    return card


def read_pages(input_path: str | Sequence[str]) -> Iterator[Page]:
    """The pages of the shards that a pattern names, in file order.

    Raises:
      UserError: nothing matches, a shard is truncated, or a record is no page.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    index = index_records(input_path)
    reader = RecordReader(index)
    try:
        for number in range(len(index)):
            try:
                yield parse_example(tf.train.Example.FromString(reader.read(number)))
            except (DecodeError, ValueError) as error:
                file = pathlib.Path(index.files[index.file_numbers[number]])
                first = int((index.file_numbers < index.file_numbers[number]).sum())
                raise UserError(
                    f"{file}: record {number - first} is no page ({error}).\n"
                    f"Run `python -m training.data check {file.parent}` for a full report."
                ) from error
    finally:
        reader.close()


def parse_example(example: Any) -> Page:
    """The page in a tf.Example; fields that are absent read as empty or 0."""
    feature = example.features.feature

    def text(key: str) -> str:
        values = feature[key].bytes_list.value if key in feature else []
        return values[0].decode("utf-8", "replace") if values else ""

    def number(key: str) -> int:
        values = feature[key].int64_list.value if key in feature else []
        return int(values[0]) if values else 0

    sides = [
        feature[f"image/object/bbox/{side}"].float_list.value for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    labels = feature["image/object/class/label"].int64_list.value
    encoded = feature["image/encoded"].bytes_list.value
    name = text("image/filename") or text("image/source_id")
    return Page(
        name=name,
        document=text("image/document") or name,
        image=encoded[0] if encoded else b"",
        height=number("image/height"),
        width=number("image/width"),
        boxes=tuple(
            Box(ymin, xmin, ymax, xmax, int(label))
            for ymin, xmin, ymax, xmax, label in zip(*sides, labels, strict=True)
        ),
    )


def read_label_map(path: pathlib.Path) -> dict[int, str]:
    """Label to class name from a `label_map.pbtxt`.

    Raises:
      UserError: the file is missing or holds no item.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"label map {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"label map {path}: not a text file.") from error
    items = re.findall(r"item\s*\{(.*?)\}", text, flags=re.DOTALL)
    pairs = [
        (re.search(r"\bid:\s*(\d+)", item), re.search(r"\bname:\s*(['\"])((?:\\.|(?!\1).)*)\1", item))
        for item in items
    ]
    classes = {
        int(identity[1]): re.sub(r"\\(.)", r"\1", name[2]) for identity, name in pairs if identity and name
    }
    if not classes:
        raise UserError(f"label map {path}: no `item {{ id: 1 name: 'signature' }}` in it.")
    return classes


@contextlib.contextmanager
def _write_errors(output: pathlib.Path) -> Iterator[None]:
    """TensorFlow's writer has its own exceptions for a full disk."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f"cannot write {output}: {error.message.splitlines()[0]}") from error


def _write_split(
    folder: pathlib.Path,
    split: str,
    pages: Iterable[Page],
    classes: Mapping[int, str],
    shards: int,
    identity: int,
) -> tuple[dict[str, Any], int]:
    import tensorflow as tf

    files = [folder / f"{split}-{number:05d}-of-{shards:05d}.tfrecord" for number in range(shards)]
    writers = [tf.io.TFRecordWriter(str(file)) for file in files]
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    documents: set[str] = set()
    number = 0
    for number, page in enumerate(pages, start=1):
        identity += 1
        writers[(number - 1) % shards].write(
            _example(page, identity, classes).SerializeToString(deterministic=True)
        )
        counts.update(classes.get(box.label, f"unknown {box.label}") for box in page.boxes)
        sizes[f"{page.width}x{page.height}"] += 1
        documents.add(page.document)
    for writer in writers:
        writer.close()
    summary = {
        "pages": number,
        "documents": len(documents),
        "boxes": dict(sorted(counts.items())),
        "sizes": dict(sizes.most_common(20)),
        "files": [
            {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
        ],
    }
    return summary, identity


def _example(page: Page, identity: int, classes: Mapping[int, str]) -> Any:
    import tensorflow as tf

    def texts(*values: str | bytes) -> Any:
        raw = [value.encode() if isinstance(value, str) else value for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=raw))

    def integers(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(values: Iterable[float]) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=list(values)))

    boxes = page.boxes
    area = page.height * page.width
    feature = {
        "image/encoded": texts(page.image),
        "image/format": texts(page.format),
        "image/filename": texts(page.name),
        "image/document": texts(page.document),
        # tf-models turns it into a number for COCO's evaluation.
        "image/source_id": texts(str(identity)),
        "image/key/sha256": texts(hashlib.sha256(page.image).hexdigest()),
        "image/height": integers(page.height),
        "image/width": integers(page.width),
        "image/object/class/label": integers(*(box.label for box in boxes)),
        "image/object/class/text": texts(*(classes.get(box.label, "") for box in boxes)),
        "image/object/is_crowd": integers(*(0 for _ in boxes)),
        "image/object/area": floats((box.ymax - box.ymin) * (box.xmax - box.xmin) * area for box in boxes),
    }
    for side in ("ymin", "xmin", "ymax", "xmax"):
        feature[f"image/object/bbox/{side}"] = floats(getattr(box, side) for box in boxes)
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _label_map(classes: Mapping[int, str]) -> str:
    names = {label: re.sub(r"([\\'])", r"\\\1", name) for label, name in classes.items()}
    return "".join(f"item {{\n  id: {label}\n  name: '{names[label]}'\n}}\n" for label in sorted(names))


def _refuse_other_files(output: pathlib.Path) -> None:
    """A data set replaces its whole folder, so that folder may hold nothing but a data set."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output} is a file; name a folder for the data set.")
    own = (LABEL_MAP, CARD, CARD_TEXT)
    others = sorted(
        entry.name
        for entry in output.iterdir()
        if entry.is_dir() or not (entry.name in own or entry.suffix == ".tfrecord")
    )
    if others:
        raise UserError(
            f"{output} holds other files ({', '.join(others[:3])}), which a data set would replace; "
            "name a new folder."
        )


def _card_text(name: str, card: Mapping[str, Any]) -> str:
    lines = [f"# {name}", "", f"Source: {card['source']}", ""]
    if card["seed"] is not None:
        lines += [f"Seed: {card['seed']}", ""]
    names = [card["classes"][label] for label in sorted(card["classes"], key=int)]
    lines += [
        "| split | pages | documents | " + " | ".join(names) + " | MB |",
        "|---" * (len(names) + 4) + "|",
    ]
    for split, summary in card["splits"].items():
        megabytes = sum(file["bytes"] for file in summary["files"]) / 1e6
        cells = [str(summary["boxes"].get(class_name, 0)) for class_name in names]
        lines.append(
            f"| {split} | {summary['pages']} | {summary['documents']} | "
            f"{' | '.join(cells)} | {megabytes:.1f} |"
        )
    lines += ["", *(f"- {note}" for note in card["notes"])]
    return "\n".join(lines).rstrip() + "\n"
