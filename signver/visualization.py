"""Crops out of a page and boxes drawn on it, under the names that SignVer gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from signver.errors import SignVerError
from signver.images import Picture, as_rgb
from signver.results import Mark

# SignVer's own default.
THRESHOLD = 0.22


def get_image_crops(
    image: Picture,
    boxes: np.ndarray,
    scores: np.ndarray | None = None,
    threshold: float = THRESHOLD,
    margin: float = 0.0,
) -> list[np.ndarray]:
    """The parts of a page that boxes mark, in the order of the boxes.

    Args:
      image: the page.
      boxes: [n, 4], fractions of the page, [ymin, xmin, ymax, xmax].
      scores: [n]; boxes under `threshold` are left out. None keeps all.
      threshold: see `scores`.
      margin: added on each side, as a fraction of the box.

    Returns:
      uint8 [h, w, 3] each, one pixel at least.

    Raises:
      SignVerError: the page cannot be read, or boxes and scores do not fit each other.
    """
    page = as_rgb(image)
    return [
        np.asarray(page.crop(_pixels(box, page.size, margin)))
        for box, _, _ in _kept(boxes, scores, threshold)
    ]


def visualize_boxes(
    image: Picture,
    boxes: np.ndarray,
    scores: np.ndarray | None = None,
    threshold: float = THRESHOLD,
    color: str = "green",
    classes: np.ndarray | None = None,
    class_names: Mapping[int, str] | None = None,
) -> np.ndarray:
    """The page with boxes, and with scores and class names where they are given: uint8 [h, w, 3].

    Args:
      image, boxes, scores, threshold: as in `get_image_crops`.
      color: a colour name or #rrggbb.
      classes: [n], labels.
      class_names: label to name.

    Raises:
      SignVerError: as in `get_image_crops`, or an unknown colour.
    """
    page = as_rgb(image).copy()
    draw = ImageDraw.Draw(page)
    width = _line_width(page)
    font = fitting_font(6 * width)
    kept = list(_kept(boxes, scores, threshold))
    try:
        for box, score, number in kept:
            left, top, right, bottom = _pixels(box, page.size, 0.0)
            draw.rectangle([left, top, right - 1, bottom - 1], outline=color, width=width)
            words = (
                []
                if classes is None
                else [(class_names or {}).get(int(classes[number]), f"{classes[number]}")]
            )
            words += [] if score is None else [f"{score:.2f}"]
            if words:
                draw.text((left, max(0, top - 8 * width)), " ".join(words), fill=color, font=font)
    except ValueError as error:
        raise SignVerError(f"color '{color}': {error}.") from error
    return np.asarray(page)


def draw_marks(image: Picture, marks: Sequence[Mark], colors: Mapping[str, str], other: str) -> Image.Image:
    """The page with marks in the colour of their class, named with score and writer.

    Args:
      image: the page.
      marks: what was found on it.
      colors: class to colour.
      other: colour of classes that `colors` lacks.
    """
    page = as_rgb(image).copy()
    draw, width = ImageDraw.Draw(page), _line_width(page)
    font = fitting_font(6 * width)
    for mark in marks:
        left, top, right, bottom = _pixels(mark.box, page.size, 0.0)
        color = colors.get(mark.kind, other)
        draw.rectangle([left, top, right - 1, bottom - 1], outline=color, width=width)
        writer = f" {mark.writer.identity}" if mark.writer and mark.writer.identity else ""
        words = f"{mark.kind} {mark.score:.2f}{writer}"
        draw.text((left, max(0, top - 8 * width)), words, fill=color, font=font)
    return page


def fitting_font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, in pixels of height where it can."""
    try:
        return ImageFont.load_default(size=size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _line_width(page: Image.Image) -> int:
    return max(2, round(max(page.size) / 500))


def _kept(
    boxes: np.ndarray, scores: np.ndarray | None, threshold: float
) -> list[tuple[Sequence[float], float | None, int]]:
    """(box, score, number) of what is not under the threshold."""
    found = np.asarray(boxes, np.float64).reshape(-1, 4) if np.size(boxes) else np.empty((0, 4))
    if scores is not None and len(scores) != len(found):
        raise SignVerError(f"{len(found)} boxes and {len(scores)} scores: each box has one.")
    if not np.isfinite(found).all():
        raise SignVerError("boxes: a coordinate is no number.")
    pairs = [
        (box, None if scores is None else float(scores[number]), number) for number, box in enumerate(found)
    ]
    return [
        (box.tolist(), score, number) for box, score, number in pairs if score is None or score >= threshold
    ]


def _pixels(box: Sequence[float], size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of a page of (width, height); one pixel at least."""
    ymin, xmin, ymax, xmax = box
    beside, above = margin * (xmax - xmin), margin * (ymax - ymin)
    left = min(max(int((xmin - beside) * size[0]), 0), size[0] - 1)
    top = min(max(int((ymin - above) * size[1]), 0), size[1] - 1)
    right = min(max(round((xmax + beside) * size[0]), left + 1), size[0])
    bottom = min(max(round((ymax + above) * size[1]), top + 1), size[1])
    return left, top, right, bottom
