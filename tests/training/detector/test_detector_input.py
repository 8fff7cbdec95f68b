"""Augmentation moves boxes with the page and repeats itself for the same (seed, position)."""

import numpy as np
import pytest
import tensorflow as tf

from training.data import tfrecord
from training.data.page import Box, Page
from training.detector import input as detector_input
from training.detector.experiment import Augmentation, experiment
from training.errors import UserError


def _page(height=300, width=200):
    """A white page with one black block; returns the example and the block's box."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[150:180, 60:140] = 0
    box = [150 / height, 60 / width, 180 / height, 140 / width]
    return {
        "image": tf.constant(image),
        "groundtruth_boxes": tf.constant([box], tf.float32),
        "groundtruth_classes": tf.constant([1], tf.int64),
        "groundtruth_is_crowd": tf.constant([False]),
        "groundtruth_area": tf.constant([2400.0]),
    }


def _augment(position, **changes):
    config = Augmentation(**changes)
    return detector_input.augment(_page(), config, [256, 256], 5, tf.constant(position, tf.int64))


@pytest.mark.parametrize("position", range(12))
def test_boxes_follow_the_ink(position):
    result = _augment(position, contrast=0.0, stroke=0.0, colour=0.0)
    image = result["image"].numpy()[..., 0]
    assert image.shape == (256, 256)
    for box in result["groundtruth_boxes"].numpy() * 256:
        rows, columns = np.nonzero(image < 60)
        found = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        assert np.abs(found - box).max() <= 2.0


def test_zoom_out_pads_with_what_inference_pads_with():
    result = _augment(3, scale_min=0.5, scale_max=0.5, aspect=1.0, colour=0.0, contrast=0.0)
    pixels = result["image"].numpy().reshape(-1, 3)
    assert (pixels == [124, 116, 104]).all(axis=1).mean() > 0.5


def test_the_same_position_gives_the_same_page_and_another_another():
    first, again, other = _augment(7), _augment(7), _augment(8)
    assert np.array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["date", "signature"], "label 1 is date, in task.class_names signature"),
        (["signature", "initials", "redaction", "date", "stamp"], "label 5 is stamp, in task.class_names no"),
        (["Signature", "initials"], None),
    ],
)
def test_a_set_whose_labels_mean_something_else_is_refused(tmp_path, classes, words):
    encoded = tf.io.encode_png(_page()["image"]).numpy()
    page = Page("a.png", "a", encoded, 300, 200, (Box(0.5, 0.3, 0.6, 0.7, 1),))
    tfrecord.write_dataset(
        tmp_path / "set", {"train": [page]}, dict(enumerate(classes, 1)), source="test", shards=1
    )
    config = experiment().task
    config.train_data.input_path = config.validation_data.input_path = str(tmp_path / "set" / "train*")
    config.train_data.global_batch_size = config.validation_data.global_batch_size = 1
    for dataset in (
        lambda: detector_input.training_dataset(config, 0, 0, 0, 1),
        lambda: detector_input.evaluation_dataset(config, 0, 1),
    ):
        if words is None:
            assert len(next(iter(dataset()))) == 2
            continue
        with pytest.raises(UserError, match=words):
            dataset()


def test_a_box_that_a_crop_removes_goes_with_its_class():
    counts = set()
    for position in range(40):
        result = _augment(position, scale_min=3.0, scale_max=3.0)
        counts.add(len(result["groundtruth_boxes"]))
        assert len(result["groundtruth_boxes"]) == len(result["groundtruth_classes"])
    assert counts == {0, 1}
