"""From a stored page to what RetinaNet trains on.

The stock parser fits the page, normalises it and labels anchors; its random scaling is switched off
because no seed decides it. Augmentation comes before it and is stateless: every draw is a function of
(seed, position in the run), so a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from official.vision.dataloaders import retinanet_input, tf_example_decoder

from training.data import records, tfrecord
from training.detector.experiment import Augmentation, DetectorTask
from training.errors import UserError

_PAPER = 255.0
# Outside the page: the mean colour, which the stock parser's normalisation turns into the zeros that
# it pads with, at inference too.
_PADDING = (124.0, 116.0, 104.0)
_OUTSIDE = -1.0
# A box that a crop cuts is kept where at least this share of it remains.
_VISIBLE = 0.5


def training_dataset(
    config: DetectorTask, seed: int, first_step: int, rank: int, size: int
) -> tf.data.Dataset:
    """Endless (images, labels) batches of one rank, from step `first_step` on.

    Returns:
      images float32 [batch / size, height, width, 3], normalised; labels as the stock RetinaNet
      parser gives them, classes as int32.
    """
    params = config.train_data
    index = records.index_records(params.input_path)
    _check_classes(index.files, config.class_names)
    dataset = _source(
        lambda: records.training_stream(
            index, seed, records.training_positions(params.global_batch_size, rank, size, first_step)
        )
    )
    decoder = tf_example_decoder.TfExampleDecoder()
    parse = parser(config, training=True).parse_fn(True)

    @tf.autograph.experimental.do_not_convert  # there is no `if` on tensors, and rewriting takes seconds
    def prepare(position: tf.Tensor, serialised: tf.Tensor) -> Any:
        example = decoder.decode(serialised)
        image, labels = parse(
            augment(example, config.augmentation, config.model.input_size[:2], seed, position)
        )
        # A Gaudi card computes in no 64-bit type.
        classes = tf.nest.map_structure(lambda value: tf.cast(value, tf.int32), labels["cls_targets"])
        return image, dict(labels, cls_targets=classes)

    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(params.global_batch_size // size, drop_remainder=True)


def evaluation_dataset(config: DetectorTask, rank: int, size: int) -> tf.data.Dataset:
    """One pass over one rank's share of the validation pages, in file order."""
    params = config.validation_data
    index = records.index_records(params.input_path)
    _check_classes(index.files, config.class_names)
    dataset = _source(lambda: records.evaluation_stream(index, rank, size))
    decoder = tf_example_decoder.TfExampleDecoder()
    parse = parser(config, training=False).parse_fn(False)

    @tf.autograph.experimental.do_not_convert
    def prepare(number: tf.Tensor, serialised: tf.Tensor) -> Any:
        example = decoder.decode(serialised)
        # Several sources number their pages from 1 each; the record's own number is unique.
        return parse(dict(example, source_id=tf.strings.as_string(number)))

    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(max(1, params.global_batch_size // size), drop_remainder=params.drop_remainder)


def _check_classes(files: Sequence[str], names: Sequence[str]) -> None:
    """Holds the label maps beside the shards against the classes that the model is told to learn.

    Raises:
      UserError: a label means another class there, or none here; the model would learn it under a wrong
        name, or as background.
    """
    for folder in sorted({pathlib.Path(file).parent for file in files}):
        label_map = folder / tfrecord.LABEL_MAP
        if not label_map.exists():
            continue
        for label, name in sorted(tfrecord.read_label_map(label_map).items()):
            meant = names[label - 1] if 0 < label <= len(names) else "no class"
            if name.lower() != meant.lower():
                raise UserError(
                    f"{label_map}: label {label} is {name}, in task.class_names {meant}. Convert the data "
                    f"anew: --classes {','.join(names)} orders its classes, --names renames them "
                    "(scripts/finetune.sh: CONVERT=--classes=…); or say its classes in task.class_names."
                )


def parser(config: DetectorTask, training: bool) -> retinanet_input.Parser:
    """The stock parser for this model's anchors, without random changes."""
    params = config.train_data if training else config.validation_data
    model = config.model
    return retinanet_input.Parser(
        output_size=model.input_size[:2],
        min_level=model.min_level,
        max_level=model.max_level,
        num_scales=model.anchor.num_scales,
        aspect_ratios=model.anchor.aspect_ratios,
        anchor_size=model.anchor.anchor_size,
        match_threshold=params.parser.match_threshold,
        unmatched_threshold=params.parser.unmatched_threshold,
        box_coder_weights=model.detection_generator.box_coder_weights,
        skip_crowd_during_training=params.parser.skip_crowd_during_training,
        max_num_instances=params.parser.max_num_instances,
        dtype=params.dtype,
    )


def augment(
    example: dict[str, tf.Tensor],
    config: Augmentation,
    output_size: list[int],
    seed: int,
    position: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """A page zoomed, shifted, squeezed, thinned and relit; all draws from (seed, position).

    Args:
      example: decoded example; `image` uint8 [h, w, 3], `groundtruth_boxes` float32 [n, 4]
        normalised [ymin, xmin, ymax, xmax], and the fields that run along with the boxes.
      output_size: [height, width] of the result, so that the parser has nothing left to resize.
      position: int64 scalar, the sample's number in the run.

    Returns:
      The example with a new `image` uint8 [height, width, 3] and its boxes moved along.
    """
    draws = tf.random.stateless_uniform([10], seed=tf.stack([tf.cast(seed, tf.int64), position]))
    window = _window(tf.shape(example["image"]), draws, config, output_size)
    image = tf.image.crop_and_resize(
        tf.cast(example["image"], tf.float32)[tf.newaxis],
        window[tf.newaxis],
        box_indices=[0],
        crop_size=output_size,
        extrapolation_value=_OUTSIDE,
    )[0]
    outside = image[..., :1] == _OUTSIDE
    image = _relight(_restroke(tf.abs(image), draws, config), draws, config)
    image = tf.where(outside, tf.constant(_PADDING), image)
    moved, keep = _move_boxes(example["groundtruth_boxes"], window)
    result = dict(example, image=tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8))
    result["height"], result["width"] = output_size
    result["groundtruth_boxes"] = tf.boolean_mask(moved, keep)
    for key in ("groundtruth_classes", "groundtruth_is_crowd", "groundtruth_area"):
        result[key] = tf.boolean_mask(example[key], keep)
    return result


def _window(shape: tf.Tensor, draws: tf.Tensor, config: Augmentation, output_size: list[int]) -> tf.Tensor:
    """The part of the page that fills the output, float32 [4] normalised; may reach beyond the page."""
    height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
    fit = tf.minimum(output_size[0] / height, output_size[1] / width)
    scale = config.scale_min * (config.scale_max / config.scale_min) ** draws[0]
    squeeze = config.aspect ** (2.0 * draws[1] - 1.0)
    # Extent of the output in page units, per axis; more than 1 where the output is larger than the page.
    extent_y = output_size[0] / (height * fit * scale * squeeze)
    extent_x = output_size[1] / (width * fit * scale / squeeze)
    ymin = draws[2] * (1.0 - extent_y)
    xmin = draws[3] * (1.0 - extent_x)
    return tf.stack([ymin, xmin, ymin + extent_y, xmin + extent_x])


def _move_boxes(boxes: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes in the window's coordinates, clipped, and a mask of those still worth learning."""
    origin = tf.stack([window[0], window[1], window[0], window[1]])
    extent = tf.stack([window[2] - window[0], window[3] - window[1]])
    moved = (boxes - origin) / tf.concat([extent, extent], axis=0)
    clipped = tf.clip_by_value(moved, 0.0, 1.0)
    area = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    left = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    return clipped, left > _VISIBLE * tf.maximum(area, 1e-9)


def _restroke(image: tf.Tensor, draws: tf.Tensor, config: Augmentation) -> tf.Tensor:
    """Thicker ink (local minimum), thinner ink (local maximum) or neither, blended by a random share."""
    image = tf.ensure_shape(image, [None, None, 3])

    def changed() -> tf.Tensor:
        thinned = draws[4] < 0.5
        # One pooling does for both: the minimum is the maximum of the negative.
        sign = tf.where(thinned, 1.0, -1.0)
        pooled = sign * tf.nn.max_pool2d((sign * image)[tf.newaxis], 3, 1, "SAME")[0]
        return image + 0.6 * draws[6] * (pooled - image)

    # The pooling costs as much as decoding the page, and most pages go without.
    return tf.cond(draws[5] < config.stroke, changed, lambda: image)


def _relight(image: tf.Tensor, draws: tf.Tensor, config: Augmentation) -> tf.Tensor:
    """Another contrast around the paper's end of the range, and now and then coloured channels."""
    contrast = 1.0 - config.contrast * draws[7]
    image = _PAPER - contrast * (_PAPER - image)
    # Grey paper on some pages: scale all down together.
    image *= 1.0 - 0.5 * config.contrast * tf.maximum(0.0, 2.0 * draws[8] - 1.0)
    tint = 1.0 - 0.25 * tf.stack([draws[9] * 7.0 % 1.0, draws[9] * 13.0 % 1.0, draws[9] * 29.0 % 1.0])
    return image * tf.where(draws[9] < config.colour, tint, tf.ones([3]))


def _source(stream: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        stream,
        output_signature=(tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)),
    )
