"""What verification reaches with nothing learned: the peer of every trained extractor."""

from __future__ import annotations

import cv2
import numpy as np

# Side of a cell in pixels of the halved picture, directions, and the blur that makes cells overlap.
_CELL, _DIRECTIONS, _BLUR = 16, 8, 10.0


def direction_histograms(images: np.ndarray) -> np.ndarray:
    """Histograms of stroke directions by place (Dalal and Triggs 2005), square roots, length 1.

    Args:
      images: uint8 [n, 192, 384], normalised ink.

    Returns:
      float32 [n, 576]; subtract the mean over some writers before taking cosines.
    """
    found = np.stack([_histogram(image) for image in images])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _histogram(image: np.ndarray) -> np.ndarray:
    # Half the size, where directions by place are found as well.
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(half, (0, 0), 1.0).astype(np.float32) / 255
    across, down = (cv2.Sobel(soft, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength = np.hypot(across, down)
    # A stroke has no front: opposite gradients are one direction.
    direction = np.mod(np.arctan2(down, across), np.pi) / np.pi * _DIRECTIONS
    cells = []
    for number in range(_DIRECTIONS):
        away = np.abs(direction - number)
        share = np.maximum(0, 1 - np.minimum(away, _DIRECTIONS - away)) * strength
        spread = cv2.GaussianBlur(share, (0, 0), _BLUR)
        cells.append(spread[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL])
    return np.sqrt(np.stack(cells)).ravel()
