"""Annotated pages in the formats that annotation tools export: COCO JSON and YOLO text folders."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageOps

from training.data.page import Box, Page
from training.data.splits import document_of
from training.errors import UserError
from training.files import read_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
# Quality of pages that have to be encoded anew.
_JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class PageFile:
    """An annotated image file that is not read yet: splits are decided on these, at no memory.

    Attributes:
      path: the image.
      name: name of the page, unique in its source.
      document: id of its document.
      boxes: fractions of the page.
      size: (width, height) in pixels that the annotation states; None where it states none.
    """

    path: pathlib.Path
    name: str
    document: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None

    def load(self, max_side: int = 0) -> Page:
        """Reads the image; see `recode`.

        Raises:
          UserError: it is missing, no image, or of another shape than the annotation states.
        """
        try:
            encoded, width, height = recode(self.path.read_bytes(), max_side)
        except UNREADABLE as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.path}: cannot read this image ({reason}).") from error
        if self.size is not None:
            stated = self.size[0] / self.size[1]
            # A page that was resized after it was annotated still fits; one that was turned does not.
            if abs(stated - width / height) > 0.02 * stated:
                raise UserError(
                    f"{self.path}: is {width}x{height} upright, but the annotation says "
                    f"{self.size[0]}x{self.size[1]}; its boxes would lie elsewhere."
                )
        return Page(self.name, self.document, encoded, height, width, self.boxes)


# What Pillow raises at bytes that are no image, or a damaged or a far too large one.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def recode(encoded: bytes, max_side: int = 0) -> tuple[bytes, int, int]:
    """An upright grey or RGB image of 8 bits; the bytes are kept where they are one already.

    Args:
      encoded: an image file of any format and mode that Pillow reads.
      max_side: images with a longer side are reduced to it; 0 keeps every size.

    Returns:
      JPEG or PNG bytes, width and height in pixels.

    Raises:
      one of `UNREADABLE`: no image, or a damaged one.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        upright = image.getexif().get(0x0112, 1) == 1
        fits = not max_side or max(image.size) <= max_side
        plain = image.mode in ("L", "RGB") and "transparency" not in image.info
        if image.format in ("JPEG", "PNG") and plain and upright and fits:
            return encoded, image.width, image.height
        turned = _flatten(ImageOps.exif_transpose(image) or image)
    if not fits:
        turned.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    turned.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue(), turned.width, turned.height


