"""The launch scripts: the command that they build, with stand-ins for what a DL1 host has."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import yaml

from training import train
from training.preflight import __main__ as preflight

ROOT = pathlib.Path(__file__).parents[2]
LISTING = "\n".join(f"{core},{core // 24}" for core in range(48))
needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="no mpirun: scripts/install_horovod.sh"
)


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


def launch(script, *arguments, programs=None, cwd=None, **environment):
    dropped = ["NP", "HOSTS", "HOSTFILE", "DEVICE", "MODEL_DIR", "CONFIG", "VENV"]
    dropped += ["SIGNVER_DATA", "PREFLIGHT", "CORES_PER_CARD", "MPI_ROOT", "TF_RECIPE_CACHE_PATH"]
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    if programs:
        kept["PATH"] = f"{programs}:{kept['PATH']}"
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env=kept | {"VENV": "/nowhere"} | environment,
        cwd=cwd,
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


SHARES = {1: 24, 2: 24, 3: 12, 4: 12, 5: 8, 6: 8, 7: 6, 8: 6}


@pytest.mark.parametrize("processes", SHARES)
def test_processes_share_the_cores_of_a_socket(host, processes):
    command = launch("train_8hpu.sh", "--dry-run", "detector", programs=host, NP=str(processes)).stdout
    assert f"\nsocket:PE={SHARES[processes]}\n" in command


def hwloc_object(kind, index, units, inside=""):
    """One element of an hwloc topology; `units` are the hardware threads that it holds."""
    mask = sum(1 << unit for unit in units)
    words = ",".join(f"0x{mask >> shift & 0xFFFFFFFF:08x}" for shift in (64, 32, 0))
    sets = f'cpuset="{words}" complete_cpuset="{words}" nodeset="0x1" complete_nodeset="0x1"'
    return f'<object type="{kind}" os_index="{index}" {sets}>{inside}</object>'


def topology_of_a_dl1():
    """Two sockets of 24 cores of two threads, as hwloc's XML."""
    cores = []
    for core in range(48):
        units = range(2 * core, 2 * core + 2)
        threads = "".join(hwloc_object("PU", unit, [unit]) for unit in units)
        cores.append(hwloc_object("Core", core, units, threads))
    halves = [(range(48), cores[:24]), (range(48, 96), cores[24:])]
    sockets = [hwloc_object("Package", n, units, "".join(held)) for n, (units, held) in enumerate(halves)]
    inside = hwloc_object("NUMANode", 0, range(96)) + "".join(sockets)
    machine = hwloc_object("Machine", 0, range(96), inside)
    head = '<?xml version="1.0"?><!DOCTYPE topology SYSTEM "hwloc2.dtd">'
    return f'{head}<topology version="2.0">{machine}</topology>'


@pytest.fixture
def dl1(tmp_path):
    """What makes a real mpirun believe that it is on a DL1, say where it puts processes, and start none."""
    (tmp_path / "dl1.xml").write_text(topology_of_a_dl1())
    (tmp_path / "slots").write_text("localhost slots=48\n")
    return {
        "OMPI_MCA_hwloc_base_topo_file": str(tmp_path / "dl1.xml"),
        "OMPI_MCA_orte_default_hostfile": str(tmp_path / "slots"),
        "OMPI_MCA_rmaps_base_display_map": "1",
        "OMPI_MCA_orte_do_not_launch": "1",
        "OMPI_MCA_plm_rsh_agent": "true",  # looked for where hosts are named, and ssh may be missing
    }


@needs_mpirun
@pytest.mark.parametrize("processes", range(1, 9))
def test_mpirun_finds_room_for_every_number_of_cards_of_a_dl1(host, dl1, processes):
    done = launch("train_8hpu.sh", "detector", programs=host, NP=str(processes), **dl1)
    assert done.stdout.count("Process rank:") == processes, done.stdout + done.stderr


@needs_mpirun
def test_mpirun_finds_room_for_one_card(host, dl1):
    done = launch("train_1hpu.sh", "detector", programs=host, **dl1)
    assert done.stdout.count("Process rank:") == 1, done.stdout + done.stderr


