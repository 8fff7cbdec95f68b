"""The scripts that train and export in stages: a stand-in for Python, in a copy of the scripts."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Notes what it is asked, leaves what a command would, and fails where $FAILING is in the command.
PYTHON = r"""#!/bin/sh
[ "$1" = -c ] || echo "$*" >>"$0.log"
case "$*" in *"import sys; print"*) echo 3.11 ;; *"$FAILING"*) exit 3 ;; esac
for word; do
  case $word in --model_dir=*) mkdir -p "${word#*=}" ;; esac
  case $last in --output) mkdir -p "${word%/*}" && : >"$word" ;; esac
  last=$word
done
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a copy of the scripts: what they put into models/ harms nobody."""
    shutil.copytree(ROOT / "scripts", tmp_path / "project/scripts")
    return tmp_path / "project"


@pytest.fixture
def elsewhere(tmp_path):
    """Where the caller stands, with an environment of their own in venv/."""
    programs = tmp_path / "elsewhere/venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy"):
        (programs / name).write_text(PYTHON)
        (programs / name).chmod(0o755)
    return tmp_path / "elsewhere"


def call(script, *arguments, cwd, failing="nothing fails", **environment):
    """Runs it; returns what came of it, and the commands that Python was given."""
    kept = {key: value for key, value in os.environ.items() if key not in ("OUTPUT", "IMAGES")}
    done = subprocess.run(
        [script, *arguments],
        cwd=cwd,
        env={**kept, "VENV": "venv", "FAILING": failing, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    log = cwd / "venv/bin/python.log"
    return done, log.read_text().splitlines() if log.exists() else []


def test_the_default_models_are_made_in_four_stages(project, elsewhere):
    done, commands = call(project / "scripts/train_defaults.sh", cwd=elsewhere, OUTPUT="out")
    assert done.returncode == 0, done.stderr
    assert sum("training.train" in command for command in commands) == 4
    cleaner = f"--experiment=cleaner_unet --mode=train_and_eval --model_dir={elsewhere}/out/cleaner"
    assert any(cleaner in command for command in commands)
    assert commands[-4].startswith(f"-m export bundle --detector {elsewhere}/out/detector")
    assert commands[-4].endswith("--output models/default")
    assert commands[-1].startswith(f"-m export weights --model_dir {elsewhere}/out/extractor")
    assert commands[-1].endswith("--output models/weights/extractor")


@pytest.mark.parametrize(
    "failing",
    [
        "synthesize pages",
        "score_threshold.py",
        "--experiment=cleaner_unet",
        "export onnx --model_dir out/cleaner",
        "--experiment=extractor_metric",
    ],
)
def test_a_stage_that_fails_is_the_last(project, elsewhere, failing):
    failing = failing.replace("out/", f"{elsewhere}/out/")
    done, commands = call(project / "scripts/train_defaults.sh", cwd=elsewhere, failing=failing, OUTPUT="out")
    assert done.returncode == 3
    assert failing in commands[-1]
    assert not (project / "models").exists()


def test_results_lie_in_the_project_where_no_folder_is_named(project, elsewhere):
    done, commands = call(project / "scripts/train_defaults.sh", "cleaner", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert f"--output {project}/runs/default/signatures" in commands[0]


def test_pages_of_a_coco_export_lie_where_the_caller_says(project, elsewhere):
    (elsewhere / "labels.json").write_text("{}")
    arguments = ("detector", "labels.json", "mine")
    _, commands = call(project / "scripts/finetune.sh", *arguments, cwd=elsewhere, IMAGES="pages")
    converted = (
        f"--annotations {elsewhere}/labels.json --images {elsewhere}/pages --output {elsewhere}/mine/data"
    )
    assert converted in commands[0]


@pytest.mark.parametrize(
    ("script", "arguments", "first"),
    [
        ("export.sh", ["run", "data"], "-m export saved_model"),
        ("quickstart.sh", ["--output", "out"], "-m training.data synthesize pages"),
        ("test.sh", ["tests/scripts"], "-m pytest tests/scripts"),
        ("train_cpu.sh", ["data", "run"], "-m training.train"),
    ],
)
def test_an_environment_of_ones_own_is_found_from_where_one_stands(
    project, elsewhere, script, arguments, first
):
    done, commands = call(project / "scripts" / script, *arguments, cwd=elsewhere)
    assert commands, done.stderr
    assert commands[0].startswith(first)
    assert not (project / "venv").exists()


def test_horovod_goes_into_the_environment_that_is_named(project, elsewhere):
    """The stand-in imports everything, Habana's module too; so nothing may be installed there."""
    done, _ = call(project / "scripts/install_horovod.sh", cwd=elsewhere)
    assert done.returncode == 2
    assert "must not be replaced" in done.stderr


@pytest.mark.parametrize("named", ["venv/bin/python", "python"])
def test_an_interpreter_is_a_path_or_a_command(project, elsewhere, named):
    """The stand-in makes no environment, so setup ends after it has chosen."""
    path = f"{elsewhere}/venv/bin:{os.environ['PATH']}"
    variables = {"VENV": "new", "SIGNVER_PYTHON": named, "PATH": path}
    done, commands = call(project / "scripts/setup.sh", cwd=elsewhere, **variables)
    assert f"setup: {elsewhere}/new with Python 3.11" in done.stderr
    assert commands == [f"-m venv --clear {elsewhere}/new"]


def test_another_source_is_not_passed_over(project, elsewhere):
    (elsewhere / "first").mkdir()
    (elsewhere / "second").mkdir()
    again = ("extractor", "first", "out")
    for _ in range(2):
        done, commands = call(project / "scripts/finetune.sh", *again, cwd=elsewhere)
        assert done.returncode == 0, done.stderr
    assert sum("training.data convert" in command for command in commands) == 1
    for source, variables in (("second", {}), ("first", {"CONVERT": "--seed=3"})):
        done, _ = call(
            project / "scripts/finetune.sh", "extractor", source, "out", cwd=elsewhere, **variables
        )
        assert done.returncode == 2
        assert f"was made from another source (extractor {elsewhere}/first, " in done.stderr


def test_an_environment_is_not_taken_from_another_checkout(project, elsewhere):
    other = elsewhere / "other"
    shutil.copytree(project / "scripts", other / "scripts")
    for folder in (project, other):
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        shutil.copy(ROOT / "pyproject.toml", folder)
    marker = elsewhere / "venv/.signver-harness"
    marker.write_text("")
    for _ in range(2):
        done, commands = call(project / "scripts/setup.sh", cwd=elsewhere)
        assert done.returncode == 0, done.stderr
    assert sum("pip install" in command for command in commands) == 2  # requirements and checkout, once
    done, _ = call(other / "scripts/setup.sh", cwd=elsewhere)
    assert done.returncode == 2
    assert f"belongs to the checkout in {project}" in done.stderr
    # A checkout that was moved or deleted has no claim.
    project.rename(project.with_name("moved"))
    done, commands = call(other / "scripts/setup.sh", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert sum("pip install" in command for command in commands) == 4
