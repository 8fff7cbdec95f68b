"""The detector's task: stock RetinaNet, with resumable inputs and named metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.evaluation import coco_evaluator
from official.vision.modeling.layers import detection_generator
from official.vision.tasks import retinanet

from training import distribution
from training.detector import input as detector_input
from training.detector.experiment import DetectorTask


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

    def build_metrics(self, training: bool = True) -> list[tf.keras.metrics.Metric]:
        """Means of the losses; for evaluation also COCO's figures, per class by name."""
        metrics = super().build_metrics(training)
        if not training:
            self.coco_metric = _CocoEvaluator(self.task_config)
        return metrics


class _CocoEvaluator(coco_evaluator.COCOEvaluator):
    """COCO's summary figures as fractions, and `AP/NAME`, `AP50/NAME` for each class.

    The stock evaluator reads its per-class figures from a fork of pycocotools and leaves them out, in
    silence, where the published package is installed.
    """

    _predictions: dict[str, list[Any]]
    _groundtruths: dict[str, list[Any]]

    def __init__(self, config: DetectorTask):
        super().__init__(
            annotation_file=None,
            include_mask=False,
            per_category_metrics=True,
            max_num_eval_detections=config.max_num_eval_detections,
        )
        self._names = dict(enumerate(config.class_names, start=1))

    def evaluate(self) -> dict[str, Any]:
        """Figures over the pages of all ranks, computed by the chief and given to all."""
        parts = distribution.gather((self._predictions, self._groundtruths))
        figures = None
        if distribution.is_chief():
            self._predictions = _joined([predictions for predictions, _ in parts])
            self._groundtruths = _joined([groundtruths for _, groundtruths in parts])
            figures = super().evaluate()
        return distribution.of_chief(figures)

    def _retrieve_per_category_metrics(self, coco_eval: Any, prefix: str = "") -> dict[str, np.float32]:
        # [IoU thresholds, recalls, classes, areas, detection limits]; -1 where a class has no box.
        precision = coco_eval.eval["precision"][:, :, :, 0, -1]
        figures = {}
        for number, label in enumerate(coco_eval.params.catIds):
            name = self._names.get(int(label), f"label {label}")
            for figure, values in (("AP", precision[:, :, number]), ("AP50", precision[0, :, number])):
                known = values[values > -1]
                figures[f"{figure}/{name}"] = np.float32(known.mean() if known.size else np.nan)
        return figures


def _joined(parts: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The batches of all parts, in their order, by key."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: [batch for part in parts for batch in part.get(key, [])] for key in keys}


class _Float32Detections(detection_generator.MultilevelDetectionGenerator):
    """Decodes boxes and suppresses in float32, whatever the heads compute in.

    The combined suppression op takes nothing else, and bfloat16 coordinates are wrong by pixels.
    """

    def __call__(self, raw_boxes: Any, raw_scores: Any, *arguments: Any, **options: Any) -> Any:
        raw_boxes, raw_scores = tf.nest.map_structure(
            lambda value: tf.cast(value, tf.float32), (raw_boxes, raw_scores)
        )
        return super().__call__(raw_boxes, raw_scores, *arguments, **options)
