"""From a scanned signature to what the extractor sees; the training's twin of it is in TensorFlow.

grey level -> enlarged where small -> Otsu's threshold -> ink or paper -> mean and spread of the ink
-> scaled and centred by them
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from signver.errors import SignVerError
from signver.images import Picture, as_rgb

HEIGHT, WIDTH = 192, 384
# Half the picture's height and width, in standard deviations of the ink.
SPREAD = (2.3, 2.2)
# How far height and width are scaled apart: 0 keeps the aspect ratio, 1 gives all signatures the same.
BALANCE = 0.3
# A line is as high as this share of its length, at least; else it would fill the picture.
FLATTEST = 1 / 8
# Pictures whose longer side is less are enlarged first: edges of ink lie between pixels, and grey levels say
# where.
ENLARGE_BELOW = 384
# Fewer pixels of ink are a speck, not a signature; more than this share is no ink on paper.
_LEAST_INK = 16
_MOST_INK = 0.6
# Larger pictures are averaged in whole blocks first: the result has 384 columns.
LONGEST = 4096


def normalise_signature(
    picture: Picture, size: tuple[int, int] = (HEIGHT, WIDTH), enlarge_below: int = ENLARGE_BELOW
) -> np.ndarray:
    """The normalised ink of one signature.

    Args:
      picture: a path, a Pillow image or uint8 pixels; dark ink on light paper.
      size: height and width of the result; `MetricExtractor.input_size` is what a model asks for.
      enlarge_below: smaller pictures are enlarged, see `enlargement`; 0 leaves all as they are.

    Returns:
      float32 of that size, 1 where all is ink, 0 where none is.

    Raises:
      SignVerError: the picture cannot be read, or holds no signature.
    """
    image = as_rgb(picture)
    factor = -(-max(image.size) // LONGEST)
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
    factor = enlargement(max(grey.shape), enlarge_below)
    if factor > 1:
        large = (grey.shape[1] * factor, grey.shape[0] * factor)
        grey = np.asarray(Image.fromarray(grey).resize(large, Image.Resampling.BICUBIC))
        found = grey <= otsu(grey)
    ink = found.astype(np.float32)
    middle_y, spread_y = _moments(ink.sum(axis=1, dtype=np.float64))
    middle_x, spread_x = _moments(ink.sum(axis=0, dtype=np.float64))
    spread_x, spread_y = max(spread_x, FLATTEST * spread_y), max(spread_y, FLATTEST * spread_x)
    down, across = _scales(size, spread_y, spread_x)
    rows = _areas(ink.shape[0], size[0], middle_y, down)
    columns = _areas(ink.shape[1], size[1], middle_x, across)
    return rows @ ink @ columns.T


def enlargement(longest: int, below: int) -> int:
    """The least power of two, 64 at most, by which a longer side reaches `below`."""
    factor = 1
    while factor < 64 and longest * factor < below:
        factor *= 2
    return factor


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


def _moments(mass: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the ink along one axis, in pixels; a pixel has a width."""
    place = np.arange(mass.size) + 0.5
    middle = float(mass @ place / mass.sum())
    return middle, float(np.sqrt(mass @ (place - middle) ** 2 / mass.sum() + 1 / 12))


def _scales(size: tuple[int, int], spread_y: float, spread_x: float) -> tuple[float, float]:
    """By what height and width are multiplied."""
    down, across = size[0] / 2 / SPREAD[0] / spread_y, size[1] / 2 / SPREAD[1] / spread_x
    more, less = (1 + BALANCE) / 2, (1 - BALANCE) / 2
    return down**more * across**less, across**more * down**less


def _areas(source: int, target: int, middle: float, scale: float) -> np.ndarray:
    """float32 [target, source]: the share of each source pixel in each target pixel.

    `middle` of the source comes to the target's middle; what lies outside the source is paper.
    """
    step = 1 / scale
    low = middle + (np.arange(target)[:, np.newaxis] - target / 2) * step
    edge = np.arange(source)[np.newaxis]
    overlap = np.minimum(low + step, edge + 1) - np.maximum(low, edge)
    return (np.maximum(overlap, 0.0) / step).astype(np.float32)
