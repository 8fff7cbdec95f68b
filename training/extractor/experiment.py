"""Configs of the extractors: `extractor_metric`, `extractor_siamese`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from official.core import config_definitions
from official.modeling import hyperparams, optimization

from training.errors import UserError
from training.experiment import Experiment, Schedule, trainer_defaults
from training.extractor import input as source

LOSS_NAMES = ("supervised_contrastive", "batch_hard_triplet", "contrastive", "one_threshold")


@dataclasses.dataclass
class Jitter(hyperparams.Config, source.Jitter):
    """`input.Jitter` as a config section: how far a signature is changed in training."""


@dataclasses.dataclass
class Persona(hyperparams.Config, source.Persona):
    """`input.Persona` as a config section: how far a writer is changed into another one."""


@dataclasses.dataclass
class ExtractorModel(hyperparams.Config):
    """The network.

    Attributes:
      filters: of each level, from 24×48 down; the first is one convolution. None for an embedding that is
        linear in what is known before (`training/extractor/model.py`).
      embedding: length of the embedding; 256 is what SignVer's index takes.
      dropout: of the components and of the residual blocks' map.
    """

    filters: list[int] = dataclasses.field(default_factory=lambda: [24, 48, 96, 160])
    embedding: int = 256
    dropout: float = 0.2


@dataclasses.dataclass
class ExtractorTask(config_definitions.TaskConfig):
    """What an extractor learns from.

    Attributes:
      model: see `ExtractorModel`.
      jitter: see `Jitter`.
      persona: see `Persona`.
      adapt: fits the weights of `init_checkpoint` to the training writers before a step is made.
      loss: one of `LOSS_NAMES` (`training/extractor/losses.py`).
      scale: how sharply scores are told apart, one over the temperature; contrastive has none.
      margin: as a cosine for supervised_contrastive and one_threshold, as a distance for the others.
      skilled_weight: what a skilled forgery counts among the negatives.
      genuine, forged: signatures of a writer in a batch; the global batch is a multiple of their sum.
      train_data, validation_data: signature sets, see `python -m training.data convert signatures`.
    """

    model: ExtractorModel = dataclasses.field(default_factory=ExtractorModel)
    jitter: Jitter = dataclasses.field(default_factory=Jitter)
    persona: Persona = dataclasses.field(default_factory=Persona)
    adapt: bool = False
    loss: str = "supervised_contrastive"
    scale: float = 12.0
    margin: float = 0.1
    skilled_weight: float = 4.0
    genuine: int = 4
    forged: int = 2
    train_data: config_definitions.DataConfig = dataclasses.field(
        default_factory=lambda: config_definitions.DataConfig(
            input_path="data/signatures/train*", is_training=True, global_batch_size=72
        )
    )
    validation_data: config_definitions.DataConfig = dataclasses.field(
        default_factory=lambda: config_definitions.DataConfig(
            input_path="data/signatures/eval*", is_training=False, global_batch_size=72, drop_remainder=False
        )
    )


def metric_experiment() -> Experiment:
    """`extractor_metric`: embeddings whose cosine tells genuine from forged."""
    trainer = trainer_defaults()
    trainer.best_checkpoint_eval_metric = "eer_skilled"
    trainer.best_checkpoint_metric_comp = "lower"
    trainer.optimizer_config = optimization.OptimizationConfig(
        {"optimizer": {"type": "adam", "adam": {"global_clipnorm": 5.0}}}
    )
    return Experiment(
        runtime=config_definitions.RuntimeConfig(
            distribution_strategy="one_device", mixed_precision_dtype="auto"
        ),
        task=ExtractorTask(),
        trainer=trainer,
        schedule=Schedule(epochs=60.0, learning_rate=0.001, base_batch=72),
    )


@dataclasses.dataclass
class SiameseTask(ExtractorTask):
    """What a Siamese verifier learns from: an `ExtractorTask` without `model`, which is fixed.

    Attributes:
      head_weight: of the loss of the head, which says "forged" of a pair, beside that of the embeddings.
    """

    head_weight: float = 0.2


def siamese_experiment() -> Experiment:
    """`extractor_siamese`: the architecture whose ONNX file the .NET SDK loads, for pictures of 150×220."""
    experiment = metric_experiment()
    task = SiameseTask()
    # The preprocessing keeps the size of the signature, so training must not fit it into the picture.
    task.jitter.refit = False
    task.persona = Persona(mirror=0.5, rotation=2.0, slant=0.15, stretch=0.1, bend=0.03)
    experiment.task = task
    experiment.schedule.learning_rate = 0.0005
    return experiment


def build_task(config: ExtractorTask) -> Any:
    """Checks what only the whole config can tell, then builds the task.

    Raises:
      UserError: a loss or a size that makes no model.
    """
    if config.loss not in LOSS_NAMES:
        raise UserError(f"task.loss must be one of {', '.join(LOSS_NAMES)}, found '{config.loss}'.")
    if config.genuine < 2 or config.forged < 0:
        raise UserError(
            f"task.genuine must be at least 2 and task.forged at least 0, found {config.genuine} and "
            f"{config.forged}: a loss compares signatures of one writer."
        )
    filters = list(config.model.filters)
    if len(filters) > 4 or min(filters, default=1) < 1 or config.model.embedding < 2:
        raise UserError(
            f"task.model.filters must be up to 4 positive numbers, found {filters}: 24×48 can be halved so "
            f"often; task.model.embedding starts at 2, found {config.model.embedding}."
        )
    if config.skilled_weight <= 0 or config.scale <= 0:
        raise UserError("task.skilled_weight and task.scale must be positive.")
    if config.adapt and not config.init_checkpoint:
        raise UserError(
            "task.adapt fits trained weights to new writers: name them with task.init_checkpoint."
        )
    if isinstance(config, SiameseTask):
        if config.adapt:
            raise UserError("task.adapt is for extractor_metric: the Siamese layers have nothing to adapt.")
        from training.extractor.siamese import Siamese

        return Siamese(config)
    from training.extractor.task import Extractor

    return Extractor(config)


def sample_data(folder: pathlib.Path, writers: int = 24) -> str:
    """Writes synthetic signatures; returns their input_path."""
    from training.data.signatures import write_samples

    return write_samples(folder, writers)
