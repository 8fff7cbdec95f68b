"""The first of the two commands, as a user runs it, at its smoke setting."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import onnx
import pytest

from signver.bundle import Bundle

ROOT = pathlib.Path(__file__).resolve().parents[2]


def quickstart(*arguments: str, timeout: int = 1800) -> subprocess.CompletedProcess[str]:
    """Runs the script in the environment that runs this test."""
    environment = {**os.environ, "VENV": sys.prefix}
    return subprocess.run(
        ["scripts/quickstart.sh", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.slow
def test_smoke_run_leaves_everything_and_is_not_repeated(tmp_path):
    output = tmp_path / "run"
    first = quickstart("--smoke", "--output", str(output))
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[-1] == f"Report: {output}/report.html"

    metrics = [json.loads(line) for line in (output / "detector/metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in metrics} == {"train", "eval"}
    assert json.loads((output / "detector/run.json").read_text())["status"] == "done"
    assert json.loads((output / "validation.json").read_text())["passed"] is True
    assert json.loads((output / "cleaner_validation.json").read_text())["passed"] is True
    for model in ("detector", "cleaner"):
        onnx.checker.check_model(str(output / f"{model}/{model}.onnx"))
        assert (output / f"{model}/saved_model/saved_model.pb").stat().st_size > 0
    bundle = Bundle.load(output / "bundle")
    assert all(bundle.has(kind) for kind in ("detector", "cleaner", "extractor"))
    report = (output / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/jpeg") >= 6
    assert report.count("data:image/png") >= 3 * 6 + 3  # before, after, true ink; plots of verification
    assert "skilled EER" in report
    assert "http://" not in report.replace("http://www.w3.org", "")

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    second = quickstart("--smoke", "--output", str(output), timeout=180)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("done before") == 14
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before

    (output / "report.html").unlink()
    third = quickstart("--smoke", "--output", str(output))
    assert third.stdout.count("done before") == 13
    assert (output / "report.html").exists()


def test_help_teaches_without_doing_anything(tmp_path):
    done = quickstart("--help")
    assert done.returncode == 0
    assert "OUTPUT/report.html" in done.stdout
    assert "--smoke" in done.stdout


@pytest.mark.parametrize("arguments", [["--nope"], ["--output"], ["--output", "a,b"]])
def test_mistakes_exit_with_2_and_one_reason(arguments):
    done = quickstart(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith("error: ")
