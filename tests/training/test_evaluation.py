"""What an evaluation measures and writes, and that a kill does not cost a run one of its own."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import commands
import pytest
import sets
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
# The lowest PSNR counts as best, so that best and last are two checkpoints of a run that learns.
TRAINER = {"train_steps": 40, "steps_per_loop": 10, "best_checkpoint_metric_comp": "lower"}
SCHEDULE = {"evaluations": 2, "checkpoints": 2, "learning_rate": 0.01, "decay": "constant"}
# `python -m training.train`, killed where it first comes to a method of the class that keeps the best.
KILLED = """
import os, signal, sys
from training import runner, train
setattr(runner._BestCheckpoints, sys.argv.pop(1), lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
train.main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sets.of_sixteen_writers(tmp_path_factory.mktemp("signatures") / "set")


def training(data, model_dir):
    task = {
        "train_data": {"input_path": f"{data}/train*"},
        "validation_data": {"input_path": f"{data}/eval*"},
    }
    override = {"task": task, "trainer": TRAINER, "schedule": SCHEDULE}
    return [
        *(
            "--experiment=cleaner_unet",
            "--config_file=configs/cleaner/smoke.yaml",
            f"--model_dir={model_dir}",
        ),
        *("--device=cpu", f"--params_override={json.dumps(override)}"),
    ]


def train(data, model_dir):
    commands.run("training.train", *training(data, model_dir), timeout=400)


def evaluate(model_dir, *options, code=0, **task):
    """`--mode=eval` with the run's own config, but for keys of `task`."""
    arguments = ["--experiment=cleaner_unet", "--mode=eval", f"--model_dir={model_dir}", "--device=cpu"]
    arguments.append(f"--params_override={json.dumps({'task': task})}")
    return commands.run("training.train", *arguments, *options, code=code, timeout=400)


def lines(path, phase):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if line["phase"] == phase]


def best_step(model_dir):
    """Step of the best checkpoint, and the one that its figures name."""
    checkpoint = tf.train.latest_checkpoint(str(model_dir / "best_ckpt"))
    step = tf.train.load_variable(checkpoint, "global_step/.ATTRIBUTES/VARIABLE_VALUE")
    return step, json.loads((model_dir / "best_ckpt" / "info.json").read_text())["best_ckpt_global_step"]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of 40 steps with evaluations at 20, the best by its config, and at 40; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(data, folder)
    assert [line["step"] for line in lines(folder / "metrics.jsonl", "eval")] == [20, 40]
    assert best_step(folder) == (20, 20)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "run"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_measuring_a_run_on_other_data_changes_nothing_of_it(run, data):
    before = contents(run)
    done = evaluate(run, validation_data={"input_path": f"{data}/train*"})
    after = contents(run)
    (line,) = lines(run / "measured.jsonl", "measured")
    assert after.pop(run / "measured.jsonl")
    assert after == before
    assert line["data"]["input_path"] == f"{data}/train*"
    assert line["data"]["records"] == 12
    assert line["psnr"] != pytest.approx(lines(run / "metrics.jsonl", "eval")[0]["psnr"], rel=1e-3)
    assert f"{line['checkpoint']}, step 20: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("options", "step"), [([], 20), (["--checkpoint=last"], 40)])
def test_the_best_checkpoint_is_measured_or_the_last(run, options, step):
    evaluate(run, *options)
    (line,) = lines(run / "measured.jsonl", "measured")
    (known,) = [line for line in lines(run / "metrics.jsonl", "eval") if line["step"] == step]
    assert line["step"] == step
    assert pathlib.Path(line["checkpoint"]).parent == (run / "best_ckpt" if step == 20 else run)
    for figure in ("psnr", "ssim", "ink_f1"):
        assert line[figure] == pytest.approx(known[figure], rel=1e-5)


