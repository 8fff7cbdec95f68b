"""From a scanned signature to what the extractor sees, in numpy; the training's twin of it is in TensorFlow.

grey level -> Otsu's threshold -> ink or paper -> cut to the ink -> fitted into 96×256, centred
"""

from __future__ import annotations

import numpy as np

from signver.errors import SignVerError
from signver.images import Picture, as_rgb

HEIGHT, WIDTH = 96, 256
MARGIN = 4
OUTSIDE = 0.004
# Fewer pixels of ink are a speck, not a signature; more than this share is no ink on paper.
_LEAST_INK = 16
_MOST_INK = 0.6
# Larger pictures are averaged in whole blocks first: the result has 256 columns.
_LONGEST = 4096


def normalise_signature(picture: Picture) -> np.ndarray:
    """The normalised ink of one signature.

    Args:
      picture: a path, a Pillow image or uint8 pixels; dark ink on light paper.

    Returns:
      float32 [96, 256], 1 where all is ink, 0 where none is.

    Raises:
      SignVerError: the picture cannot be read, or holds no signature.
    """
    image = as_rgb(picture)
    factor = -(-max(image.size) // _LONGEST)
    grey = np.asarray((image.reduce(factor) if factor > 1 else image).convert("L"))
    threshold = otsu(grey)
    found = grey <= threshold
    count = int(found.sum())
    if count < _LEAST_INK:
        raise SignVerError(f"no signature: {count} pixels of ink on a picture of {grey.size}.")
    if count > _MOST_INK * grey.size:
        raise SignVerError(
            f"no signature: {count / grey.size:.0%} of the picture are dark; expected dark ink on light "
            "paper. Invert the picture, or cut it to the signature."
        )
    ink = found.astype(np.float32)
    top, bottom = _extent(ink.sum(axis=1))
    left, right = _extent(ink.sum(axis=0))
    height, width = bottom - top, right - left
    scale = min((HEIGHT - 2 * MARGIN) / height, (WIDTH - 2 * MARGIN) / width)
    rows, columns = (max(1, int(np.round(side * scale))) for side in (height, width))
    small = _areas(height, rows) @ ink[top:bottom, left:right] @ _areas(width, columns).T
    result = np.zeros((HEIGHT, WIDTH), np.float32)
    above, before = (HEIGHT - rows) // 2, (WIDTH - columns) // 2
    result[above : above + rows, before : before + columns] = small
    return result


def otsu(grey: np.ndarray) -> int:
    """The grey level that parts ink from paper; ink is at or below it. -1 for a plain picture.

    Source: Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms".
    """
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    if (counts > 0).sum() < 2:
        return -1
    below, mass = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    between = (mass[-1] * below - mass * below[-1]) ** 2
    weight = below * (below[-1] - below)
    return int(np.argmax(np.divide(between, weight, out=np.zeros(256), where=weight > 0)))


def _extent(mass: np.ndarray) -> tuple[int, int]:
    total = mass.sum()
    first = int((np.cumsum(mass) <= OUTSIDE * total).sum())
    last = mass.size - int((np.cumsum(mass[::-1]) <= OUTSIDE * total).sum())
    return min(first, max(last, 1) - 1), max(last, 1)


def _areas(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: the share of each source pixel in each target pixel; rows sum to 1."""
    step = source / target
    low = np.arange(target)[:, np.newaxis] * step
    edge = np.arange(source)[np.newaxis]
    overlap = np.minimum(low + step, edge + 1) - np.maximum(low, edge)
    return (np.maximum(overlap, 0.0) / step).astype(np.float32)