def test_without_lscpu_processes_are_not_bound(host):
    add(host, "lscpu", "exit 127")
    command = launch("train_8hpu.sh", "--dry-run", "detector", programs=host).stdout.splitlines()
    assert command[command.index("--bind-to") + 1] == "none"


def test_several_hosts(host):
    done = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, HOSTS="a:8,b:8", NETWORK="ens5")
    command = done.stdout.splitlines()
    assert command[command.index("-np") + 1] == "16"
    assert command[command.index("-H") + 1] == "a:8,b:8"
    assert command[command.index("--map-by") + 1] == "socket:PE=6"
    assert "HCCL_SOCKET_IFNAME=ens5" in command
    assert "-p3022" in command


HOSTFILES = {  # text: slots of all hosts, and the cores that the fullest of them leaves each process
    "a slots=8\nb slots=4\n": (12, 6),
    "a slots=2\nb slots=8\n": (10, 6),
    "a slots=8 max_slots=16\n#b slots=8\n": (8, 6),
    "  # slots=8\n\n\ta max_slots=16 slots = 4 # slots=2\n": (4, 12),
    "a slots=8\nb\n": (9, 6),
    "a\na\nb\nb\n": (4, 24),
    "a": (1, 24),
    "a max-slots=3\nb slots=1": (4, 12),
}


@pytest.mark.parametrize("text", HOSTFILES)
def test_a_hostfile(host, tmp_path, text):
    (tmp_path / "hosts").write_text(text)
    done = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, HOSTFILE=str(tmp_path / "hosts"))
    command = done.stdout.splitlines()
    total, share = HOSTFILES[text]
    assert command[command.index("-np") + 1] == str(total)
    assert command[command.index("--map-by") + 1] == f"socket:PE={share}"


@needs_mpirun
@pytest.mark.parametrize("text", HOSTFILES)
def test_mpirun_counts_the_slots_of_a_hostfile_as_the_script_does(host, dl1, tmp_path, text):
    (tmp_path / "hosts").write_text(text)
    done = launch("train_8hpu.sh", "cleaner", programs=host, HOSTFILE=str(tmp_path / "hosts"), **dl1)
    total, _ = HOSTFILES[text]
    assert f"Total slots allocated {total}\n" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Process rank:") == total


@needs_mpirun
def test_mpirun_takes_no_cores_for_cards_where_a_hostfile_has_no_number(host, dl1, tmp_path):
    """Two processes on the 48 cores of one host: refused, for its card is one."""
    (tmp_path / "hosts").write_text("localhost\n")
    variables = {"HOSTFILE": str(tmp_path / "hosts"), "NP": "2", "OMPI_MCA_orte_do_not_launch": "0"}
    add(host, "python", "exit 0")
    done = launch("train_8hpu.sh", "cleaner", programs=host, **dl1 | variables)
    assert done.returncode != 0
    assert "not enough slots" in done.stdout + done.stderr


def test_hosts_with_more_cards_than_the_first_have_cores_for_them(host):
    command = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, HOSTS="a:2,b:8").stdout
    assert "\n10\n-H\na:2,b:8\n" in command
    assert "\nsocket:PE=6\n" in command


def test_paths_in_the_environment_are_those_of_the_caller(host, tmp_path):
    """Called from another folder, with a python of a relative VENV; a link keeps its name."""
    add(host, "mpirun", f'printf "%s\\n" "$@" >{tmp_path}/command\nenv >{tmp_path}/variables')
    (tmp_path / "venv/bin").mkdir(parents=True)
    add(tmp_path / "venv/bin", "python", "exit 0")
    (tmp_path / "hosts").write_text("a slots=8\n")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "here").mkdir()
    paths = {"MODEL_DIR": "../link/run", "HOSTFILE": "../hosts", "SIGNVER_DATA": "data", "VENV": "../venv"}
    paths |= {"MPI_ROOT": "mpi", "TF_RECIPE_CACHE_PATH": "recipes"}
    done = launch("train_8hpu.sh", "cleaner", programs=host, cwd=tmp_path / "here", **paths)
    assert done.returncode == 0, done.stderr
    command = (tmp_path / "command").read_text().splitlines()
    assert f"--model_dir={tmp_path}/link/run" in command
    assert command[command.index("--hostfile") + 1] == f"{tmp_path}/hosts"
    assert command[command.index("--prefix") + 1] == f"{tmp_path}/here/mpi"
    assert f"TF_RECIPE_CACHE_PATH={tmp_path}/here/recipes" in command
    variables = (tmp_path / "variables").read_text().splitlines()
    assert f"SIGNVER_DATA={tmp_path}/here/data" in variables
    assert any(line.startswith(f"PATH={tmp_path}/venv/bin:") for line in variables)


