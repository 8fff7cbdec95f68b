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
# Directions, and the side in pixels of the cells that they are counted in.
_DIRECTIONS, _CELL = 8, 4


def extractor(
    filters: Sequence[int] = (16, 32, 48, 64), embedding: int = 256, dropout: float = 0.2
) -> tf.keras.Model:
    """Normalised ink, float32 [batch, 96, 192, 1], to float32 [batch, embedding] of length 1.

    What the network sees first is fixed: where strokes run in which direction. Histograms of that by place
    tell writers apart before anything is learned (Dalal and Triggs 2005), so they go straight to the
    embedding. Residual blocks (He et al. 2016), one a level, see how strokes hang together. Where on the
    signature something stands matters, so the last map is not averaged away.
    """
    image = tf.keras.Input((HEIGHT, WIDTH, 1), name="image")
    strokes = StrokeDirections(dtype="float32", name="strokes")(image)
    x = _normalised(layers.Conv2D(filters[0], 3, padding="same", use_bias=False)(strokes))
    for level, count in enumerate(filters[1:]):
        x = _block(x, count, 2 if level else 1)
    coarse = layers.Conv2D(32, 1, use_bias=False)(_places(x))
    # Starts as a slight addition to the histograms.
    small = tf.keras.initializers.Constant(0.3)
    coarse = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, gamma_initializer=small)(coarse)
    histograms = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-4)(
        layers.Flatten()(Histograms(dtype="float32", name="histograms")(strokes))
    )
    x = layers.Concatenate()([layers.Flatten()(layers.ReLU()(coarse)), histograms])
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(embedding // 2, use_bias=False)(x)
    # What all signatures share says nothing.
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, scale=False, dtype="float32")(x)
    one_way = tf.keras.Model(image, layers.UnitNormalization(dtype="float32")(x), name="one_way")
    return tf.keras.Model(
        image, Mirrored(one_way, dtype="float32", name="embedding")(image), name="extractor"
    )


class StrokeDirections(tf.keras.layers.Layer):
    """How much of a stroke's edge runs in each of eight directions, by 4×4 pixels; nothing in it is learned.

    Edges and not areas: a thicker pen leaves the sum as it is. A direction has no front: a stroke's two edges
    count as one.
    """

    def call(self, image: tf.Tensor) -> tf.Tensor:
        """float32 [batch, h, w, 1] to float32 [batch, h / 4, w / 4, 8]."""
        gradient = tf.nn.conv2d(image, tf.constant(_derivatives()), 1, "SAME")
        across, down = gradient[..., :1], gradient[..., 1:]
        # The doubled angle has no front; its cosine towards each direction, cubed, is a bin with soft edges.
        doubled = tf.concat([across * across - down * down, 2.0 * across * down], axis=-1)
        angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
        towards = np.stack([np.cos(angles), np.sin(angles)])[np.newaxis, np.newaxis].astype(np.float32)
        cosines = tf.nn.relu(tf.nn.conv2d(doubled, tf.constant(towards), 1, "SAME"))
        square = across * across + down * down + 1e-6
        bins = cosines * cosines * cosines / (square * square * tf.sqrt(square))
        return tf.nn.avg_pool2d(bins, _CELL, _CELL, "VALID")


class Histograms(tf.keras.layers.Layer):
    """Square roots of the directions' histograms over overlapping places, `_PLACES` of them."""

    def call(self, strokes: tf.Tensor) -> tf.Tensor:
        """float32 [batch, 24, 48, 8] to float32 [batch, 6, 12, 8]."""
        soft = tf.nn.avg_pool2d(strokes, 5, 1, "SAME")
        return tf.sqrt(tf.nn.avg_pool2d(soft, 4, 4, "VALID") + 1e-6)


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


def _derivatives() -> np.ndarray:
    """Derivatives of a Gaussian of one pixel, across and down: float32 [7, 7, 1, 2]."""
    place = np.arange(-3, 4)
    bell = np.exp(-(place**2) / 2) / np.exp(-(place**2) / 2).sum()
    slope = place * bell
    kernel = np.stack([np.outer(bell, slope), np.outer(slope, bell)], axis=-1)
    return kernel[:, :, np.newaxis].astype(np.float32)


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
