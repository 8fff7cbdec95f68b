"""The one run loop for every model: tf-models' Orbit runner plus what a paid run needs.

Added here: resume at the exact step, SIGTERM that saves, a stop on NaN, `metrics.jsonl`, `run.json`,
a progress bar, and the gate that lets the chief alone write (under Horovod every process believes
that it should). Mode "eval" measures a run and changes nothing of it: it adds a line to `measured.jsonl`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import orbit
import tensorflow as tf
from official.core import base_trainer, train_lib, train_utils
from official.modeling import optimization
from tqdm import tqdm

from training import config, device, distribution, heartbeat, record
from training.data import records
from training.errors import UserError
from training.experiment import Experiment, resolve

# Figures that the line after an evaluation shows; metrics.jsonl holds all.
_SHOWN = ("AP", "AP50", "psnr", "ssim", "ink_f1", "ink_f1_untouched", "eer_skilled", "eer_random")


class TrainingDivergedError(UserError):
    """The loss is NaN, infinite or beyond `trainer.loss_upper_bound`."""

    exit_code = 1
    status = "diverged"


class PreemptedError(Exception):
    """SIGTERM arrived; the state is saved."""

    status = "saved"


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A trained model, rebuilt from its model_dir.

    Attributes:
      experiment: name in `training.config.EXPERIMENTS`.
      params: the resolved config.
      task: the tf-models task.
      model: Keras model with restored weights.
      checkpoint: path prefix of the checkpoint.
    """

    experiment: str
    params: Experiment
    task: Any
    model: tf.keras.Model
    checkpoint: str

    @property
    def step(self) -> int:
        """Training step that the checkpoint was saved at."""
        return _step_of(self.checkpoint)

    @property
    def model_dir(self) -> pathlib.Path:
        """Folder of the run; the best checkpoint has one of its own in it."""
        folder = pathlib.Path(self.checkpoint).parent
        return folder if (folder / "run.json").exists() else folder.parent


def load_model(model_dir: str | os.PathLike[str], checkpoint: str = "best") -> LoadedModel:
    """Rebuilds a model from the config recorded with it and restores its weights, in float32.

    Args:
      model_dir: folder of a run.
      checkpoint: "best" (by the experiment's metric; the last one where none was kept) or "last".

    Raises:
      UserError: no such run, no checkpoint, or one that does not fit the config.
    """
    folder = pathlib.Path(model_dir)
    run = record.read(folder)
    params = config.load(run["experiment"], [str(folder / "params.yaml")])
    path = _checkpoint_path(folder, params, checkpoint)
    device.set_precision("float32")
    task = config.build_task(run["experiment"], params)
    model = task.build_model()
    try:
        status = tf.train.Checkpoint(model=model).read(path)
        status.expect_partial().assert_existing_objects_matched()
    # ValueError: another shape.
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"{path} does not fit the model of {folder / 'params.yaml'}: {_first_line(error)}. Was it made "
            "by another version?"
        ) from error
    return LoadedModel(run["experiment"], params, task, model, path)