def test_paths_that_nobody_set_are_the_projects(host, tmp_path):
    command = launch("train_8hpu.sh", "--dry-run", "cleaner", programs=host, cwd=tmp_path).stdout.splitlines()
    assert "--model_dir=runs/cleaner" in command


def test_one_card_takes_its_own_config(host):
    command = launch(
        "train_1hpu.sh", "--dry-run", "cleaner", "--model_dir=x", programs=host
    ).stdout.splitlines()
    assert command[command.index("-np") + 1] == "1"
    assert "--config_file=configs/cleaner/1hpu.yaml" in command
    assert command[-1] == "--model_dir=x"
    assert command[command.index("--map-by") + 1] == "socket:PE=24"


@pytest.mark.parametrize("processes", ["2", "8"])
def test_a_cpu_goes_through_the_same_launch(processes):
    command = launch("train_8hpu.sh", "--dry-run", "detector", DEVICE="cpu", NP=processes).stdout.splitlines()
    assert command[0] == "mpirun"
    assert command[command.index("-np") + 1] == processes
    assert command[-1] == "--config_file=configs/detector/smoke.yaml"
    assert "--model_dir=runs/detector-cpu" in command
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


@pytest.mark.parametrize("written", ["{}={}", "{}\n{}"], ids=["one word", "two words"])
def test_preflight_reads_the_config_that_runs(host, tmp_path, monkeypatch, written):
    """The parsers of both commands make the same of what each of them is given."""
    monkeypatch.setenv("SIGNVER_DATA", "")  # parsing sets it
    add(host, "python", f'printf "%s\\n" "$@" >{tmp_path}/asked')
    add(host, "mpirun", f'printf "%s\\n" "$@" >{tmp_path}/started')
    options = {"--model_dir": "x", "--config_file": "my.yaml", "--params_override": "{seed: 3}"}
    options |= {"--mode": "train", "--data_dir": "/nowhere/data", "--experiment": "cleaner_autoencoder"}
    words = [word for pair in options.items() for word in written.format(*pair).split("\n")]
    launch("train_8hpu.sh", "cleaner", *words, programs=host, PREFLIGHT="yes")
    asked = (tmp_path / "asked").read_text().splitlines()
    started = (tmp_path / "started").read_text().splitlines()
    checked = preflight.parse_arguments(asked[asked.index("training.preflight") + 1 :])
    trained = train.parse_arguments(started[started.index("training.train") + 1 :])
    assert checked.config_file == trained.config_file == ["configs/cleaner/8hpu.yaml", "my.yaml"]
    assert checked.params_override == trained.params_override == ["{seed: 3}"]
    assert checked.data_dir == trained.data_dir == "/nowhere/data"
    assert checked.experiment == trained.experiment == "cleaner_autoencoder"


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
    # The image holds no data; what all pods share does.
    (mount,) = launcher["volumeMounts"]
    assert variables["SIGNVER_DATA"].startswith(mount["mountPath"] + "/")
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


@pytest.mark.slow
def test_an_extractor_is_not_fine_tuned_without_forgeries(tmp_path):
    rng = np.random.default_rng(0)
    for writer in range(6):
        folder = tmp_path / f"writers/w{writer}/genuine"
        folder.mkdir(parents=True)
        for number in range(3):
            ink = np.full((60, 160), 255, np.uint8)
            cv2.polylines(ink, [rng.integers(5, 55, (9, 2), np.int32) * (3, 1)], False, 0, 2)
            cv2.imwrite(str(folder / f"{number}.png"), ink)
    given = ("extractor", str(tmp_path / "writers"), str(tmp_path / "out"))
    done = launch("finetune.sh", *given, VENV=sys.prefix)
    assert done.returncode == 2
    assert "no forgery among the writers held out" in done.stderr
    assert not (tmp_path / "out/run").exists()
