"""The cleaner's task: pairs in, figures on grey levels out; they are computed on the host."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf
from official.core import base_task

from training import distribution
from training.cleaner import input as pairs
from training.cleaner import metrics, model
from training.cleaner.experiment import CleanerTask
from training.cleaner.noise import SIDE, NoiseLevels


class Cleaner(base_task.Task):
    """A single replica's view of cleaner training."""

    task_config: CleanerTask

    def build_model(self) -> tf.keras.Model:
        """The network that the config names."""
        config = self.task_config.model
        if config.kind == "autoencoder":
            return model.autoencoder(config.dropout)
        return model.unet(list(config.filters), config.head)

    def build_inputs(
        self,
        params: Any,
        input_context: tf.distribute.InputContext | None = None,
        *,
        seed: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Batches of one rank: endless where `params.is_training`, else one pass over fixed pairs.

        Args:
          params: `task_config.train_data` or `task_config.validation_data`.
          input_context: rank and size; one process where None.
          seed: decides order and noise.
          first_step: step at which a resumed run continues.

        Returns:
          (noisy, clean), float32 [batch, 224, 224, 1] in 0..1; for evaluation also int32 [batch], 1
          where nothing was added.
        """
        rank = input_context.input_pipeline_id if input_context else 0
        size = input_context.num_input_pipelines if input_context else 1
        bank = pairs.load_bank(params.input_path)
        levels = NoiseLevels(**self.task_config.noise.as_dict())
        if not params.is_training:
            return _evaluation(bank, levels, params.global_batch_size, rank, size)
        order = pairs.Order(seed, len(bank), params.global_batch_size, rank, size, first_step)
        # Fails here, not in a worker, where the batch does not divide.
        next(iter(_positions(order)))
        workers = self.task_config.workers
        workers = _default_workers() if workers < 0 else workers
        share = params.global_batch_size // size
        spec = tf.TensorSpec([share, SIDE, SIDE, 1], tf.uint8)
        made = tf.data.Dataset.from_generator(
            lambda: pairs.training_batches(bank, levels, order, workers), output_signature=(spec, spec)
        )
        return made.map(lambda noisy, clean: (_scale(noisy), _scale(clean)), tf.data.AUTOTUNE)

    def build_losses(self, labels: Any, model_outputs: Any, aux_losses: Any = None) -> tf.Tensor:
        """Loss of a batch; the target's one channel stands for all three of the answer."""
        config = self.task_config
        clean = tf.cast(labels, tf.float32)
        found = tf.cast(model_outputs, tf.float32)
        parts = {
            "bce": lambda: _cross_entropy(clean, found),
            "mse": lambda: tf.reduce_mean(tf.square(found - clean)),
            "l1": lambda: tf.reduce_mean(tf.abs(found - clean)),
            "ink": lambda: tf.reduce_mean(tf.abs(found - clean) * self._weights(clean)),
        }
        loss = tf.add_n([parts[name]() for name in config.loss.split("+")])
        return loss + (tf.add_n(aux_losses) if aux_losses else 0.0)

    def _weights(self, clean: tf.Tensor) -> tf.Tensor:
        """What each pixel counts: ink and what lies beside it is a twentieth of a crop."""
        ink = tf.nn.max_pool2d(1.0 - clean, 3, 1, "SAME")
        return 1.0 + self.task_config.ink_weight * ink

    def train_step(
        self, inputs: Any, model: tf.keras.Model, optimizer: Any, metrics: Any = None
    ) -> dict[str, Any]:
        """The stock step on three equal channels."""
        noisy, clean = inputs
        return super().train_step((_three(noisy), clean), model, optimizer, metrics)

    def validation_step(self, inputs: Any, model: tf.keras.Model, metrics: Any = None) -> dict[str, Any]:
        """Loss, and the images for the figures that `aggregate_logs` computes on the host."""
        noisy, clean, untouched = inputs
        found = self.inference_step(_three(noisy), model)
        loss = self.build_losses(clean, found, model.losses)
        return {self.loss: loss, "found": found[..., :1], "clean": clean, "untouched": untouched}

    def aggregate_logs(self, state: Any = None, step_logs: Any = None) -> Any:
        """Adds a batch to the totals."""
        totals = collections.defaultdict(metrics.Totals) if state is None else state
        if step_logs is not None:
            images = zip(
                *(np.concatenate(step_logs[key]) for key in ("found", "clean", "untouched")), strict=True
            )
            for found, clean, untouched in images:
                kind = "untouched" if untouched else "noisy"
                totals[kind].add(to_grey(found[..., 0]), to_grey(clean[..., 0]))
        return totals

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: Any = None) -> dict[str, float]:
        """Figures over all ranks."""
        totals: dict[str, metrics.Totals] = collections.defaultdict(metrics.Totals)
        for part in distribution.gather(dict(aggregated_logs)):
            for kind, value in part.items():
                totals[kind] = totals[kind] + value
        return metrics.summarise(totals)


def _cross_entropy(clean: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    # Keras finds the logits behind a sigmoid; from clipped probabilities a saturated answer has no
    # gradient, and the autoencoder stays white for good.
    return tf.reduce_mean(tf.keras.losses.binary_crossentropy(tf.repeat(clean, 3, axis=-1), found))


def to_grey(image: np.ndarray) -> np.ndarray:
    """0..1 to uint8 grey levels."""
    return np.clip(np.rint(np.asarray(image, np.float32) * 255), 0, 255).astype(np.uint8)


def _evaluation(
    bank: pairs.SignatureBank, levels: NoiseLevels, batch: int, rank: int, size: int
) -> tf.data.Dataset:
    def images() -> Any:
        for number, noisy, clean in pairs.evaluation_pairs(bank, levels, rank, size):
            yield noisy[..., None], clean[..., None], np.int32(number % pairs.UNTOUCHED_EVERY == 0)

    spec = tf.TensorSpec([SIDE, SIDE, 1], tf.uint8)
    made = tf.data.Dataset.from_generator(
        images, output_signature=(spec, spec, tf.TensorSpec([], tf.int32))
    ).batch(max(1, batch // size))
    return made.map(
        lambda noisy, clean, untouched: (_scale(noisy), _scale(clean), untouched), tf.data.AUTOTUNE
    )


def _positions(order: pairs.Order) -> Any:
    from training.data import records

    return records.training_positions(order.global_batch, order.rank, order.size, order.first_step)


def _default_workers() -> int:
    """One process makes 2,000 pairs a second, more than any CPU trains on; a card of eight needs half."""
    return min(4, max(1, distribution.cores() // 4))


def _scale(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 255.0


def _three(image: tf.Tensor) -> tf.Tensor:
    return tf.concat([image, image, image], axis=-1)
