"""From a scanned signature to what the network sees: the shape of the ink, and nothing of pen or paper.

    grey level -> Otsu's threshold -> ink or paper -> cut to the ink -> fitted into 96×256, centred

The paper's grey tells genuine from forged in raw CEDAR, the ink's in SigComp; neither says anything about
the hand, so no grey level survives. The resampling is exact area averaging, written as two matrix products,
so that any language computes the same values; `signver/preprocessing.py` does it in numpy, and a test holds
the two equal.

Sources: Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms".
"""

from __future__ import annotations

import tensorflow as tf

HEIGHT, WIDTH = 96, 256
# Free border around the ink, in pixels of the result.
MARGIN = 4
# Share of the ink that may lie outside the cut on each side: specks of dirt do not shrink a signature.
OUTSIDE = 0.004


def normalise(grey: tf.Tensor) -> tf.Tensor:
    """The normalised ink of one image.

    Args:
      grey: uint8 [h, w], dark ink on light paper.

    Returns:
      float32 [96, 256], 1 where all is ink, 0 where none is; all 0 where the image has no ink.
    """
    ink = tf.cast(tf.cast(grey, tf.int32) <= otsu(grey), tf.float32)
    top, bottom = _extent(tf.reduce_sum(ink, axis=1))
    left, right = _extent(tf.reduce_sum(ink, axis=0))
    height, width = bottom - top, right - left
    room = [HEIGHT - 2 * MARGIN, WIDTH - 2 * MARGIN]
    scale = tf.minimum(
        room[0] / tf.maximum(height, 1), room[1] / tf.maximum(width, 1)
    )  # float64: integers divide so
    rows = tf.maximum(1, tf.cast(tf.round(tf.cast(height, tf.float64) * scale), tf.int32))
    columns = tf.maximum(1, tf.cast(tf.round(tf.cast(width, tf.float64) * scale), tf.int32))
    cut = ink[top:bottom, left:right]
    small = tf.matmul(tf.matmul(_areas(height, rows), cut), _areas(width, columns), transpose_b=True)
    above, before = (HEIGHT - rows) // 2, (WIDTH - columns) // 2
    padding = [[above, HEIGHT - rows - above], [before, WIDTH - columns - before]]
    return tf.ensure_shape(tf.pad(small, padding), [HEIGHT, WIDTH])


def otsu(grey: tf.Tensor) -> tf.Tensor:
    """The grey level that parts ink from paper: int32 scalar, ink is at or below it; -1 for a plain image."""
    counts = tf.math.bincount(tf.reshape(tf.cast(grey, tf.int32), [-1]), minlength=256, maxlength=256)
    counts = tf.cast(counts, tf.float64)
    below = tf.cumsum(counts)
    mass = tf.cumsum(counts * tf.range(256, dtype=tf.float64))
    above = below[-1] - below
    between = tf.math.square(mass[-1] * below - mass * below[-1])
    spread = tf.math.divide_no_nan(between, below * above)
    plain = tf.reduce_sum(tf.cast(counts > 0, tf.int32)) < 2
    return tf.where(plain, -1, tf.argmax(spread, output_type=tf.int32))


def _extent(mass: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """First index and one past the last that hold all but `OUTSIDE` of the mass on either side."""
    total = tf.reduce_sum(mass)
    forward, backward = tf.cumsum(mass), tf.cumsum(mass, reverse=True)
    first = tf.reduce_sum(tf.cast(forward <= OUTSIDE * total, tf.int32))
    last = tf.size(mass) - tf.reduce_sum(tf.cast(backward <= OUTSIDE * total, tf.int32))
    return tf.minimum(first, tf.maximum(last, 1) - 1), tf.maximum(last, 1)


def _areas(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """float32 [target, source]: the share of each source pixel in each target pixel; rows sum to 1."""
    step = tf.cast(source, tf.float64) / tf.cast(target, tf.float64)
    low = tf.range(target, dtype=tf.float64)[:, tf.newaxis] * step
    edge = tf.range(source, dtype=tf.float64)[tf.newaxis]
    overlap = tf.minimum(low + step, edge + 1) - tf.maximum(low, edge)
    return tf.cast(tf.maximum(overlap, 0.0) / step, tf.float32)
