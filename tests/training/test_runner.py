"""Real small trainings: they learn, resume to the bit, stop cleanly, and say what is wrong."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import commands
import cv2
import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {
    "task": {
        "class_names": ["signature"],
        "model": {"num_classes": 2, "input_size": [128, 128, 3]},
        "train_data": {"global_batch_size": 4},
        "validation_data": {"global_batch_size": 4},
    },
    "runtime": {"mixed_precision_dtype": "float32"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve pages with one scribble each, as TFRecords."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("eval", 4)):
        with tf.io.TFRecordWriter(str(folder / f"{split}-00000-of-00001.tfrecord")) as writer:
            for number in range(count):
                writer.write(_example(rng, number))
    return folder


def _example(rng, number):
    image = np.full((128, 128, 3), 255, np.uint8)
    y, x = rng.integers(5, 90), rng.integers(5, 50)
    points = np.stack([np.linspace(x, x + 70, 30), y + 12 + 12 * np.sin(np.arange(30))], -1)
    cv2.polylines(image, [points.astype(np.int32)], False, (0, 0, 0), 2)
    features = {
        "image/encoded": [cv2.imencode(".png", image)[1].tobytes()],
        "image/source_id": [str(number).encode()],
        "image/object/bbox/ymin": [y / 128],
        "image/object/bbox/xmin": [x / 128],
        "image/object/bbox/ymax": [(y + 24) / 128],
        "image/object/bbox/xmax": [(x + 70) / 128],
    }
    integers = {"image/height": [128], "image/width": [128], "image/object/class/label": [1]}
    feature = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        if isinstance(value[0], bytes)
        else tf.train.Feature(float_list=tf.train.FloatList(value=value))
        for key, value in features.items()
    }
    for key, value in integers.items():
        feature[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _command(data, model_dir, mode="train", **sections):
    override = json.loads(json.dumps(SMALL))
    override["task"]["train_data"]["input_path"] = f"{data}/train*"
    override["task"]["validation_data"]["input_path"] = f"{data}/eval*"
    for section, values in sections.items():
        if isinstance(values, dict):
            override.setdefault(section, {}).update(values)
        else:
            override[section] = values
    return [
        sys.executable,
        *("-m", "training.train", "--experiment=retinanet_signverod", f"--mode={mode}"),
        *(f"--model_dir={model_dir}", "--config_file=configs/detector/smoke.yaml"),
        f"--params_override={json.dumps(override)}",
    ]


def _run(*arguments, **sections):
    return commands.run(*_command(*arguments, **sections)[2:], code=None, timeout=400)


def _lines(model_dir, phase="train"):
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["phase"] == phase]


def _weights(model_dir):
    reader = tf.train.load_checkpoint(str(model_dir))
    return {
        key: reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(("model/", "optimizer/")) and key.endswith("VARIABLE_VALUE")
    }


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """40 deterministic steps in one go."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = _run(data, folder, "train_and_eval", deterministic=True, trainer=_FORTY)
    assert done.returncode == 0, done.stderr
    return folder


_FORTY = {"train_steps": 40, "checkpoint_interval": 8, "validation_interval": 40, "steps_per_loop": 4}


@pytest.mark.slow
def test_a_small_training_learns_and_leaves_its_record(uninterrupted):
    losses = [line["total_loss"] for line in _lines(uninterrupted)]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    record = json.loads((uninterrupted / "run.json").read_text())
    assert record["status"] == "done"
    assert record["data"]["train"]["records"] == 12
    assert len(record["data"]["train"]["fingerprint"]) == 64
    assert record["versions"]["tensorflow"] == tf.__version__
    evaluation = _lines(uninterrupted, "eval")[-1]
    assert evaluation["step"] == 40
    assert {"AP", "AP50", "AP50/signature"} <= set(evaluation)
    assert (uninterrupted / "best_ckpt" / "checkpoint").exists()
    assert list((uninterrupted / "train").glob("events*"))
    assert not [path for path in uninterrupted.rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_kill_nine_and_resume_gives_the_weights_of_an_uninterrupted_run(uninterrupted, data, tmp_path):
    command = _command(data, tmp_path / "run", "train_and_eval", deterministic=True, trainer=_FORTY)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        # Written last: a checkpoint that it does not name yet is not gone on from.
        _wait_for(lambda: (tmp_path / "run" / "checkpoint").exists(), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout
    expected, found = _weights(uninterrupted), _weights(tmp_path / "run")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    steps = [line["step"] for line in _lines(tmp_path / "run")]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_zero(data, tmp_path):
    command = _command(data, tmp_path / "run", trainer={"train_steps": 5000, "steps_per_loop": 2})
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    _wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "saved step" in output
    assert tf.train.latest_checkpoint(str(tmp_path / "run"))
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "saved"


@pytest.mark.slow
def test_a_diverging_run_stops_and_names_the_last_good_checkpoint(data, tmp_path):
    trainer = {"train_steps": 40, "checkpoint_interval": 2, "steps_per_loop": 2, "loss_upper_bound": 1e4}
    # Ten quiet steps, then a rate ten million times as high.
    schedule = {
        "learning_rate": 0.001,
        "warmup": 0.0,
        "decay": "stepwise",
        "boundaries": [0.25],
        "factors": [1e7],
    }
    optimizer = {"optimizer": {"type": "sgd", "sgd": {"global_clipnorm": None}}}
    done = _run(data, tmp_path / "run", trainer={**trainer, "optimizer_config": optimizer}, schedule=schedule)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("error: training diverged") :]
    assert "Traceback" not in done.stderr
    assert "between steps" in message
    good = tf.train.latest_checkpoint(str(tmp_path / "run"))
    assert good is not None
    assert good in message
    assert _lines(tmp_path / "run")[-1]["step"] <= 12
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "diverged"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": {"train_stepz": 3}}, "train_steps"),
        ({"schedule": {"learning_rate": "1e-4"}}, "must be float"),
        ({"runtime": {"mixed_precision_dtype": "half"}}, "bfloat16"),
    ],
)
def test_mistakes_cost_two_lines_and_exit_code_two(data, tmp_path, changes, words):
    done = _run(data, tmp_path / "run", **changes)
    _assert_said(done, words)


def test_missing_data_and_unwritable_folder_are_said(data, tmp_path):
    _assert_said(_run(tmp_path / "none", tmp_path / "run"), "matches no file")
    (tmp_path / "file").write_text("")
    _assert_said(_run(data, tmp_path / "file" / "run"), "cannot write")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said(data, tmp_path):
    from training.errors import UserError
    from training.runner import _write_errors_named

    with (
        pytest.raises(UserError, match="No space left"),
        _write_errors_named(tmp_path),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)


def _assert_said(done, words):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr[done.stderr.index("error:") :]
    assert words in said
    assert len(said.strip().splitlines()) <= 3


def _wait_for(condition, process, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
