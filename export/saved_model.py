"""From a model_dir to a TensorFlow SavedModel whose signature needs no preprocessing outside."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import tensorflow as tf
from official.vision.ops import preprocess_ops

from training.errors import UserError
from training.files import atomic_folder
from training.runner import LoadedModel

# Names and order of what a detector returns; the first four are TensorFlow's detection convention.
DETECTOR_OUTPUTS = (
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
    "raw_boxes",
    "raw_logits",
)


class DetectorModule(tf.Module):
    """A detector that takes pages of any size.

    Signature `serving_default`:
      image: uint8 [batch, height, width, 3], RGB; batch is 1 unless made dynamic.
      detection_boxes: float32 [batch, 100, 4], fractions of the page, [ymin, xmin, ymax, xmax].
      detection_scores: float32 [batch, 100], falling; 0 beyond num_detections.
      detection_classes: int32 [batch, 100], labels from 1 on.
      num_detections: int32 [batch].
      raw_boxes, raw_logits: float32 [batch, anchors, 4] and [batch, anchors, classes + 1], the heads
        before decoding and suppression, for proofs of equality.
    """

    def __init__(self, loaded: LoadedModel, batch: int | None = 1):
        super().__init__()
        self.model = loaded.model
        self._size = list(loaded.params.task.model.input_size[:2])
        self._classes = loaded.params.task.model.num_classes
        self.input_signature = tf.TensorSpec([batch, None, None, 3], tf.uint8, name="image")
        self.__call__ = tf.function(self._serve, input_signature=[self.input_signature], autograph=False)

    def _serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, fitted = fit(image, self._size)
        batch = tf.shape(image)[0]
        # image_shape clips boxes to the page's part of the input.
        shape = tf.tile(fitted[tf.newaxis], [batch, 1])
        outputs = self.model(pixels, image_shape=shape, training=False)
        scale = tf.concat([fitted, fitted], axis=0)
        return {
            "detection_boxes": tf.clip_by_value(outputs["detection_boxes"] / scale, 0.0, 1.0),
            "detection_scores": outputs["detection_scores"],
            "detection_classes": tf.cast(outputs["detection_classes"], tf.int32),
            "num_detections": tf.cast(outputs["num_detections"], tf.int32),
            "raw_boxes": _flatten(outputs["box_outputs"], batch, 4),
            "raw_logits": _flatten(outputs["cls_outputs"], batch, self._classes),
        }


def fit(image: tf.Tensor, size: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Fits pages into the input as the stock parser does: aspect ratio kept, top left, mean grey around.

    Args:
      image: uint8 [batch, h, w, 3].
      size: [height, width] of the input.

    Returns:
      float32 [batch, height, width, 3], normalised; float32 [2], height and width of the page in it.
    """
    page = tf.cast(tf.shape(image)[1:3], tf.float32)
    scale = tf.reduce_min(tf.constant(size, tf.float32) / page)
    fitted = tf.maximum(tf.round(page * scale), 1.0)
    pixels = tf.image.resize(tf.cast(image, tf.float32), tf.cast(fitted, tf.int32), "bilinear")
    mean = tf.constant(preprocess_ops.MEAN_RGB, tf.float32)
    deviation = tf.constant(preprocess_ops.STDDEV_RGB, tf.float32)
    pixels = (pixels - mean) / deviation
    missing = tf.constant(size, tf.int32) - tf.cast(fitted, tf.int32)
    pixels = tf.pad(pixels, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    return tf.ensure_shape(pixels, [None, *size, 3]), fitted


def check_saved_model(folder: str | os.PathLike[str]) -> None:
    """Raises UserError where no SavedModel lies in a folder, without loading it."""
    if not (pathlib.Path(folder) / "saved_model.pb").is_file():
        raise UserError(f"--saved_model {os.fspath(folder)}: no saved_model.pb in this folder.")


def load_served(folder: str | os.PathLike[str]) -> Any:
    """A loaded SavedModel that has a serving_default: its `signatures` work as long as it is kept.

    Raises:
      UserError: no SavedModel, a damaged one, or one that serves nothing.
    """
    path = pathlib.Path(folder)
    check_saved_model(path)
    try:
        saved = tf.saved_model.load(str(path))
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"--saved_model {path}: cannot be loaded ({str(error)[:200]}).") from error
    if "serving_default" not in saved.signatures:
        raise UserError(f"--saved_model {path}: it has no serving_default.")
    return saved


def save_weights(loaded: LoadedModel, output: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a folder that `task.init_checkpoint` takes: weights and moving statistics, no optimizer.

    Raises:
      UserError: the folder holds something else.
    """
    path = pathlib.Path(output)
    if path.exists() and not _holds_weights_alone(path):
        raise UserError(f"--output {path}: is there and holds other things than weights; name a new folder.")
    items = getattr(loaded.model, "checkpoint_items", None) or {"model": loaded.model}
    with atomic_folder(path) as temporary:
        tf.train.Checkpoint(**items).write(str(temporary / "weights"))
        # A relative path: the folder may be moved.
        (temporary / "checkpoint").write_text('model_checkpoint_path: "weights"\n', encoding="utf-8")
    return path


def _holds_weights_alone(path: pathlib.Path) -> bool:
    """Whether a folder is empty or what `save_weights` writes; a run too has a file "checkpoint"."""
    names = {file.name for file in path.iterdir()} if path.is_dir() else {""}
    others = {name for name in names if not name.startswith("weights.")}
    return not names or others == {"checkpoint"}


def save(loaded: LoadedModel, output: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a detector's SavedModel, loadable by `tf.saved_model.load` with TensorFlow alone.

    Raises:
      UserError: the folder cannot be written, or holds something else than a SavedModel.
    """
    target = _free_folder(output)
    module = DetectorModule(loaded, batch=None)
    with atomic_folder(target) as folder:
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": module.__call__.get_concrete_function()}
        )
    return target


def save_cleaner(loaded: LoadedModel, output: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a cleaner's SavedModel, as SignVer's own: `tf.saved_model.load` and Keras both load it.

    Signature `serving_default`: `input` to `output`, float32 [batch, 224, 224, 3], dark ink on white, 0..1.

    Raises:
      UserError: as `save`.
    """
    target = _free_folder(output)
    with atomic_folder(target) as folder:
        loaded.model.save(str(folder), include_optimizer=False, save_format="tf")
    return target


def save_extractor(loaded: LoadedModel, output: str | os.PathLike[str]) -> pathlib.Path:
    """Writes an extractor's SavedModel.

    Signature `serving_default`: `image`, float32 [batch, 192, 384, 1] as `training.extractor.preprocessing`
    makes it, to `embedding`, float32 [batch, d] of length 1.

    Raises:
      UserError: as `save`.
    """
    return save_cleaner(loaded, output)


def _free_folder(output: str | os.PathLike[str]) -> pathlib.Path:
    target = pathlib.Path(output)
    if (
        target.exists()
        and not (target / "saved_model.pb").exists()
        and (target.is_file() or any(target.iterdir()))
    ):
        raise UserError(f"{target} exists and is no SavedModel, which would replace it; name a new folder.")
    return target


def _flatten(levels: dict[str, tf.Tensor], batch: Any, last: int) -> tf.Tensor:
    return tf.concat([tf.reshape(levels[key], [batch, -1, last]) for key in sorted(levels)], axis=1)
