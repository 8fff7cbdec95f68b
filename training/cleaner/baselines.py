"""What can be done without learning: the peers that every table of cleaners shows.

Each takes and gives uint8 [h, w], dark ink on white.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def identity(image: np.ndarray) -> np.ndarray:
    """Nothing is done."""
    return image


def otsu(image: np.ndarray) -> np.ndarray:
    """Paper whitened above Otsu's threshold (Otsu 1979); ink keeps its grey."""
    level, _ = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.where(image > level, np.uint8(255), image)


def median(image: np.ndarray) -> np.ndarray:
    """3×3 median, against speckle, then Otsu."""
    return otsu(cv2.medianBlur(image, 3))


def without_lines(image: np.ndarray) -> np.ndarray:
    """Otsu, then long horizontal and vertical runs taken out by morphological opening, gaps closed."""
    ink = 255 - otsu(image)
    lines = np.zeros_like(ink)
    for shape in ((41, 1), (1, 41)):
        opened = cv2.morphologyEx(ink, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, shape))
        lines = cv2.max(lines, opened)
    bare = cv2.subtract(ink, lines)
    # Where a line crossed a stroke, the stroke has a gap as high as the line.
    return 255 - cv2.morphologyEx(bare, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))


BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": identity,
    "Otsu": otsu,
    "median + Otsu": median,
    "line removal": without_lines,
}