def _flatten(image: Image.Image) -> Image.Image:
    """Grey or RGB of 8 bits, on white where the image is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of deeper scans as uint8: integers hold 0..255 or 0..65535, floats 0..1 too."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("a grey level is no number")
        full = next(level for level in (1.0, 255.0, 65535.0, np.inf) if values.max() <= level)
        return np.clip(values * np.float32(255.0 / min(full, 65535.0)), 0, 255).astype(np.uint8)
    values = np.clip(values, 0, 65535).astype(np.uint32)
    return (values * 255 // 65535 if values.max() > 255 else values).astype(np.uint8)


def read_coco(
    annotations: pathlib.Path, images: pathlib.Path, document_pattern: str | None = None
) -> tuple[list[PageFile], dict[int, str]]:
    """Pages and classes of a COCO detection file; category ids become labels from 1 on, in id order.

    Args:
      annotations: the JSON file; a `bbox` is [x, y, width, height] in pixels of its image.
      images: folder that `file_name` starts from.
      document_pattern: see `splits.document_of`.

    Raises:
      UserError: not COCO, an entry that cannot be read, an unknown image or category, a crowd box.
    """
    content = read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{annotations}: no list '{key}'; this is not a COCO detection file.")
    place = ""
    try:
        place = "categories"
        # Annotation tools like to export an umbrella category 0 that no box uses.
        used = {entry["category_id"] for entry in content["annotations"]}
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        kept = [key for key in sorted(names) if key in used or key != 0]
        labels = {key: label for label, key in enumerate(kept, start=1)}
        sizes: dict[Any, tuple[int, int]] = {}
        boxes: dict[Any, list[Box]] = {}
        for number, entry in enumerate(content["images"]):
            place = f"images, entry {number}"
            sizes[entry["id"]] = _coco_size(entry)
            boxes[entry["id"]] = []
        for number, entry in enumerate(content["annotations"]):
            place = f"annotations, entry {number}"
            boxes[entry["image_id"]].append(_coco_box(entry, sizes[entry["image_id"]], labels))
        place = "images"
        entries = sorted(content["images"], key=lambda entry: str(entry["file_name"]))
        files = [
            PageFile(
                images / str(entry["file_name"]),
                str(entry["file_name"]),
                document_of(str(entry["file_name"]), document_pattern),
                tuple(boxes[entry["id"]]),
                sizes[entry["id"]],
            )
            for entry in entries
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{error} is missing or unknown" if isinstance(error, KeyError) else error
        raise UserError(f"{annotations}: {place}: {reason}.") from error
    if len(sizes) != len(files):
        raise UserError(f"{annotations}: {len(files)} images share {len(sizes)} ids; boxes would mix.")
    return _require_pages(files, annotations), {labels[key]: names[key] for key in kept}


def _coco_size(entry: Mapping[str, Any]) -> tuple[int, int]:
    width, height = int(entry["width"]), int(entry["height"])
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width}x{height} pixels")
    return width, height


def _coco_box(entry: Mapping[str, Any], size: tuple[int, int], labels: Mapping[Any, int]) -> Box:
    if entry.get("iscrowd"):
        raise ValueError("a crowd box (iscrowd 1), which stands for no single mark; take it out")
    x, y, width, height = (float(value) for value in entry["bbox"])
    label = labels[entry["category_id"]]
    return Box(y / size[1], x / size[0], (y + height) / size[1], (x + width) / size[0], label)


def read_yolo(
    folder: pathlib.Path, names: Sequence[str] | None, document_pattern: str | None = None
) -> tuple[list[PageFile], dict[int, str]]:
    """Pages and classes of a YOLO folder: `images/` and `labels/`, also under train/, valid/, val/ and test/.

    A label file holds `class x_center y_center width height` a line, relative to the page, or
    `class x1 y1 x2 y2 ...`, a polygon whose bounds are taken; class 0 becomes label 1. An image
    without a label file has no boxes.

    Args:
      folder: with the images; its own division into splits is not kept.
      names: class names by number; None reads them from data.yaml.
      document_pattern: see `splits.document_of`.

    Raises:
      UserError: no images, a line that cannot be read, a class without a name.
    """
    roots = [
        root
        for root in (folder, *(folder / name for name in ("train", "valid", "val", "test")))
        if (root / "images").is_dir()
    ]
    if not roots:
        raise UserError(
            f"{folder}: no images/ here nor under train/, valid/, val/ or test/; this is no YOLO folder."
        )
    classes = _yolo_names(folder, names)
    files = [
        PageFile(
            path,
            path.name,
            document_of(path.name, document_pattern),
            tuple(_yolo_boxes(root / "labels" / f"{path.stem}.txt", classes)),
        )
        for root in roots
        for path in sorted((root / "images").iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    return _require_pages(files, roots[0] / "images"), classes


def _require_pages(files: list[PageFile], source: pathlib.Path) -> list[PageFile]:
    if not files:
        raise UserError(f"{source}: no images.")
    return files


def _yolo_names(folder: pathlib.Path, names: Sequence[str] | None) -> dict[int, str]:
    if names is not None:
        return dict(enumerate(names, start=1))
    path = folder / "data.yaml"
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        if isinstance(listed, dict):
            return {int(number) + 1: str(listed[number]) for number in sorted(listed)}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: no data.yaml with `names`; say them with --names signature,date "
            "(scripts/finetune.sh: CONVERT=--names=signature,date)."
        ) from error
    if not isinstance(listed, list):
        raise UserError(f"{path}: `names` is '{listed}'; expected a list of class names, or use --names.")
    return {label: str(name) for label, name in enumerate(listed, start=1)}


def _yolo_boxes(path: pathlib.Path, classes: Mapping[int, str]) -> list[Box]:
    if not path.exists():
        return []
    boxes = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a text file ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            kind, sides = _yolo_line(line)
        except ValueError as error:
            raise UserError(
                f"{path}:{number}: expected `class x y width height`, found '{line[:60]}'."
            ) from error
        if kind + 1 not in classes:
            raise UserError(
                f"{path}:{number}: class {kind} has no name; {len(classes)} are known. Use --names."
            )
        boxes.append(Box(*sides, kind + 1))
    return boxes


def _yolo_line(line: str) -> tuple[int, tuple[float, float, float, float]]:
    """Class number and (ymin, xmin, ymax, xmax)."""
    kind, *values = (float(value) for value in line.split())
    if not all(math.isfinite(value) for value in (kind, *values)) or not kind.is_integer():
        raise ValueError("no number")
    if len(values) >= 6 and len(values) % 2 == 0:
        return int(kind), (min(values[1::2]), min(values[0::2]), max(values[1::2]), max(values[0::2]))
    x, y, width, height = values
    return int(kind), (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
