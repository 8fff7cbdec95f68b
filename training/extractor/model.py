"""The extractor's network: a compact residual CNN from normalised ink to an embedding of length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from training.extractor.preprocessing import HEIGHT, WIDTH

layers = tf.keras.layers

# A short memory: evaluations must be right after a hundred steps too.
_MOMENTUM = 0.9


# What goes on to the embedding is cut into this many places: rows and columns.
_PLACES = (6, 12)


def extractor(
    filters: Sequence[int] = (16, 32, 48, 64), embedding: int = 256, dropout: float = 0.2
) -> tf.keras.Model:
    """Normalised ink, float32 [batch, 96, 192, 1], to float32 [batch, embedding] of length 1.

    The first convolution starts as lines and edges in eight directions; their histograms by place tell
    writers apart before anything is learned (Dalal and Triggs 2005), so they also go straight to the
    embedding. Residual blocks (He et al. 2016), one a level, see how they hang together. Where on the
    signature something stands matters, so the last map is not averaged away.
    """
    image = tf.keras.Input((HEIGHT, WIDTH, 1), name="image")
    x = layers.Conv2D(
        filters[0], 5, strides=2, padding="same", use_bias=False, kernel_initializer=directions
    )(image)
    x = layers.AveragePooling2D(2)(_normalised(x))
    histograms = _places(x)
    for level, count in enumerate(filters[1:]):
        x = _block(x, count, 2 if level else 1)
    coarse = _normalised(layers.Conv2D(32, 1, use_bias=False)(_places(x)))
    x = layers.Concatenate()([layers.Flatten()(coarse), layers.Flatten()(histograms)])
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(embedding // 2, use_bias=False)(x)
    # What all signatures share says nothing.
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, scale=False, dtype="float32")(x)
    one_way = tf.keras.Model(image, layers.UnitNormalization(dtype="float32")(x), name="one_way")
    return tf.keras.Model(
        image, Mirrored(one_way, dtype="float32", name="embedding")(image), name="extractor"
    )


class Mirrored(tf.keras.layers.Layer):
    """A network's embeddings of a picture and of its mirror image, side by side: two views, one training.

    In training the picture alone is looked at and stands twice, which leaves the cosines as they are and
    saves half the work. Training must show mirror images too (`Persona.mirror`).

    Args:
      network: pictures to embeddings of length 1.
    """

    def __init__(self, network: tf.keras.Model, **options: Any):
        super().__init__(**options)
        self.network = network

    def call(self, image: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Embeddings of length 1, twice as long as the network's."""
        one = self.network(image, training=training)
        other = one if training else self.network(tf.reverse(image, axis=[2]), training=training)
        return tf.concat([one, other], axis=-1) * math.sqrt(0.5)


def directions(shape: Sequence[int], dtype: tf.DType | None = None) -> tf.Tensor:
    """Kernels of lines and edges: even and odd Gabor functions of one wavelength, in turn.

    Args:
      shape: [height, width, 1, n]; directions are spread evenly over n / 2.
      dtype: of the result.
    """
    height, width, _, count = shape
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    kernels = []
    for number in range(count):
        angle = np.pi * (number // 2) / max(1, (count + 1) // 2)
        phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / height
        wave = np.sin(phase) if number % 2 else np.cos(phase)
        kernel = np.exp(-(x**2 + y**2) / (2 * (height / 3) ** 2)) * wave
        kernel -= kernel.mean()
        kernels.append(kernel / np.linalg.norm(kernel))
    return tf.constant(np.stack(kernels, axis=-1)[:, :, np.newaxis], dtype or tf.float32)


def _places(x: tf.Tensor) -> tf.Tensor:
    """A map averaged to `_PLACES`."""
    size = (x.shape[1] // _PLACES[0], x.shape[2] // _PLACES[1])
    return x if size == (1, 1) else layers.AveragePooling2D(size)(x)


def _block(x: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    short = x
    if stride > 1 or x.shape[-1] != filters:
        short = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        short = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3)(
            layers.Conv2D(filters, 1, use_bias=False)(short)
        )
    x = _normalised(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x))
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    # Starts as if the block were not there.
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, gamma_initializer="zeros")(x)
    return layers.ReLU()(layers.Add()([x, short]))


def _normalised(x: tf.Tensor) -> tf.Tensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3)(x))
