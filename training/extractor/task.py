"""The extractor's task: writers in, embeddings out; figures over pairs are computed on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from official.core import base_task

from training import distribution
from training.extractor import input as signatures
from training.extractor import losses, metrics
from training.extractor import model as network
from training.extractor.experiment import ExtractorTask

# Signatures that the embedding starts from, of whole writers.
_STARTING = 6000


class Extractor(base_task.Task):
    """A single replica's view of extractor training.

    The loss compares the signatures of one rank's share of a batch; gradients are averaged over ranks.
    """

    task_config: ExtractorTask
    # What makes the network's pixels; `preprocessing.normalise` where None.
    prepare: signatures.Prepare | None = None

    def __init__(self, params: ExtractorTask, **options: Any):
        super().__init__(params, **options)
        self._sets: dict[str, signatures.SignatureSet] = {}

    def build_model(self) -> tf.keras.Model:
        """The network that the config names."""
        config = self.task_config.model
        return network.extractor(list(config.filters), config.embedding, config.dropout)

    def initialize(self, model: tf.keras.Model) -> None:
        """Weights of `task.init_checkpoint`, or what the training signatures themselves suggest."""
        if not self.task_config.init_checkpoint:
            self.start(model)
            return
        super().initialize(model)
        if self.task_config.adapt:
            network.adapt(model, *self._some())

    def start(self, model: tf.keras.Model) -> None:
        """Whitened principal components of the training signatures; every rank finds the same."""
        network.start_from(model, *self._some())

    def _some(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, writers and which are forged, of as many training writers as are needed."""
        found = self._load(self.task_config.train_data.input_path)
        chosen = found.writers % -(-len(found.images) // _STARTING) == 0
        return found.images[chosen], found.writers[chosen], found.forged[chosen]

    def build_inputs(
        self,
        params: Any,
        input_context: tf.distribute.InputContext | None = None,
        *,
        seed: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Batches of one rank: endless where `params.is_training`, else one pass over its share.

        Returns:
          (images, (writers, forged)): float32 [b, h, w, 1] in 0..1, int32 [b], int32 [b].
        """
        rank = input_context.input_pipeline_id if input_context else 0
        size = input_context.num_input_pipelines if input_context else 1
        found = self._load(params.input_path)
        config, batch = self.task_config, params.global_batch_size
        if not params.is_training:
            share = slice(rank, None, size)
            labels = (found.writers[share], found.forged[share].astype(np.int32))
            data = tf.data.Dataset.from_tensor_slices((found.images[share][..., np.newaxis], labels))
            return data.batch(max(1, batch // size)).map(_scale)
        jitter = signatures.Jitter(**config.jitter.as_dict())
        persona = signatures.Persona(**config.persona.as_dict())

        def batches() -> Any:
            return signatures.training_batches(
                found, config.genuine, config.forged, jitter, persona, seed, batch, rank, size, first_step
            )

        next(batches())  # fails here, not in a thread, where the batch does not divide
        here = batch // size
        spec = (
            tf.TensorSpec([here, *found.images.shape[1:], 1], tf.uint8),
            (tf.TensorSpec([here], tf.int32), tf.TensorSpec([here], tf.int32)),
        )
        return tf.data.Dataset.from_generator(batches, output_signature=spec).map(_scale, tf.data.AUTOTUNE)

    def _load(self, input_path: str) -> signatures.SignatureSet:
        """A set, decoded and normalised once: both the start and the batches need it."""
        if input_path not in self._sets:
            self._sets[input_path] = signatures.load_set(input_path, self.prepare)
        return self._sets[input_path]

    def build_losses(self, labels: Any, model_outputs: Any, aux_losses: Any = None) -> tf.Tensor:
        """Loss of a batch."""
        writers, forged = labels
        config = self.task_config
        loss = losses.LOSSES[config.loss](
            tf.cast(model_outputs, tf.float32),
            writers,
            forged,
            config.scale,
            config.margin,
            config.skilled_weight,
        )
        return loss + (tf.add_n(aux_losses) if aux_losses else 0.0)

    def validation_step(self, inputs: Any, model: tf.keras.Model, metrics: Any = None) -> dict[str, Any]:
        """Embeddings and labels, for the figures that `reduce_aggregated_logs` computes on the host."""
        images, (writers, forged) = inputs
        return {"embeddings": self.inference_step(images, model), "writers": writers, "forged": forged}

    def aggregate_logs(self, state: Any = None, step_logs: Any = None) -> Any:
        """Collects batches."""
        state = state or []
        if step_logs is not None:
            batch = [np.concatenate(step_logs[key]) for key in ("embeddings", "writers", "forged")]
            state.append(batch)
        return state

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: Any = None) -> dict[str, float]:
        """Figures over the signatures of all ranks."""
        parts = [batch for part in distribution.gather(aggregated_logs) for batch in part]
        embeddings, writers, forged = (np.concatenate(values) for values in zip(*parts, strict=True))
        scores = metrics.pair_scores(embeddings, writers, forged.astype(bool))
        usual = {"consistency": metrics.consistency(scores)} if scores else {}
        return metrics.summarise(scores) | usual


def _scale(images: tf.Tensor, labels: Any) -> Any:
    return tf.cast(images, tf.float32) / 255.0, labels