def run(
    name: str,
    experiment: Experiment,
    mode: str,
    model_dir: str | os.PathLike[str],
    device_name: str = "auto",
    checkpoint: str = "best",
) -> dict[str, float]:
    """Trains, evaluates, or both, until done, preempted or diverged; continues what `model_dir` holds.

    Args:
      name: of the experiment.
      experiment: its config.
      mode: train, eval or train_and_eval.
      model_dir: folder of the run.
      device_name: auto, cpu, gpu or hpu.
      checkpoint: what mode "eval" measures, see `load_model`; where the folder holds none, the weights of
        `task.init_checkpoint`.

    Returns:
      The last evaluation's figures; empty for mode "train".

    Raises:
      UserError: a mistake in config, data or folder; `TrainingDivergedError` for a lost run.
      PreemptedError: SIGTERM arrived and the state was saved.
    """
    folder = pathlib.Path(model_dir)
    device.expect_idle_weights()
    # Habana's module is loaded before Horovod starts (Model-References, example_hvd.py).
    chosen = device.choose(device_name, experiment.runtime.mixed_precision_dtype or "float32")
    distribution.init()
    if chosen.kind == "hpu":
        if distribution.local_rank() == 0:
            device.clear_recipe_cache()
        distribution.barrier()
    measured = _starting_point(folder, name, experiment, mode, checkpoint)
    experiment.runtime.mixed_precision_dtype = chosen.precision
    tf.keras.utils.set_random_seed(experiment.seed)
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    device.set_precision(chosen.precision)
    task = config.build_task(name, experiment)
    data = _index(experiment, mode)
    _make_folder(folder)
    if distribution.is_chief():
        if mode != "eval":
            config.save(experiment, folder / "params.yaml")
            record.start(folder, name, mode, experiment, chosen, data)
        print(f"{chosen.reason}; {_describe(experiment, data)}", flush=True)
    with contextlib.ExitStack() as guards:
        place = (folder, distribution.rank(), distribution.size())
        guards.enter_context(heartbeat.watch(*place))
        guards.enter_context(heartbeat.name_lost_ranks(*place))
        guards.enter_context(_write_errors_named(folder))
        ended = guards.enter_context(_end_recorded(folder, mode))
        walk = guards.enter_context(_Run(task, experiment, mode, folder, chosen, measured))
        ended.update(walk.measure(data["validation"]) if mode == "eval" else walk.run())
    return ended


@contextlib.contextmanager
def _end_recorded(folder: pathlib.Path, mode: str) -> Iterator[dict[str, float]]:
    """Writes into `run.json` how a training ended, and its figures, which the block adds to what this yields.

    A training that was killed stays "running".
    """
    figures: dict[str, float] = {}
    told = distribution.is_chief() and mode != "eval"
    try:
        yield figures
    except Exception as error:
        # What stopped the training may be that nothing can be written.
        with contextlib.suppress(UserError):
            if told:
                record.finish(folder, getattr(error, "status", "failed"), {})
        raise
    if told:
        record.finish(folder, "done", figures)


