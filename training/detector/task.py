"""The detector's task: stock RetinaNet, with resumable inputs and named metrics."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.vision.modeling.layers import detection_generator
from official.vision.tasks import retinanet

from training.detector import input as detector_input
from training.detector.experiment import DetectorTask

# COCO's names for the twelve summary figures are kept; these are the per-class ones worth a line.
_PER_CLASS = {"Precision mAP ByCategory": "AP", "Precision mAP ByCategory@50IoU": "AP50"}


class Detector(retinanet.RetinaNetTask):
    """A single replica's view of RetinaNet training: no rank, no device."""

    task_config: DetectorTask

    def build_model(self) -> tf.keras.Model:
        """Stock RetinaNet; under a bfloat16 policy its detections are still made in float32."""
        model = super().build_model()
        # The factory offers no other way to change the generator.
        model._detection_generator = _Float32Detections(**model.detection_generator.get_config())
        return model

    def build_inputs(
        self,
        params: Any,
        input_context: tf.distribute.InputContext | None = None,
        *,
        seed: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Batches of one rank: endless and shuffled where `params.is_training`, else one pass.

        Args:
          params: `task_config.train_data` or `task_config.validation_data`.
          input_context: rank and size; one process where None.
          seed: decides order and augmentation.
          first_step: step at which a resumed run continues.
        """
        rank = input_context.input_pipeline_id if input_context else 0
        size = input_context.num_input_pipelines if input_context else 1
        if params.is_training:
            return detector_input.training_dataset(self.task_config, seed, first_step, rank, size)
        return detector_input.evaluation_dataset(self.task_config, rank, size)

    def reduce_aggregated_logs(
        self, aggregated_logs: dict[str, Any], global_step: tf.Tensor | None = None
    ) -> dict[str, Any]:
        """COCO's summary figures as fractions, and `AP/NAME`, `AP50/NAME` for each class."""
        logs = super().reduce_aggregated_logs(aggregated_logs, global_step)
        named: dict[str, Any] = {}
        for key, value in logs.items():
            family, _, label = key.partition("/")
            if not label:
                named[key] = value
            elif family in _PER_CLASS and 1 <= int(label) <= len(self.task_config.class_names):
                named[f"{_PER_CLASS[family]}/{self.task_config.class_names[int(label) - 1]}"] = value
        return named


class _Float32Detections(detection_generator.MultilevelDetectionGenerator):
    """Decodes boxes and suppresses in float32, whatever the heads compute in.

    The combined suppression op takes nothing else, and bfloat16 coordinates are wrong by pixels.
    """

    def __call__(self, raw_boxes: Any, raw_scores: Any, *arguments: Any, **options: Any) -> Any:
        raw_boxes, raw_scores = tf.nest.map_structure(
            lambda value: tf.cast(value, tf.float32), (raw_boxes, raw_scores)
        )
        return super().__call__(raw_boxes, raw_scores, *arguments, **options)
