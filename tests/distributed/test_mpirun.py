"""Several ranks under a real mpirun with a real Horovod: one model, one run, one way to end."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from training.data import signatures, tfrecord

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: scripts/install_horovod.sh"),
    pytest.mark.skipif(
        importlib.util.find_spec("horovod") is None, reason="no Horovod: scripts/install_horovod.sh"
    ),
]
# Batch norm sees its rank's share alone, so equality with one process is tested on a model without it.
PLAIN = {
    "task": {"model": {"kind": "autoencoder", "dropout": 0.0}, "loss": "mse"},
    "trainer": {
        "train_steps": 3,
        "optimizer_config": {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}},
    },
    "schedule": {"learning_rate": 0.05, "evaluations": 1, "checkpoints": 1},
}
# Sums over 200,000 pixels in another order: 3e-6 on a bias whose update is 0.017.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten signatures in three shards, eight held out: one for each rank of the largest run."""
    folder = tmp_path_factory.mktemp("signatures") / "set"
    pages = [signatures.synthesize(0, number, 0, signatures.GENUINE) for number in range(18)]
    splits = {"train": pages[:10], "eval": pages[10:]}
    tfrecord.write_dataset(folder, splits, signatures.CLASSES, shards={"train": 3, "eval": 1}, source="test")
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "set"
    command = ["training.data", "synthesize", "pages", f"--output={folder}", "--count=8", "--eval_count=5"]
    subprocess.run([sys.executable, "-W", "ignore", "-m", *command, "--long_side=300"], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    """Genuine and forged signatures of four writers, and of three held out."""
    folder = tmp_path_factory.mktemp("writers") / "set"
    pages = [
        signatures.synthesize(0, writer, number, label)
        for writer in range(7)
        for label, count in ((signatures.GENUINE, 3), (signatures.FORGED, 2))
        for number in range(count)
    ]
    splits = {"train": pages[:20], "eval": pages[20:]}
    tfrecord.write_dataset(folder, splits, signatures.CLASSES, shards={"train": 2, "eval": 1}, source="test")
    return folder


def environment():
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OMPI_")}
    return kept | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


def settings(data, *sections):
    """Sections merged over the inputs, as YAML text."""

    def merge(below, above):
        for key, value in above.items():
            below[key] = merge(below.get(key, {}), value) if isinstance(value, dict) else value
        return below

    inputs = {
        "task": {
            "train_data": {"input_path": f"{data}/train*", "global_batch_size": 4},
            "validation_data": {"input_path": f"{data}/eval*"},
        },
        "seed": 3,
    }
    merged = {}
    for section in (inputs, *sections):
        merge(merged, json.loads(json.dumps(section)))
    return json.dumps(merged)


def ranks(size, experiment, folder, override, *flags):
    """Runs the worker on `size` ranks; returns each rank's variables and figures."""
    output = folder / "values"
    worker = [sys.executable, str(ROOT / "tests/distributed/worker.py")]
    command = [*worker, experiment, str(folder / "run"), str(output), override, *flags]
    if size > 1:
        launch = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", str(size)]
        command = [*launch, *command]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    values = [dict(np.load(f"{output}-{rank}.npz")) for rank in range(size)]
    figures = [json.loads(pathlib.Path(f"{output}-{rank}.json").read_text()) for rank in range(size)]
    return values, figures


def spread(values):
    """Largest difference of any value of any variable between two ranks."""
    return max(
        float(np.abs(one[key] - values[0][key]).max()) for one in values[1:] for key in one if one[key].size
    )


def evaluate(experiment, folder):
    """Figures of a model_dir's last checkpoint by one process."""
    command = ["training.train", f"--experiment={experiment}", "--mode=eval", f"--model_dir={folder / 'run'}"]
    command += ["--checkpoint=last", "--device=cpu"]
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment(), check=True, timeout=300)
    return json.loads((folder / "run" / "measured.jsonl").read_text())


def lines(model_dir, phase):
    found = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["phase"] == phase]


