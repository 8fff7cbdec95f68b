"""Configs are strict: a wrong key, a wrong type or a value that makes no run is said in two lines."""

import pathlib

import pytest

from training import config
from training.errors import UserError
from training.experiment import resolve

NAME = "retinanet_signverod"
CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "detector"


@pytest.mark.parametrize("name", ["cpu", "smoke", "1hpu", "8hpu"])
def test_shipped_configs_load_and_make_a_task(name):
    experiment = config.load(NAME, [str(CONFIGS / f"{name}.yaml")])
    resolve(experiment, training_records=2_100)
    assert experiment.trainer.train_steps > 0
    assert config.build_task(NAME, experiment).task_config.model.num_classes == 5


@pytest.mark.parametrize(("name", "steps", "peak"), [("1hpu", 10_500, 0.01), ("8hpu", 1_313, 0.08)])
def test_gaudi_configs_scale_rate_and_steps_with_the_batch(name, steps, peak):
    experiment = config.load(NAME, [str(CONFIGS / f"{name}.yaml")])
    resolve(experiment, training_records=2_100)
    assert experiment.trainer.train_steps == steps
    schedule = experiment.trainer.optimizer_config.learning_rate.stepwise
    assert schedule.values[0] == pytest.approx(peak)
    assert schedule.boundaries[0] / steps == pytest.approx(26334 / 33264, abs=1e-3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("{trainer: {trian_steps: 3}}", ["trainer.trian_steps", "train_steps"]),
        ("{task: {model: {inputsize: [64, 64, 3]}}}", ["task.model.inputsize", "input_size"]),
        ("{schedule: {learning_rate: 1e-4}}", ["schedule.learning_rate", "float", "1.0e-04"]),
        ("{schedule: {decay: off}}", ["schedule.decay", "bool"]),
        ("{trainer: {train_steps: true}}", ["trainer.train_steps", "int"]),
        ("{task: {train_data: {global_batch_size: 8.5}}}", ["global_batch_size", "8.5"]),
        ("{task: {class_names: signature}}", ["task.class_names", "list"]),
        ("{task: [1", ["not YAML"]),
        ("just words", ["expected `key: value`"]),
    ],
)
def test_bad_overrides_are_named(override, words):
    with pytest.raises(UserError) as error:
        config.load(NAME, overrides=override)
    for word in words:
        assert word in str(error.value)


def test_unknown_experiment_names_the_nearest():
    with pytest.raises(UserError, match="retinanet_signverod"):
        config.load("retinanet_signver")


def test_base_is_applied_first_and_a_loop_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("schedule: {epochs: 3.0, warmup: 0.2}")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nschedule: {epochs: 5.0}")
    schedule = config.load(NAME, [str(tmp_path / "b.yaml")]).schedule
    assert (schedule.epochs, schedule.warmup) == (5.0, 0.2)
    (tmp_path / "a.yaml").write_text("base: b.yaml")
    with pytest.raises(UserError, match="comes back to itself"):
        config.load(NAME, [str(tmp_path / "b.yaml")])


def test_a_saved_config_loads_back_unchanged(tmp_path):
    experiment = config.load(NAME, [str(CONFIGS / "cpu.yaml")])
    resolve(experiment, training_records=500)
    config.save(experiment, tmp_path / "params.yaml")
    assert config.load(NAME, [str(tmp_path / "params.yaml")]).as_dict() == experiment.as_dict()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("{task: {model: {input_size: [500, 512, 3]}}}", "multiples of 128"),
        ("{task: {model: {input_size: [512, 512]}}}", "height, width, 3"),
        ("{task: {model: {num_classes: 3}}}", "num_classes is 3"),
    ],
)
def test_a_model_that_cannot_be_is_refused(override, word):
    with pytest.raises(UserError, match=word):
        config.build_task(NAME, config.load(NAME, overrides=override))


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("{schedule: {epochs: 0.0}}", "epochs"),
        ("{schedule: {decay: linear}}", "cosine"),
        ("{schedule: {warmup: 1.5}}", "warmup"),
        ("{task: {train_data: {global_batch_size: 0}}}", "global_batch_size"),
        ("{schedule: {boundaries: [0.5]}}", "same length"),
        ("{schedule: {base_batch: 0}}", "base_batch"),
        ("{schedule: {steps_per_loop: -1}}", "steps_per_loop"),
    ],
)
def test_a_schedule_that_makes_no_run_is_refused(override, word):
    with pytest.raises(UserError, match=word):
        resolve(config.load(NAME, overrides=override), training_records=100)


def test_overrides_add_up_and_the_last_one_wins():
    found = config.load(NAME, overrides=["{seed: 3, schedule: {epochs: 2.0}}", "{seed: 4}"])
    assert (found.seed, found.schedule.epochs) == (4, 2.0)


def test_explicit_steps_win_over_epochs():
    experiment = config.load(NAME, overrides="{trainer: {train_steps: 7}, schedule: {epochs: 100.0}}")
    resolve(experiment, training_records=1_000)
    assert experiment.trainer.train_steps == 7