@pytest.mark.slow
def test_weights_that_a_config_names_are_measured(whole, data, tmp_path):
    validation = {"input_path": f"{data}/eval*"}
    options = ["--config_file=configs/cleaner/smoke.yaml"]
    evaluate(tmp_path / "bare", *options, init_checkpoint=str(whole), validation_data=validation)
    (line,) = lines(tmp_path / "bare" / "measured.jsonl", "measured")
    assert (line["checkpoint"], line["step"]) == (str(whole), 0)
    assert line["psnr"] == pytest.approx(lines(whole / "metrics.jsonl", "eval")[-1]["psnr"], rel=1e-5)
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["measured.jsonl"]


@pytest.mark.parametrize("weights", ["", "empty"])
def test_random_weights_are_not_measured(tmp_path, weights):
    (tmp_path / "empty").mkdir()
    named = str(tmp_path / weights) if weights else ""
    done = evaluate(tmp_path / "run", code=2, init_checkpoint=named)
    assert "Traceback" not in done.stderr
    said = done.stderr[done.stderr.index("error:") :]
    assert (
        f"task.init_checkpoint {named}: no checkpoint" in said if weights else str(tmp_path / "run") in said
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("weights", ["empty", "missing/ckpt-3"])
def test_no_training_starts_from_weights_that_are_not_there(tmp_path, weights):
    (tmp_path / "empty").mkdir()
    task = {"init_checkpoint": str(tmp_path / weights)}
    options = ["--experiment=cleaner_unet", f"--model_dir={tmp_path / 'run'}", "--device=cpu"]
    done = commands.run("training.train", *options, f"--params_override={json.dumps({'task': task})}", code=2)
    assert f"task.init_checkpoint {tmp_path / weights}: no checkpoint there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_of_another_network_are_said(run, data, tmp_path):
    task = {"model": {"filters": [16, 8]}, "validation_data": {"input_path": f"{data}/eval*"}}
    done = evaluate(tmp_path / "new", code=2, init_checkpoint=str(run), **task)
    assert "task.init_checkpoint does not fit the model" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_of_another_experiment_is_not_measured(run):
    before = contents(run)
    done = evaluate(run, "--experiment=cleaner_autoencoder", code=2)
    assert "holds a run of cleaner_unet, not cleaner_autoencoder" in done.stderr
    assert contents(run) == before


def test_a_training_takes_no_choice_of_checkpoint(tmp_path):
    options = ["--experiment=cleaner_unet", f"--model_dir={tmp_path}", "--checkpoint=best"]
    assert "--checkpoint belongs to --mode=eval" in commands.run("training.train", *options, code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["_get_checkpoint_manager", "export_best_eval_metric"])
def test_a_run_killed_in_an_evaluation_repeats_it(whole, data, tmp_path, place):
    """Before the best checkpoint is written, and between it and its figures."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, place, *training(data, tmp_path / "run")]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert not lines(tmp_path / "run" / "metrics.jsonl", "eval")
    train(data, tmp_path / "run")
    found = lines(tmp_path / "run" / "metrics.jsonl", "eval")
    assert [line["step"] for line in found] == [20, 40]
    assert found[0]["psnr"] == pytest.approx(lines(whole / "metrics.jsonl", "eval")[0]["psnr"], rel=1e-3)
    assert best_step(tmp_path / "run") == (20, 20)


@pytest.mark.slow
def test_a_run_stopped_after_an_evaluation_does_not_repeat_it(run, data):
    metrics = run / "metrics.jsonl"
    (first, second) = lines(metrics, "eval")
    finished = metrics.read_bytes()
    train(data, run)
    assert metrics.read_bytes() == finished
    # As after a stop at step 20.
    (run / "checkpoint").write_text('model_checkpoint_path: "ckpt-20"\n')
    train(data, run)
    found = lines(metrics, "eval")
    assert found[0] == first
    assert [line["step"] for line in found] == [20, 40]
    assert found[1]["time"] > second["time"]