class _Run(contextlib.AbstractContextManager):
    """One call of `run`: owns the SIGTERM handler, the progress bar and the metrics file."""

    def __init__(
        self,
        task: Any,
        experiment: Experiment,
        mode: str,
        folder: pathlib.Path,
        chosen: device.Device,
        measured: str | None = None,
    ):
        self._experiment = experiment
        self._trainer_config = experiment.trainer
        self._mode = mode
        self._folder = folder
        self._terminated = False
        first_step = distribution.of_chief(_saved_step(folder)) if "train" in mode else 0
        self._metrics = record.MetricsFile(folder / "metrics.jsonl", first_step if "train" in mode else None)
        self._measured = measured
        source = os.path.dirname(measured) if measured else str(folder)
        self._runner = _build_runner(
            task, experiment, mode, folder, chosen, first_step, [self._after_loop], source
        )
        self._bar: tqdm | None = None
        self._loop_start = (time.monotonic(), first_step)

    def __enter__(self) -> _Run:
        # mpirun answers SIGTERM by killing its job; SIGUSR1 it hands on, which the launch script uses.
        self._previous = {
            number: signal.signal(number, self._on_sigterm) for number in (signal.SIGTERM, signal.SIGUSR1)
        }
        return self

    def __exit__(self, *details: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._bar is not None:
            self._bar.close()
        # The input runs ahead in threads that call Python. A Python that ends first never answers them, while
        # it waits for their end: the process would hang when all is done.
        if "train" in self._mode:
            del self._runner.trainer._train_iter
            gc.collect()

    def run(self) -> dict[str, float]:
        """Walks from one evaluation to the next; the steps are those of an uninterrupted run."""
        controller, steps = self._runner.controller, self._trainer_config.train_steps
        interval = self._trainer_config.validation_interval
        step = self._step()
        self._open_bar(step, steps)
        distribution.broadcast(self._runner.trainer.model.variables)
        result = self._evaluation_due(step)
        while step < steps:
            target = min(steps, (step // interval + 1) * interval)
            self._loop_start = (time.monotonic(), step)
            with _quiet():
                controller.train(steps=target, checkpoint_at_completion=False)
            step = self._step()
            self._save(step)
            if "eval" in self._mode:
                result = self._evaluate()
        return result

    def measure(self, index: records.RecordIndex) -> dict[str, float]:
        """Evaluates once and adds the figures to `measured.jsonl`, with what was measured and on what."""
        values = self._figures()
        if distribution.is_chief():
            task, step = self._experiment.task, self._step()
            source = self._measured or task.init_checkpoint
            data = {"input_path": task.validation_data.input_path, **record.describe(index)}
            file = record.MetricsFile(self._folder / "measured.jsonl")
            file.write("measured", step, values, checkpoint=source, data=data)
            _show(f"{source}, step {step}", values)
        return values

    def _evaluation_due(self, step: int) -> dict[str, float]:
        """Figures at the step where a run begins or goes on; measured now where it ended before they were."""
        due = step >= self._trainer_config.train_steps or (
            step and step % self._trainer_config.validation_interval == 0
        )
        if "eval" not in self._mode or not due:
            return {}
        # The chief's word: ranks that disagreed would wait for each other.
        return distribution.of_chief(self._metrics.last("eval", step)) or self._evaluate()

    def _after_loop(self, logs: dict[str, Any]) -> None:
        """Orbit calls this after each `steps_per_loop` steps, before it may write a checkpoint."""
        step = self._step()
        values = _numbers(logs)
        distribution.average_variables(self._runner.trainer.model.non_trainable_variables)
        seconds, first = time.monotonic() - self._loop_start[0], self._loop_start[1]
        images = (step - first) * self._experiment.task.train_data.global_batch_size
        values["images_per_second"] = images / seconds if seconds > 0 else 0.0
        self._stop_if_diverged(values["training_loss"], first, step)
        if distribution.is_chief():
            self._metrics.write("train", step, values)
            if self._bar is not None:
                self._bar.set_postfix_str(
                    f"loss {values['training_loss']:.3g}, {values['images_per_second']:.1f} images/s"
                )
                self._bar.update(step - self._bar.n)
        if distribution.any_process(self._terminated):
            self._save(step)
            raise PreemptedError(
                f"SIGTERM: saved step {step} of {self._trainer_config.train_steps} in {self._folder}; "
                "the same command continues there."
            )
        self._loop_start = (time.monotonic(), step)

    def _evaluate(self) -> dict[str, float]:
        values = self._figures()
        if distribution.is_chief():
            self._metrics.write("eval", self._step(), values)
            _show(f"step {self._step()}", values)
        return values

    def _figures(self) -> dict[str, float]:
        with _quiet():
            logs = self._runner.controller.evaluate(steps=self._trainer_config.validation_steps)
        # AP and its kind are computed over all ranks already; a loss is each rank's own.
        parts = distribution.gather(_numbers(logs))
        return {key: statistics.fmean(part[key] for part in parts if key in part) for key in parts[0]}

    def _stop_if_diverged(self, loss: float, first: int, last: int) -> None:
        bound = self._trainer_config.loss_upper_bound
        if math.isfinite(loss) and loss <= bound:
            return
        good = tf.train.latest_checkpoint(str(self._folder))
        raise TrainingDivergedError(
            f"training diverged: loss {loss} between steps {first + 1} and {last} (bound {bound:g}).\n"
            f"Last good checkpoint: {good}. Lower schedule.learning_rate or raise schedule.warmup."
        )

    def _save(self, step: int) -> None:
        with _quiet():
            self._runner.checkpoint_manager.save(checkpoint_number=step, check_interval=False)

    def _step(self) -> int:
        return int(self._runner.trainer.global_step.numpy())

    def _on_sigterm(self, *_: Any) -> None:
        self._terminated = True

    def _open_bar(self, step: int, steps: int) -> None:
        if not distribution.is_chief():
            return
        if step:
            print(f"continuing {self._folder} at step {step} of {steps}", flush=True)
        # Where nobody watches (a log file, CI) one line a minute says enough.
        interval = 0.5 if sys.stderr.isatty() else 60
        self._bar = tqdm(total=steps, initial=step, unit="step", desc="train", mininterval=interval)


def _show(subject: str, values: dict[str, float]) -> None:
    shown = {key: values[key] for key in values if key in _SHOWN or key.startswith("AP50/")}
    text = ", ".join(f"{key} {value:.3f}" for key, value in (shown or values).items())
    tqdm.write(f"{subject}: {text}", file=sys.stderr)


def _build_runner(
    task: Any,
    experiment: Experiment,
    mode: str,
    folder: pathlib.Path,
    chosen: device.Device,
    first_step: int,
    train_actions: list[Any],
    source: str,
) -> train_lib.OrbitExperimentRunner:
    with tf.device(chosen.name) if chosen.kind != "cpu" else contextlib.nullcontext():
        context = tf.distribute.InputContext(distribution.size(), distribution.rank())
        train, evaluate = "train" in mode, "eval" in mode
        model = task.build_model()
        trainer = base_trainer.Trainer(
            experiment,
            task,
            model=model,
            # Evaluation restores no optimizer, but tf-models puts one into every checkpoint.
            optimizer=build_optimizer(experiment, model) if train else tf.Module(),
            train=train,
            evaluate=evaluate,
            train_dataset=device.prefetch(
                task.build_inputs(
                    experiment.task.train_data, context, seed=experiment.seed, first_step=first_step
                ),
                chosen,
            )
            if train
            else None,
            validation_dataset=device.prefetch(
                task.build_inputs(experiment.task.validation_data, context), chosen
            )
            if evaluate
            else None,
            checkpoint_exporter=_best_checkpoints(experiment, folder)
            if train and evaluate and distribution.is_chief()
            else None,
        )
        return _Runner(trainer, experiment, mode, folder, task, train_actions, source)


class _Runner(train_lib.OrbitExperimentRunner):
    """The stock runner with checkpoints and summaries from the chief alone."""

    def __init__(
        self,
        trainer: base_trainer.Trainer,
        experiment: Experiment,
        mode: str,
        folder: pathlib.Path,
        task: Any,
        train_actions: list[Any],
        source: str,
    ):
        self._source = source
        with _quiet():
            super().__init__(
                tf.distribute.get_strategy(),
                task,
                mode,
                experiment,
                str(folder),
                # TensorBoard shows the run, not what else was measured of it.
                save_summary=distribution.is_chief() and mode != "eval",
                train_actions=train_actions,
                trainer=trainer,
            )

    def _maybe_build_checkpoint_manager(self) -> tf.train.CheckpointManager:
        if "train" not in self._mode:
            return _ReadOnlyCheckpoints(
                self.trainer.checkpoint, self._source, init_fn=self.trainer.initialize
            )
        # Every rank restores from the model_dir; only the chief's manager writes there.
        manager = _Checkpoints if distribution.is_chief() else _ReadOnlyCheckpoints
        return manager(
            self.trainer.checkpoint,
            directory=self.model_dir,
            max_to_keep=self.params.trainer.max_to_keep,
            step_counter=self.trainer.global_step,
            checkpoint_interval=self.params.trainer.checkpoint_interval,
            init_fn=self.trainer.initialize,
        )


class _Checkpoints(tf.train.CheckpointManager):
    """The stock manager, which says what is wrong with a checkpoint of another network."""

    def restore_or_initialize(self) -> str | None:
        """Restores the latest checkpoint, or what `task.init_checkpoint` names."""
        path = self.latest_checkpoint
        try:
            return super().restore_or_initialize() if path is None else self._restore(path)
        except ValueError as error:
            if path is None:
                raise UserError(
                    f"task.init_checkpoint does not fit the model of this config: {_first_line(error)}."
                ) from error
            raise UserError(
                f"{path} does not fit the model of this version: {_first_line(error)}. Name another "
                "--model_dir, or go on with the version that it was trained by."
            ) from error

    def _restore(self, _: str) -> str | None:
        return super().restore_or_initialize()


class _ReadOnlyCheckpoints(_Checkpoints):
    """Restores like any manager and never writes."""

    def __init__(self, checkpoint: tf.train.Checkpoint, directory: str, **options: Any):
        super().__init__(checkpoint, directory, **{"max_to_keep": None, **options})

    def save(self, *_: Any, **__: Any) -> None:
        """Writes nothing."""

    def _restore(self, path: str) -> str | None:
        """Objects that exist here; evaluation has no optimizer."""
        self.checkpoint.restore(path).expect_partial()
        return path


class _BestCheckpoints(train_utils.BestCheckpointExporter):
    """The stock exporter, which writes the best figures after the checkpoint that has them.

    With the figures first, a run killed between the two would find its best model no better than they are
    when it repeats the evaluation, and never keep it.
    """

    def maybe_export_checkpoint(
        self,
        checkpoint: tf.train.Checkpoint,
        eval_logs: dict[str, Any],
        global_step: int,
        write_logs: bool = True,
    ) -> bool:
        """Keeps the checkpoint if its figures are the best so far; returns whether they are."""
        better = super().maybe_export_checkpoint(checkpoint, eval_logs, global_step, write_logs=False)
        if better and write_logs:
            self.export_best_eval_metric(eval_logs, global_step)
        return better


def _best_checkpoints(experiment: Experiment, folder: pathlib.Path) -> _BestCheckpoints | None:
    trainer = experiment.trainer
    subdir, metric = trainer.best_checkpoint_export_subdir, trainer.best_checkpoint_eval_metric
    if not (subdir and metric):
        return None
    return _BestCheckpoints(str(folder / subdir), metric, trainer.best_checkpoint_metric_comp)


def build_optimizer(experiment: Experiment, model: tf.keras.Model) -> tf.keras.optimizers.Optimizer:
    """The optimizer of a resolved experiment; averages gradients over all processes."""
    factory = optimization.OptimizerFactory(experiment.trainer.optimizer_config)
    optimizer = factory.build_optimizer(
        factory.build_learning_rate(), gradient_aggregator=distribution.average_gradients
    )
    # A function that makes variables while it is traced is traced twice, which takes seconds.
    optimizer._create_all_weights(model.trainable_variables)
    return optimizer


def _splits(mode: str) -> list[str]:
    return [split for split, word in (("train", "train"), ("validation", "eval")) if word in mode]


def _index(experiment: Experiment, mode: str) -> dict[str, records.RecordIndex]:
    """The data of a mode; settles what the config leaves to the number of training records."""
    data = {
        split: records.index_records(getattr(experiment.task, f"{split}_data").input_path)
        for split in _splits(mode)
    }
    if "train" in data:
        resolve(experiment, len(data["train"]))
    if "validation" in data and len(data["validation"]) < distribution.size():
        count = len(data["validation"])
        raise UserError(
            f"{count} validation images for {distribution.size()} processes; each needs one: "
            "take more images or fewer processes."
        )
    return data


def _saved_step(folder: pathlib.Path) -> int:
    latest = tf.train.latest_checkpoint(str(folder))
    return 0 if latest is None else _step_of(latest)


def _step_of(checkpoint: str) -> int:
    return int(tf.train.load_variable(checkpoint, "global_step/.ATTRIBUTES/VARIABLE_VALUE"))


def _starting_point(
    folder: pathlib.Path, name: str, experiment: Experiment, mode: str, checkpoint: str
) -> str | None:
    """What mode "eval" measures, see `_measured`; a training begins where its folder or config says: None."""
    if mode == "eval":
        return _measured(folder, name, experiment, checkpoint)
    if experiment.task.init_checkpoint and not _saved_step(folder):
        _require_weights(experiment.task.init_checkpoint)
    return None


def _measured(folder: pathlib.Path, name: str, experiment: Experiment, checkpoint: str) -> str | None:
    """The checkpoint that mode "eval" measures; None for the weights of `task.init_checkpoint`.

    Raises:
      UserError: neither is there, so that random weights would be measured; or another experiment's run.
    """
    record.check(folder, name)
    path = distribution.of_chief(_find_checkpoint(folder, experiment, checkpoint))
    weights = experiment.task.init_checkpoint
    if path is None and not weights:
        raise UserError(
            f"--model_dir {folder}: no checkpoint to evaluate. Train first, or name weights with "
            "--params_override='{task: {init_checkpoint: FOLDER}}'."
        )
    if path is None:
        _require_weights(weights)
    return path


def _require_weights(weights: str) -> None:
    """Refuses what `task.init_checkpoint` names where nothing is: the stock task would start from chance."""
    found = tf.train.latest_checkpoint(weights) if tf.io.gfile.isdir(weights) else weights
    if found is None or not tf.io.gfile.exists(f"{found}.index"):
        raise UserError(f"task.init_checkpoint {weights}: no checkpoint there.")


def _checkpoint_path(folder: pathlib.Path, params: Experiment, checkpoint: str) -> str:
    path = _find_checkpoint(folder, params, checkpoint)
    if path is None:
        raise UserError(
            f"{folder}: no checkpoint; train first (python -m training.train --model_dir={folder} ...)."
        )
    return path


def _find_checkpoint(folder: pathlib.Path, params: Experiment, checkpoint: str) -> str | None:
    best = folder / (params.trainer.best_checkpoint_export_subdir or "best_ckpt")
    candidates = {"best": [best, folder], "last": [folder]}
    if checkpoint not in candidates:
        raise UserError(f"checkpoint '{checkpoint}': choose best or last.")
    for candidate in candidates[checkpoint]:
        if (path := tf.train.latest_checkpoint(str(candidate))) is not None:
            return path
    return None


def _make_folder(folder: pathlib.Path) -> None:
    """Makes the folder, and sees that all processes see the same one: checkpoints are read by all."""
    token = folder / f".shared-{distribution.of_chief(os.getpid())}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if distribution.is_chief():
            token.touch()
    except OSError as error:
        raise UserError(
            f"--model_dir {folder}: cannot write there ({error.strerror}). Choose a folder that you own."
        ) from error
    distribution.barrier()
    seen = distribution.gather(token.exists())
    if distribution.is_chief():
        token.unlink(missing_ok=True)
    if not all(seen):
        blind = ", ".join(str(rank) for rank, sees in enumerate(seen) if not sees)
        raise UserError(
            f"--model_dir {folder}: ranks {blind} see another folder than the chief.\n"
            "On several hosts it must lie on a disk that all of them share, under the same path."
        )


@contextlib.contextmanager
def _write_errors_named(folder: pathlib.Path) -> Iterator[None]:
    """A full disk or a folder that vanished is the user's to mend, wherever TensorFlow met it."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        text = str(error)
        if "No space left" in text or "Disk quota" in text or isinstance(error, PermissionError):
            raise UserError(
                f"cannot write to {folder}: {_first_line(error)}\n"
                "Free some space and repeat the command; it continues at the last checkpoint."
            ) from error
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbit prints to standard output on its own; the progress bar and metrics.jsonl say the same."""
    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):
        yield


def _numbers(logs: dict[str, Any] | None) -> dict[str, float]:
    """The scalar figures of a log, as floats; nested and non-scalar entries are left out."""
    flat = {
        key: orbit.utils.get_value(value)
        for key, value in (logs or {}).items()
        if not isinstance(value, dict)
    }
    return {key: float(value) for key, value in flat.items() if getattr(value, "size", 1) == 1}


def _describe(experiment: Experiment, data: dict[str, records.RecordIndex]) -> str:
    counts = ", ".join(f"{len(index)} {split} images" for split, index in data.items())
    steps, batch = experiment.trainer.train_steps, experiment.task.train_data.global_batch_size
    run_length = f"; {steps} steps of batch {batch}" if "train" in data else ""
    return f"{counts}{run_length}; {distribution.size()} process(es)"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
