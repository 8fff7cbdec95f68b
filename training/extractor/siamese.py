"""The Siamese verifier of the .NET SDK, to be trained: SigNet's layers with Mish, a head on two embeddings.

Sources: Hafemann et al. 2017 for layers and preprocessing; the head is that of the Kaggle notebook. The head
is linear in both embeddings, so it cannot say how alike they are, only how forged each looks: decide by the
cosine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from training.extractor import losses
from training.extractor.experiment import SiameseTask
from training.extractor.preprocessing import otsu
from training.extractor.task import Extractor

layers = tf.keras.layers

EMBEDDING = 2048
INPUT = (150, 220)
_CANVAS = (952, 1360)
_SQUARE = 256


class Siamese(Extractor):
    """A single replica's view. A batch is one of writers, as for `extractor_metric`; pairs are made in it."""

    task_config: SiameseTask

    def prepare(self, grey: np.ndarray) -> np.ndarray:
        """See `prepare` of this module."""
        return prepare(grey)

    def build_model(self) -> tf.keras.Model:
        """Float32 [b, 150, 220, 1] in 0..1 to float32 [b, 2048 + 2], see `network`."""
        return network()

    def start(self, model: tf.keras.Model) -> None:
        """Random weights: SigNet's layers start from nothing else."""

    def build_losses(self, labels: Any, model_outputs: Any, aux_losses: Any = None) -> tf.Tensor:
        """Metric loss of the embeddings' directions and cross entropy of the head over all pairs."""
        writers, forged = labels
        outputs = tf.cast(model_outputs, tf.float32)
        loss = super().build_losses(labels, tf.math.l2_normalize(outputs[:, :EMBEDDING], axis=1), aux_losses)
        logits = pair_logits(outputs)
        return loss + self.task_config.head_weight * losses.pair_cross_entropy(logits, writers, forged)

    def inference_step(self, inputs: Any, model: tf.keras.Model) -> tf.Tensor:
        """Embeddings float32 [b, 2048]."""
        return tf.cast(model(inputs, training=False), tf.float32)[:, :EMBEDDING]


def network() -> tf.keras.Model:
    """Float32 [b, 150, 220, 1], ink bright on black, to float32 [b, 2050].

    The first 2048 values are the embedding. The head is one row of 4096 weights on two embeddings, so its
    logit of "forged" is what the first contributes plus what the second contributes: the last two values are
    these two contributions, were the picture the first or the second of a pair.
    """
    image = tf.keras.Input((*INPUT, 1), name="image")
    x = _block(layers.Conv2D(96, 11, strides=4, use_bias=False, name="conv1")(image))
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.MaxPooling2D(3, 2)(_block(_same(256, 5, "conv2")(x)))
    x = _block(_same(384, 3, "conv3")(x))
    x = _block(_same(384, 3, "conv4")(x))
    x = layers.MaxPooling2D(3, 2)(_block(_same(256, 3, "conv5")(x)))
    x = layers.Flatten()(x)
    for name in ("fc1", "fc2"):
        x = _block(layers.Dense(EMBEDDING, use_bias=False, name=name)(x))
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    # The gradient of the head stays in the head: it would pull at the embeddings the wrong way.
    seen = layers.Lambda(tf.stop_gradient, dtype="float32", name="seen")(x)
    first = layers.Dense(1, use_bias=False, dtype="float32", name="first")(seen)
    second = layers.Dense(1, dtype="float32", name="second")(seen)
    return tf.keras.Model(image, layers.Concatenate(dtype="float32")([x, first, second]), name="siamese")


def pair_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Logit of "forged" of each ordered pair, float32 [b, b], from outputs [b, 2050]."""
    return outputs[:, EMBEDDING, tf.newaxis] + outputs[tf.newaxis, :, EMBEDDING + 1]


def prepare(grey: np.ndarray) -> np.ndarray:
    """What the network sees: uint8 [150, 220], ink bright on black; all 0 where there is no ink.

    The SDK's twin of it is `signver.siamese.prepare`, in numpy alone; a test holds them together.

    Args:
      grey: uint8 [h, w], dark ink on light paper.
    """
    threshold = int(otsu(tf.constant(grey)).numpy())
    smooth = ndimage.gaussian_filter(grey.astype(np.float64), 2.0, mode="nearest")
    rows, columns = np.nonzero(smooth <= threshold)
    if not rows.size or np.ptp(rows) == 0 or np.ptp(columns) == 0:
        return np.zeros(INPUT, np.uint8)
    part = grey[rows.min() : rows.max(), columns.min() : columns.max()]
    canvas = np.full(_CANVAS, 255, np.uint8)
    places, cuts = [], []
    for found, size, most in zip((rows, columns), part.shape, _CANVAS, strict=True):
        begin = max(0, size - most) // 2
        cuts.append(slice(begin, begin + min(size, most)))
        start = most // 2 - int(found.mean() - found.min())
        start = 0 if size > most else max(0, min(start, most - size))
        places.append(slice(start, start + min(size, most)))
    canvas[tuple(places)] = part[tuple(cuts)]
    canvas[canvas > threshold] = 255
    ratio = min(side / _SQUARE for side in _CANVAS)
    target = [round(side / ratio) for side in _CANVAS]
    factors = [side / small for side, small in zip(_CANVAS, target, strict=True)]
    smooth = ndimage.gaussian_filter(
        255.0 - canvas, [(factor - 1) / 2 for factor in factors], mode="constant"
    )
    small = ndimage.zoom(
        smooth, [1 / factor for factor in factors], order=1, mode="grid-constant", grid_mode=True
    )
    small = np.clip(small + 1e-9, 0, 255).astype(np.uint8)
    left = round((target[1] - _SQUARE) / 2) + (_SQUARE - INPUT[1]) // 2
    top = math.floor((target[0] - INPUT[0]) / 2)
    return small[top : top + INPUT[0], left : left + INPUT[1]]


def _same(filters: int, kernel: int, name: str) -> tf.keras.layers.Layer:
    return layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)


def _block(x: tf.Tensor) -> tf.Tensor:
    """Batch normalisation and Mish, which is x times tanh(softplus(x))."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.Activation(tf.keras.activations.mish)(x)
