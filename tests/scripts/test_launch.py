"""The launch scripts: the command that they build, with stand-ins for what a DL1 host has."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LISTING = "\n".join(f"{core},{core // 24}" for core in range(48))


@pytest.fixture
def host(tmp_path):
    """A folder of programs: lscpu of a DL1 (48 cores on 2 sockets), hl-smi with eight cards."""
    programs = tmp_path / "bin"
    programs.mkdir()
    add(programs, "lscpu", f"cat <<'END'\n# CORE,SOCKET\n{LISTING}\n{LISTING}\nEND")
    add(programs, "hl-smi", "seq 0 7")
    return programs


def add(folder, name, body):
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def launch(script, *arguments, programs=None, **environment):
    dropped = ("NP", "HOSTS", "HOSTFILE", "DEVICE", "MODEL_DIR", "CONFIG", "VENV")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    if programs:
        kept["PATH"] = f"{programs}:{kept['PATH']}"
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env=kept | {"VENV": "/nowhere"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_eight_cards_take_six_cores_each(host):
    command = launch("train_8hpu.sh", "--dry-run", "detector", programs=host).stdout.splitlines()
    assert command[0] == "mpirun"
    assert command[command.index("-np") + 1] == "8"
    assert command[command.index("--map-by") + 1] == "socket:PE=6"
    assert command[command.index("--bind-to") + 1] == "core"
    assert any(re.fullmatch(r"TF_RECIPE_CACHE_PATH=.*/signver_recipes", word) for word in command)
    assert "--experiment=retinanet_signverod" in command
    assert command[-1] == "--config_file=configs/detector/8hpu.yaml"
    assert "--device=hpu" in command


def test_several_hosts(host):
    done = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, HOSTS="a:8,b:8", NETWORK="ens5")
    command = done.stdout.splitlines()
    assert command[command.index("-np") + 1] == "16"
    assert command[command.index("-H") + 1] == "a:8,b:8"
    assert command[command.index("--map-by") + 1] == "socket:PE=6"
    assert "HCCL_SOCKET_IFNAME=ens5" in command
    assert "-p3022" in command


def test_a_hostfile(host, tmp_path):
    (tmp_path / "hosts").write_text("a slots=8\nb slots=4\n")
    done = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, HOSTFILE=str(tmp_path / "hosts"))
    command = done.stdout.splitlines()
    assert command[command.index("-np") + 1] == "12"


def test_one_card_takes_its_own_config(host):
    command = launch(
        "train_1hpu.sh", "--dry-run", "cleaner", "--model_dir=x", programs=host
    ).stdout.splitlines()
    assert command[command.index("-np") + 1] == "1"
    assert "--config_file=configs/cleaner/1hpu.yaml" in command
    assert command[-1] == "--model_dir=x"


@pytest.mark.parametrize("processes", ["2", "8"])
def test_a_cpu_goes_through_the_same_launch(processes):
    command = launch("train_8hpu.sh", "--dry-run", "detector", DEVICE="cpu", NP=processes).stdout.splitlines()
    assert command[0] == "mpirun"
    assert command[command.index("-np") + 1] == processes
    assert command[-1] == "--config_file=configs/detector/smoke.yaml"
    assert not any("RECIPE" in word for word in command)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "which MODEL"),
        (["matcher"], {}, "unknown MODEL 'matcher'"),
        (["detector"], {"DEVICE": "tpu"}, "DEVICE='tpu'"),
        (["detector"], {"NP": "two"}, "NP='two'"),
        (["detector"], {"HOSTS": "a,b"}, "write name:cards"),
        (["detector"], {"HOSTS": "a:x"}, "cards of a='x'"),
        (["detector"], {"HOSTS": "a:8", "HOSTFILE": "h"}, "set one"),
        (["detector"], {"HOSTFILE": "/nowhere"}, "no such file"),
        (["detector"], {}, "no hl-smi here"),
    ],
)
def test_mistakes_are_said_in_two_lines(arguments, environment, message):
    done = launch("train_8hpu.sh", *arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_fewer_cards_than_asked_for_are_said(host):
    add(host, "hl-smi", "seq 0 3")
    done = launch("train_8hpu.sh", "detector", programs=host)
    assert done.returncode == 2
    assert "hl-smi lists 4 cards, 8 are asked for" in done.stderr


def test_a_launcher_without_cards_starts_other_hosts(host, tmp_path):
    add(host, "hl-smi", "exit 1")
    add(host, "mpirun", "exit 0")
    add(host, "python", "exit 0")
    (tmp_path / "hosts").write_text("a slots=8\n")
    done = launch("train_8hpu.sh", "detector", programs=host, HOSTFILE=str(tmp_path / "hosts"))
    assert done.returncode == 0, done.stderr
    assert "hl-smi lists 0 cards" in launch("train_8hpu.sh", "detector", programs=host).stderr


def test_sigterm_reaches_the_job_as_a_signal_that_saves(host, tmp_path):
    """The job is a stand-in for mpirun that takes its time to save; its own exit code is kept."""
    add(
        host,
        "mpirun",
        f"trap 'sleep 1; echo saved >{tmp_path}/out; exit 0' USR1\nwhile :; do sleep 0.1; done",
    )
    environment = {**os.environ, "PATH": f"{host}:{os.environ['PATH']}", "VENV": "/nowhere"}
    process = subprocess.Popen([ROOT / "scripts/train_8hpu.sh", "detector"], env=environment)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert (tmp_path / "out").read_text() == "saved\n"


def test_the_jobs_exit_code_is_the_scripts(host):
    add(host, "mpirun", "exit 7")
    assert launch("train_8hpu.sh", "detector", programs=host).returncode == 7


def test_help_teaches():
    for script in ("train_1hpu.sh", "train_8hpu.sh"):
        done = launch(script, "--help")
        assert done.returncode == 0
        assert "MODEL" in done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_is_content():
    scripts = sorted(str(path) for path in (ROOT / "scripts").glob("*.sh"))
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("answer", "started"), [("exit 0", True), ("exit 1", False)])
def test_preflight_goes_first_where_it_is_asked_for(host, tmp_path, answer, started):
    add(host, "python", f'echo "$@" > {tmp_path}/asked\n{answer}')
    add(host, "mpirun", f"touch {tmp_path}/started")
    override = "--params_override={seed: 3}"
    done = launch("train_8hpu.sh", "detector", "--model_dir=x", override, programs=host, PREFLIGHT="yes")
    asked = (tmp_path / "asked").read_text()
    assert "-m training.preflight --experiment=retinanet_signverod --cards=8" in asked
    assert "--config_file=configs/detector/8hpu.yaml --params_override={seed: 3}" in asked
    assert "model_dir" not in asked
    assert (tmp_path / "started").exists() == started
    assert done.returncode == int(not started)
    assert started or "preflight blocks this run; PREFLIGHT=no" in done.stderr


@pytest.mark.parametrize(("name", "hosts", "batch"), [("mpijob-1host", 1, 64), ("mpijob-2hosts", 2, 128)])
def test_the_kubernetes_jobs_launch_what_the_script_understands(host, tmp_path, name, hosts, batch):
    job = yaml.safe_load((ROOT / f"docs/kubernetes/{name}.yaml").read_text())
    specs = job["spec"]["mpiReplicaSpecs"]
    assert job["apiVersion"] == "kubeflow.org/v2beta1"
    assert specs["Worker"]["replicas"] == hosts
    (launcher,) = specs["Launcher"]["template"]["spec"]["containers"]
    (worker,) = specs["Worker"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["habana.ai/gaudi"] == job["spec"]["slotsPerWorker"] == 8
    script, *arguments = launcher["command"]
    variables = {entry["name"]: entry["value"] for entry in launcher["env"]}
    (tmp_path / "hosts").write_text("".join(f"worker-{number} slots=8\n" for number in range(hosts)))
    variables["HOSTFILE"] = str(tmp_path / "hosts")
    done = launch(pathlib.Path(script).name, "--dry-run", *arguments, programs=host, **variables)
    command = done.stdout.splitlines()
    assert command[command.index("-np") + 1] == str(8 * hosts), done.stderr
    assert command[command.index("--map-by") + 1] == "socket:PE=6"
    override = next((word for word in command if word.startswith("--params_override")), "")
    assert batch == 64 or f"global_batch_size: {batch}" in override


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "usage: scripts/finetune.sh detector SOURCE OUTPUT"),
        (("cleaner", "pages", "runs/mine"), "usage: scripts/finetune.sh"),
        (("detector", "/nowhere.json", "runs/mine"), "error: /nowhere.json: no such file or folder"),
    ],
)
def test_a_fine_tuning_of_nothing_is_refused(arguments, message):
    done = launch("finetune.sh", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
