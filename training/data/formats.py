"""Annotated pages in the formats that annotation tools export: COCO JSON and YOLO text folders."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from PIL import Image, ImageOps

from training.data.page import Box, Page
from training.data.splits import document_of
from training.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
# Quality of pages that have to be encoded anew.
_JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class Options:
    """How pages are taken over.

    Attributes:
      max_side: pages with a longer side are reduced to it; 0 keeps every size.
      document_pattern: see `splits.document_of`.
    """

    max_side: int = 0
    document_pattern: str | None = None


def load_page(path: pathlib.Path, boxes: Sequence[Box], options: Options, name: str | None = None) -> Page:
    """Reads an image file as a page; bytes are kept where they are an upright 8-bit JPEG or PNG.

    Raises:
      UserError: the file is missing or no image.
    """
    name = name or path.name
    try:
        encoded = path.read_bytes()
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            encoded, width, height = _encode(image, encoded, options.max_side)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot read this image ({reason}).") from error
    return Page(name, document_of(name, options.document_pattern), encoded, height, width, tuple(boxes))


def _encode(image: Image.Image, encoded: bytes, max_side: int) -> tuple[bytes, int, int]:
    upright = image.getexif().get(0x0112, 1) == 1
    fits = not max_side or max(image.size) <= max_side
    if image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and upright and fits:
        return encoded, image.width, image.height
    turned = ImageOps.exif_transpose(image) or image
    if turned.mode in ("I", "F", "I;16", "I;16B"):
        turned = turned.convert("I").point(lambda value: value / 256).convert("L")
    if "A" in turned.getbands() or "transparency" in turned.info:
        alpha = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha)
    turned = turned.convert("L" if turned.mode in ("1", "L") else "RGB")
    if not fits:
        turned.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    turned.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue(), turned.width, turned.height


def read_coco(
    annotations: pathlib.Path, images: pathlib.Path, options: Options
) -> tuple[Iterator[Page], dict[int, str]]:
    """Pages and classes of a COCO detection file; category ids become labels from 1 on, in id order.

    Raises:
      UserError: not COCO, an annotation of an unknown image or category, a missing image.
    """
    content = _load_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{annotations}: no list '{key}'; this is not a COCO detection file.")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    # Annotation tools like to export an umbrella category 0 that no box uses.
    used = {entry["category_id"] for entry in content["annotations"]}
    categories = [category for category in categories if category["id"] in used or category["id"] != 0]
    labels = {category["id"]: label for label, category in enumerate(categories, start=1)}
    entries = {entry["id"]: entry for entry in content["images"]}
    boxes: dict[Any, list[Box]] = {identity: [] for identity in entries}
    for number, entry in enumerate(content["annotations"]):
        if entry["image_id"] not in entries or entry["category_id"] not in labels:
            raise UserError(f"{annotations}: annotation {number} names an unknown image or category.")
        page = entries[entry["image_id"]]
        x, y, width, height = entry["bbox"]
        box = Box(
            y / page["height"],
            x / page["width"],
            (y + height) / page["height"],
            (x + width) / page["width"],
            labels[entry["category_id"]],
        )
        boxes[entry["image_id"]].append(box)
    ordered = sorted(entries, key=lambda identity: entries[identity]["file_name"])
    pages = (load_page(images / entries[key]["file_name"], boxes[key], options) for key in ordered)
    return pages, {label: categories[label - 1]["name"] for label in labels.values()}


def read_yolo(
    folder: pathlib.Path, names: Sequence[str] | None, options: Options
) -> tuple[Iterator[Page], dict[int, str]]:
    """Pages and classes of a YOLO folder: `images/` and `labels/`, also under train/, valid/ and test/.

    A label file holds `class x_center y_center width height` a line, relative to the page; class 0
    becomes label 1. An image without a label file has no boxes.

    Raises:
      UserError: no images, a line that cannot be read, a class without a name.
    """
    roots = [
        root
        for root in (folder, *(folder / name for name in ("train", "valid", "test")))
        if (root / "images").is_dir()
    ]
    if not roots:
        raise UserError(
            f"{folder}: no images/ here nor under train/, valid/ or test/; this is no YOLO folder."
        )
    classes = _yolo_names(folder, names)
    files = [
        (path, root / "labels" / f"{path.stem}.txt")
        for root in roots
        for path in sorted((root / "images").iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise UserError(f"{roots[0] / 'images'}: no images.")
    pages = (load_page(image, _yolo_boxes(label, classes), options) for image, label in files)
    return pages, classes


def _yolo_names(folder: pathlib.Path, names: Sequence[str] | None) -> dict[int, str]:
    if names is None:
        try:
            content = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
            listed = content["names"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder}: no data.yaml with `names`; say them with --names signature,date."
            ) from error
        names = [listed[key] for key in sorted(listed)] if isinstance(listed, dict) else list(listed)
    return {label: str(name) for label, name in enumerate(names, start=1)}


def _yolo_boxes(path: pathlib.Path, classes: Mapping[int, str]) -> list[Box]:
    if not path.exists():
        return []
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            kind, x, y, width, height = (float(value) for value in line.split())
        except ValueError as error:
            raise UserError(
                f"{path}:{number}: expected `class x y width height`, found '{line[:60]}'."
            ) from error
        label = int(kind) + 1
        if label not in classes:
            raise UserError(
                f"{path}:{number}: class {int(kind)} has no name; {len(classes)} are known. Use --names."
            )
        boxes.append(Box(y - height / 2, x - width / 2, y + height / 2, x + width / 2, label))
    return boxes


def _load_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with images, annotations and categories.")
    return content
