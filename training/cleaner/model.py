"""The two cleaners. Both take and give float32 [batch, 224, 224, 3], dark ink on white, 0..1."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from training.cleaner.noise import SIDE

layers = tf.keras.layers


def autoencoder(dropout: float = 0.2, filters: Sequence[int] = (64, 128, 256)) -> tf.keras.Model:
    """SignVer's convolutional autoencoder, 2,106,051 parameters.

    Three times (3×3 convolution, dropout, 3×3 convolution, max-pooling) with 64, 128, 256 filters, three
    3×3 transposed convolutions of stride 2 with 256, 128, 64, and a sigmoid convolution. Source:
    fastforwardlabs/signver, its training script.

    Args:
      dropout: within each of the three.
      filters: other ones than SignVer's, for tests.
    """
    image = tf.keras.Input((SIDE, SIDE, 3), name="input")
    x = image
    for count in filters:
        x = layers.Conv2D(count, 3, padding="same", activation="relu")(x)
        x = layers.Dropout(dropout)(x)
        x = layers.Conv2D(count, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    for count in reversed(filters):
        x = layers.Conv2DTranspose(count, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(3, 3, padding="same", activation="sigmoid", dtype="float32", name="output")(x)
    return tf.keras.Model(image, x, name="cleaner_autoencoder")


def unet(filters: Sequence[int] = (16, 32, 64, 96, 128), head: int = 8) -> tf.keras.Model:
    """A U-Net on one channel that decides how much of each pixel's darkness is ink.

    The network works on 2×2 blocks of pixels (112×112×4), where strokes are still a pixel wide, and only
    its last two layers see full resolution, next to the image itself. It answers with two numbers a
    pixel: the share of the darkness to keep, and the share of the light to darken (ink that a scanner
    lost). Both start near "keep everything, add nothing", so an untouched crop stays so.

    Ronneberger et al. 2015, "U-Net"; sub-pixel upsampling: Shi et al. 2016.

    Args:
      filters: of each level, from 112×112 down.
      head: channels at full resolution.
    """
    image = tf.keras.Input((SIDE, SIDE, 3), name="input")
    # Plain operations, no Lambda layers: a SavedModel of them loads without this file. No arithmetic with
    # Python numbers either: Keras keeps those as captured tensors, which become inputs of an ONNX graph.
    dark = _invert(tf.reduce_mean(image, axis=-1, keepdims=True))
    x = tf.nn.space_to_depth(dark, 2)
    skips = []
    for level, count in enumerate(filters):
        if level:
            skips.append(x)
            x = layers.MaxPooling2D()(x)
        x = _convolve(_convolve(x, count), count)
    for count, skip in zip(reversed(filters[:-1]), reversed(skips), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = _convolve(_convolve(x, count), count)
    x = _convolve(x, 4 * head)
    x = tf.nn.depth_to_space(x, 2)
    x = layers.Concatenate()([x, dark])
    x = layers.Conv2D(head, 3, padding="same", activation="relu")(x)
    bias = tf.keras.initializers.Constant([3.0, -5.0])
    shares = layers.Conv2D(
        2, 3, padding="same", activation="sigmoid", bias_initializer=bias, dtype="float32", name="shares"
    )(x)
    light = _invert(dark * shares[..., :1] + _invert(dark) * shares[..., 1:])
    output = layers.Concatenate(name="output", dtype="float32")([light, light, light])
    return tf.keras.Model(image, output, name="cleaner_unet")


def _invert(x: tf.Tensor) -> tf.Tensor:
    return layers.Rescaling(-1.0, 1.0, dtype="float32")(x)


def _convolve(x: tf.Tensor, filters: int) -> tf.Tensor:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3)(x)
    return layers.ReLU()(x)
