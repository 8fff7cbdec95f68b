"""The config of any run: a tf-models experiment plus what is said in epochs and derived in steps."""

from __future__ import annotations

import dataclasses
import math

from official.core import config_definitions
from official.modeling import hyperparams, optimization

from training.errors import UserError


@dataclasses.dataclass
class Schedule(hyperparams.Config):
    """How long and how fast, in units that do not change with the batch, the data or the cards.

    Attributes:
      epochs: passes over the training data; ignored where `trainer.train_steps` is set.
      learning_rate: peak rate at a global batch of `base_batch`; scaled linearly to the run's batch
        (Goyal et al. 2017, "Accurate, Large Minibatch SGD").
      base_batch: the global batch that `learning_rate` is meant for.
      decay: `cosine` (to zero), `stepwise` or `constant`.
      boundaries: for `stepwise`, fractions of the run where the rate falls.
      factors: for `stepwise`, the rate after each boundary as a fraction of the peak.
      warmup: fraction of the run over which the rate rises linearly.
      warmup_start: rate at the first step, as a fraction of the peak.
      evaluations: how many times a run stops to evaluate, evenly spaced, the end included.
      checkpoints: how many checkpoints a run writes, evenly spaced, the end included.
      steps_per_loop: steps between two looks at the loss; 0 picks a hundredth of the run, 1 to 50.
    """

    epochs: float = 10.0
    learning_rate: float = 0.01
    base_batch: int = 8
    decay: str = "cosine"
    boundaries: list[float] = dataclasses.field(default_factory=lambda: [0.8, 0.93])
    factors: list[float] = dataclasses.field(default_factory=lambda: [0.1, 0.01])
    warmup: float = 0.05
    warmup_start: float = 0.1
    evaluations: int = 5
    checkpoints: int = 10
    steps_per_loop: int = 0


@dataclasses.dataclass
class Experiment(config_definitions.ExperimentConfig):
    """A tf-models experiment with a schedule and a seed.

    Attributes:
      schedule: see `Schedule`; `resolve` turns it into `trainer` values.
      seed: decides initial weights, the order of the data and every augmentation.
      deterministic: bit-identical repeats of a run on one machine; slower.
    """

    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    seed: int = 0
    deterministic: bool = False


def trainer_defaults() -> config_definitions.TrainerConfig:
    """Trainer settings in which 0 means "derive from the schedule"; best checkpoint kept apart."""
    return config_definitions.TrainerConfig(
        train_steps=0,
        steps_per_loop=0,
        summary_interval=0,
        validation_interval=0,
        checkpoint_interval=0,
        max_to_keep=3,
        best_checkpoint_export_subdir="best_ckpt",
        best_checkpoint_metric_comp="higher",
        recovery_max_trials=-1,  # a diverged run stops with a message instead of retrying in silence
        preemption_on_demand_checkpoint=False,  # SIGTERM is handled by the runner
        optimizer_config=optimization.OptimizationConfig(
            {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9, "global_clipnorm": 10.0}}}
        ),
    )


def resolve(experiment: Experiment, training_records: int) -> None:
    """Writes steps, intervals and the learning-rate schedule into `experiment.trainer`, in place.

    Raises:
      UserError: a value of the schedule that makes no run.
    """
    schedule, trainer = experiment.schedule, experiment.trainer
    batch = experiment.task.train_data.global_batch_size
    _check(schedule, batch)
    if trainer.train_steps == 0:
        trainer.train_steps = max(1, math.ceil(schedule.epochs * training_records / batch))
    steps = trainer.train_steps
    loop = schedule.steps_per_loop or trainer.steps_per_loop or min(50, max(1, steps // 100))
    trainer.steps_per_loop = min(loop, steps)
    trainer.summary_interval = trainer.summary_interval or trainer.steps_per_loop
    trainer.validation_interval = trainer.validation_interval or math.ceil(steps / schedule.evaluations)
    trainer.checkpoint_interval = trainer.checkpoint_interval or math.ceil(steps / schedule.checkpoints)
    optimizer = trainer.optimizer_config
    if optimizer.learning_rate.type is None:
        optimizer.override(learning_rate_config(schedule, batch, steps), is_strict=False)


def learning_rate_config(schedule: Schedule, batch: int, steps: int) -> dict:
    """The tf-models `learning_rate` and `warmup` sections for a run of `steps` at a global `batch`."""
    peak = schedule.learning_rate * batch / schedule.base_batch
    sections: dict[str, dict] = {
        "constant": {"learning_rate": peak},
        "cosine": {"initial_learning_rate": peak, "decay_steps": steps},
        "stepwise": {
            "boundaries": [max(1, round(fraction * steps)) for fraction in schedule.boundaries],
            "values": [peak, *(peak * factor for factor in schedule.factors)],
        },
    }
    config = {"learning_rate": {"type": schedule.decay, schedule.decay: sections[schedule.decay]}}
    warmup_steps = round(schedule.warmup * steps)
    if warmup_steps:
        linear = {"warmup_steps": warmup_steps, "warmup_learning_rate": peak * schedule.warmup_start}
        config["warmup"] = {"type": "linear", "linear": linear}
    return config


def _check(schedule: Schedule, batch: int) -> None:
    rules = [
        (batch >= 1, f"task.train_data.global_batch_size must be at least 1, found {batch}"),
        (schedule.base_batch >= 1, f"schedule.base_batch must be at least 1, found {schedule.base_batch}"),
        (schedule.epochs > 0, f"schedule.epochs must be positive, found {schedule.epochs}"),
        (
            schedule.learning_rate > 0,
            f"schedule.learning_rate must be positive, found {schedule.learning_rate}",
        ),
        (
            schedule.decay in ("constant", "cosine", "stepwise"),
            f"schedule.decay must be constant, cosine or stepwise, found '{schedule.decay}'",
        ),
        (
            len(schedule.boundaries) == len(schedule.factors),
            "schedule.boundaries and schedule.factors must have the same length",
        ),
        (0 <= schedule.warmup < 1, f"schedule.warmup is a fraction of the run, found {schedule.warmup}"),
        (
            min(schedule.evaluations, schedule.checkpoints) >= 1,
            "schedule.evaluations and .checkpoints start at 1",
        ),
        (
            schedule.steps_per_loop >= 0,
            f"schedule.steps_per_loop cannot be negative, found {schedule.steps_per_loop}",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise UserError(f"config: {message}.")
