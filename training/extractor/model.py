"""The extractor's network: a compact residual CNN from normalised ink to an embedding of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from training.extractor.preprocessing import HEIGHT, WIDTH

layers = tf.keras.layers

# A short memory: evaluations must be right after a hundred steps too.
_MOMENTUM = 0.9


def extractor(
    filters: Sequence[int] = (24, 48, 96, 160), embedding: int = 256, dropout: float = 0.2
) -> tf.keras.Model:
    """Normalised ink, float32 [batch, 96, 256, 1], to float32 [batch, embedding] of length 1.

    A convolution, then two residual blocks a level (He et al. 2016), each level half as large. Where on the
    signature something stands matters, so the last map is not averaged away: it goes on as a coarse map of
    a few channels, beside its mean.
    """
    image = tf.keras.Input((HEIGHT, WIDTH, 1), name="image")
    x = _normalised(layers.Conv2D(filters[0], 5, strides=2, padding="same", use_bias=False)(image))
    for count in filters[1:]:
        x = _block(x, count, 2)
        x = _block(x, count, 1)
    x = layers.MaxPooling2D(2)(x)
    coarse = layers.Flatten()(_normalised(layers.Conv2D(32, 1, use_bias=False)(x)))
    x = layers.Concatenate()([coarse, layers.GlobalAveragePooling2D()(x)])
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(embedding, use_bias=False)(x)
    # What all signatures share says nothing.
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-3, scale=False, dtype="float32")(x)
    return tf.keras.Model(
        image, layers.UnitNormalization(dtype="float32", name="embedding")(x), name="extractor"
    )


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