def test_ranks_hold_one_model_and_the_chief_alone_writes(data, tmp_path):
    steps = {
        "trainer": {"train_steps": 8, "steps_per_loop": 2},
        "schedule": {"evaluations": 2, "checkpoints": 2},
    }
    values, figures = ranks(2, "cleaner_unet", tmp_path, settings(data, steps))
    assert any("moving_mean" in key for key in values[0])
    assert any("|m:" in key or "Adam" in key for key in values[0])
    assert spread(values) == 0.0
    assert figures[0]["psnr"] == figures[1]["psnr"]
    # One line a loop and one an evaluation, one record, nobody else's folder.
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [2, 4, 6, 8]
    assert [line["step"] for line in lines(tmp_path / "run", "eval")] == [4, 8]
    assert not list((tmp_path / "run").glob("worker_*"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done"
    alone = evaluate("cleaner_unet", tmp_path)
    for key in ("psnr", "ssim", "ink_f1", "ink_f1_untouched"):
        assert alone[key] == pytest.approx(figures[0][key], rel=1e-4)


def test_ranks_hold_one_extractor_and_its_figures_are_those_of_one_process(writers, tmp_path):
    steps = {
        "task": {"train_data": {"global_batch_size": 6}},
        "trainer": {"train_steps": 4},
        "schedule": {"evaluations": 1, "checkpoints": 1},
    }
    values, figures = ranks(2, "extractor_metric", tmp_path, settings(writers, steps))
    assert spread(values) == 0.0
    assert figures[0] == figures[1]
    alone = evaluate("extractor_metric", tmp_path)
    for key in ("eer_skilled", "eer_random", "auc_skilled"):
        assert alone[key] == pytest.approx(figures[0][key], abs=0.01)


def test_without_averaging_the_ranks_drift_apart(data, tmp_path):
    """What Horovod's optimizer wrapper does to tf-models' optimizers; the test above would see it."""
    further = {"trainer": {"train_steps": 8}, "schedule": {"learning_rate": 0.2}}
    values, _ = ranks(2, "cleaner_autoencoder", tmp_path, settings(data, PLAIN, further), "--each-for-itself")
    assert spread(values) > 20 * ROUNDING


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Variables after three steps of one process."""
    values, _ = ranks(1, "cleaner_autoencoder", tmp_path_factory.mktemp("alone"), settings(data, PLAIN))
    return values[0]


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_make_the_update_of_one_process(data, alone, tmp_path, size):
    values, _ = ranks(size, "cleaner_autoencoder", tmp_path, settings(data, PLAIN))
    together = values[0]
    # Biases start at nothing: what they hold is the update.
    assert max(np.abs(alone[key]).max() for key in alone if "bias" in key) > 1000 * ROUNDING
    for key in alone:
        assert np.abs(together[key] - alone[key]).max() < ROUNDING, key


def test_average_precision_is_that_of_one_process(pages, tmp_path):
    steps = {"trainer": {"train_steps": 4}, "schedule": {"evaluations": 1, "checkpoints": 1}}
    values, figures = ranks(2, "retinanet_signverod", tmp_path, settings(pages, steps))
    assert spread(values) == 0.0
    assert figures[0] == figures[1] or figures[0]["AP"] == figures[1]["AP"]
    alone = evaluate("retinanet_signverod", tmp_path)
    for key in ("AP", "AP50", "ARmax100"):
        assert alone[key] == pytest.approx(figures[0][key], abs=1e-4)


def launch(data, tmp_path, *sections, processes="2", **extra):
    """Starts the cleaner through the launch script, as a user does."""
    override = settings(data, {"trainer": {"train_steps": 4000, "steps_per_loop": 2}}, *sections)
    command = [ROOT / "scripts/train_8hpu.sh", "cleaner", f"--params_override={override}"]
    variables = {"DEVICE": "cpu", "NP": processes, "MODEL_DIR": str(tmp_path / "run"), "VENV": sys.prefix}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | variables | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(process, model_dir, step, seconds=180):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (model_dir / "metrics.jsonl").exists():
            found = lines(model_dir, "train")
            if found and found[-1]["step"] >= step:
                return
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.3)
    raise AssertionError("training did not begin")


def ranks_of(launched):
    """Process ids of the ranks below a launch script."""
    below = psutil.Process(launched.pid).children(recursive=True)
    return [one.pid for one in below if "training.train" in one.cmdline() and "mpirun" not in one.name()]


def test_sigterm_saves_once_and_another_number_of_ranks_goes_on(data, tmp_path):
    process = launch(data, tmp_path)
    wait_for_step(process, tmp_path / "run", 4)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output[-3000:]
    assert "SIGTERM: saved step" in output
    saved = lines(tmp_path / "run", "train")[-1]["step"]
    assert (tmp_path / "run" / f"ckpt-{saved}.index").exists()
    again = launch(data, tmp_path, {"trainer": {"train_steps": saved + 4}}, processes="1")
    output, _ = again.communicate(timeout=180)
    assert again.returncode == 0, output[-3000:]
    assert f"at step {saved} of {saved + 4}" in output
    assert lines(tmp_path / "run", "train")[-1]["step"] == saved + 4


def test_sigterm_saves_while_worker_processes_make_the_pairs(data, tmp_path):
    """mpirun hands the signal to them too: they are of their rank's process group."""
    process = launch(data, tmp_path, {"task": {"workers": 2}})
    wait_for_step(process, tmp_path / "run", 4)
    helpers = [one for rank in ranks_of(process) for one in psutil.Process(rank).children(recursive=True)]
    assert sum("spawn_main" in " ".join(one.cmdline()) for one in helpers) == 4
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output[-3000:]
    assert "SIGTERM: saved step" in output
    assert "Traceback" not in output
    saved = lines(tmp_path / "run", "train")[-1]["step"]
    assert (tmp_path / "run" / f"ckpt-{saved}.index").exists()
    assert not psutil.wait_procs(helpers, timeout=30)[1]


def test_ranks_repeat_an_evaluation_that_a_kill_cut_short(data, tmp_path):
    steps = {
        "trainer": {"train_steps": 8, "steps_per_loop": 2},
        "schedule": {"evaluations": 2, "checkpoints": 2},
    }
    ranks(2, "cleaner_unet", tmp_path, settings(data, steps))
    run = tmp_path / "run"
    first = lines(run, "eval")[0]
    # What a kill during the evaluation of step 4 leaves: its checkpoint, no figures, no best checkpoint.
    (run / "checkpoint").write_text('model_checkpoint_path: "ckpt-4"\n')
    kept = [line for line in lines(run, "train") if line["step"] <= 4]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    shutil.rmtree(run / "best_ckpt")
    ranks(2, "cleaner_unet", tmp_path, settings(data, steps))
    found = lines(run, "eval")
    assert [line["step"] for line in found] == [4, 8]
    assert found[0]["psnr"] == pytest.approx(first["psnr"], rel=1e-4)
    assert len(list((run / "best_ckpt").glob("*.index"))) == 1


def test_eight_processes_go_through_the_launch_line(data, tmp_path):
    steps = {"trainer": {"train_steps": 2, "steps_per_loop": 1}}
    sizes = {"task": {"train_data": {"global_batch_size": 8}, "validation_data": {"global_batch_size": 8}}}
    # Eight imports and eight graphs on two cores, with other tests beside: the last rank may be minutes late.
    patient = {"HANG_SECONDS": "600"}
    process = launch(data, tmp_path, steps, sizes, processes="8", **patient)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    assert "8 process(es)" in output
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [1, 2]
    assert len(lines(tmp_path / "run", "eval")) == 1


def test_a_killed_rank_ends_the_job_and_a_restart_goes_on(data, tmp_path):
    process = launch(data, tmp_path, {"trainer": {"checkpoint_interval": 2}})
    wait_for_step(process, tmp_path / "run", 6)
    victims = ranks_of(process)
    assert len(victims) == 2
    os.kill(max(victims), signal.SIGKILL)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=90)
    assert time.monotonic() - begun < 60
    assert process.returncode != 0
    assert "rank" in output[-1500:]
    last = max(int(path.stem.split("-")[1]) for path in (tmp_path / "run").glob("ckpt-*.index"))
    again = launch(data, tmp_path, {"trainer": {"train_steps": last + 4}})
    output, _ = again.communicate(timeout=180)
    assert again.returncode == 0, output[-3000:]
    assert f"at step {last} of" in output


def test_a_frozen_rank_ends_the_job_by_name_and_a_restart_goes_on(data, tmp_path):
    process = launch(data, tmp_path, {"trainer": {"checkpoint_interval": 2}}, HANG_SECONDS="15")
    wait_for_step(process, tmp_path / "run", 4)
    os.kill(max(ranks_of(process)), signal.SIGSTOP)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=90)
    assert time.monotonic() - begun < 60
    assert process.returncode != 0
    assert "error: rank 1 has been silent for" in output
    last = max(int(path.stem.split("-")[1]) for path in (tmp_path / "run").glob("ckpt-*.index"))
    again = launch(data, tmp_path, {"trainer": {"train_steps": last + 4}})
    output, _ = again.communicate(timeout=180)
    assert again.returncode == 0, output[-3000:]
    assert f"at step {last} of" in output
    assert not list((tmp_path / "run").glob(".alive-*"))


def test_a_rank_that_never_comes_is_named(data, tmp_path):
    stall = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "3", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "6"}
    override = settings(data, {"trainer": {"train_steps": 40, "steps_per_loop": 1}})
    worker = [sys.executable, str(ROOT / "tests/distributed/worker.py"), "cleaner_unet"]
    arguments = [str(tmp_path / "run"), str(tmp_path / "values"), override, "--never-comes"]
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2"]
    done = subprocess.run(
        [*mpirun, *worker, *arguments], env=environment() | stall, capture_output=True, text=True, timeout=400
    )
    assert done.returncode != 0
    assert "error: rank 1 did not come to the others within 6 seconds" in done.stderr


def test_a_lost_loss_ends_all_ranks_with_the_cause(data, tmp_path):
    process = launch(data, tmp_path, {"trainer": {"loss_upper_bound": 0.0001}})
    output, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "training diverged" in output


def test_mistakes_are_said_before_anything_is_trained(data, tmp_path):
    process = launch(data, tmp_path, {"task": {"train_data": {"global_batch_size": 5}}})
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "global_batch_size 5 is not divisible by 2 processes" in output
