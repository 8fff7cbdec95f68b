"""Configs of the cleaners: `cleaner_autoencoder` (SignVer's, to the letter) and `cleaner_unet` (to ship)."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from official.core import config_definitions
from official.modeling import hyperparams, optimization

from training.cleaner.noise import NoiseLevels
from training.errors import UserError
from training.experiment import Experiment, Schedule, trainer_defaults

# Parts of `task.loss`; several are joined by a plus sign.
LOSSES = ("bce", "mse", "l1", "ink")


@dataclasses.dataclass
class Noise(hyperparams.Config, NoiseLevels):
    """`noise.NoiseLevels` as a config section: how often each layer is added."""


@dataclasses.dataclass
class CleanerModel(hyperparams.Config):
    """Which network.

    Attributes:
      kind: autoencoder or unet.
      filters: of the U-Net's levels, from 112×112 down.
      head: the U-Net's channels at full resolution.
      dropout: of the autoencoder.
    """

    kind: str = "unet"
    filters: list[int] = dataclasses.field(default_factory=lambda: [16, 32, 64, 96, 128])
    head: int = 8
    dropout: float = 0.2


@dataclasses.dataclass
class CleanerTask(config_definitions.TaskConfig):
    """What a cleaner learns from.

    Attributes:
      model: see `CleanerModel`.
      noise: see `Noise`.
      loss: bce (the seed's), mse, l1, ink (absolute difference, weighted on and beside ink), or a sum such
        as bce+ink. After 300 steps of batch 32 on CEDAR, PSNR and ink F1 on held-out signers: bce 26.2 dB
        and 0.777, mse 26.1 and 0.767, ink 25.4 and 0.805, a bce weighted like ink 25.6 and 0.764,
        bce+ink 26.1 and 0.798.
      ink_weight: what a pixel of ink counts more than one of paper, for `ink`.
      workers: processes that make pairs; 0 makes them in the training process, -1 picks a number.
      train_data, validation_data: signature sets, see `python -m training.data convert signatures`.
    """

    model: CleanerModel = dataclasses.field(default_factory=CleanerModel)
    noise: Noise = dataclasses.field(default_factory=Noise)
    loss: str = "bce+ink"
    ink_weight: float = 4.0
    workers: int = -1
    train_data: config_definitions.DataConfig = dataclasses.field(
        default_factory=lambda: config_definitions.DataConfig(
            input_path="data/signatures/train*", is_training=True, global_batch_size=32
        )
    )
    validation_data: config_definitions.DataConfig = dataclasses.field(
        default_factory=lambda: config_definitions.DataConfig(
            input_path="data/signatures/eval*",
            is_training=False,
            global_batch_size=32,
            drop_remainder=False,
        )
    )


def _experiment(task: CleanerTask) -> Experiment:
    trainer = trainer_defaults()
    trainer.best_checkpoint_eval_metric = "ink_f1"
    trainer.optimizer_config = optimization.OptimizationConfig(
        {"optimizer": {"type": "adam", "adam": {"global_clipnorm": 1.0}}}
    )
    return Experiment(
        runtime=config_definitions.RuntimeConfig(
            distribution_strategy="one_device", mixed_precision_dtype="auto"
        ),
        task=task,
        trainer=trainer,
        schedule=Schedule(epochs=30.0, learning_rate=0.002, base_batch=32),
    )


def unet_experiment() -> Experiment:
    """`cleaner_unet`: what to ship; a sixteenth of the autoencoder's arithmetic."""
    return _experiment(CleanerTask())


def autoencoder_experiment() -> Experiment:
    """`cleaner_autoencoder`: SignVer's architecture, loss and optimizer."""
    experiment = _experiment(CleanerTask(model=CleanerModel(kind="autoencoder"), loss="bce"))
    experiment.schedule.learning_rate = 0.001
    return experiment


def build_task(config: CleanerTask) -> Any:
    """Checks what only the whole config can tell, then builds the task.

    Raises:
      UserError: a kind, a loss or a size that makes no model.
    """
    from training.cleaner.task import Cleaner

    model = config.model
    if model.kind not in ("autoencoder", "unet"):
        raise UserError(f"task.model.kind must be autoencoder or unet, found '{model.kind}'.")
    if not set(config.loss.split("+")) <= set(LOSSES):
        raise UserError(f"task.loss must be one of {', '.join(LOSSES)}, or a sum, found '{config.loss}'.")
    if model.head < 1:
        raise UserError(f"task.model.head must be a positive number, found {model.head}.")
    if not 1 <= len(model.filters) <= 5 or min(model.filters) < 1:
        raise UserError(
            f"task.model.filters must be 1 to 5 positive numbers, found {list(model.filters)}: "
            "112×112 can be halved four times."
        )
    for name, value in dataclasses.asdict(NoiseLevels(**config.noise.as_dict())).items():
        if not 0 <= value <= 1:
            raise UserError(f"task.noise.{name} is a probability, found {value}.")
    return Cleaner(config)


def sample_data(folder: pathlib.Path, writers: int = 16) -> str:
    """Writes synthetic signatures; returns their input_path."""
    from training.data.signatures import write_samples

    return write_samples(folder, writers)
