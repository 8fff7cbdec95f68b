"""`run.json`: what produced a model, so that it can be told, repeated and compared."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from training import distribution
from training.errors import UserError
from training.files import atomic_file, write_json

if TYPE_CHECKING:
    from training.data.records import RecordIndex
    from training.device import Device
    from training.experiment import Experiment

_PACKAGES = ("tensorflow", "tf-models-official", "numpy", "horovod", "habana-tensorflow")


def start(
    folder: pathlib.Path,
    name: str,
    mode: str,
    experiment: Experiment,
    device: Device,
    data: Mapping[str, RecordIndex],
) -> None:
    """Writes `run.json` at the start of a run; a resumed run keeps the earlier starts under `history`."""
    path = folder / "run.json"
    history = []
    if path.exists():
        check(folder, name)
        earlier = read(folder)
        history = [*earlier.pop("history", []), earlier]
    write_json(
        path,
        {
            "experiment": name,
            "mode": mode,
            "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "status": "running",
            "seed": experiment.seed,
            "device": device.kind,
            "precision": device.precision,
            "processes": distribution.size(),
            "python": platform.python_version(),
            "versions": _versions(),
            "git": _git(),
            "data": {split: describe(index) for split, index in data.items()},
            "history": history,
        },
    )


def check(folder: pathlib.Path, name: str) -> None:
    """Raises UserError where a folder holds a run of another experiment, or a damaged record."""
    if (folder / "run.json").exists() and (found := read(folder)["experiment"]) != name:
        raise UserError(f"{folder} holds a run of {found}, not {name}; choose another --model_dir.")


def describe(index: RecordIndex) -> dict[str, Any]:
    """Number of records, fingerprint and file names of a data set."""
    return {
        "records": len(index),
        "fingerprint": index.fingerprint,
        "files": [pathlib.Path(file).name for file in index.files],
    }


def finish(folder: pathlib.Path, status: str, result: Mapping[str, float]) -> None:
    """Adds how a run ended and its last figures."""
    write_json(
        folder / "run.json",
        {
            **read(folder),
            "status": status,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "result": {key: value for key, value in result.items() if value == value},
        },
    )


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
      UserError: the folder holds none, or a damaged one.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder}: no run here ({path.name}: {error.strerror}). Train first.") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). Restore it or train anew.") from error
    if not isinstance(record, dict) or "experiment" not in record:
        raise UserError(f"{path}: not a run record; the key 'experiment' is missing.")
    return record


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line with `step`, `time`, `phase` ("train", "eval") and the figures.

    `measured.jsonl` is written alike, by mode "eval" alone: phase "measured", also `checkpoint` and `data`.
    A resumed run drops the lines after its first step, which it is about to compute again.
    """

    def __init__(self, path: pathlib.Path, first_step: int | None = None):
        self._path = path
        if first_step is not None and path.exists() and distribution.is_chief():
            kept = [line for line in self.lines() if line["step"] <= first_step]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, phase: str, step: int, values: dict[str, float], **details: Any) -> None:
        """Appends one line; values that are not finite become null, as JSON has no NaN."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        line = {"step": step, "time": time.time(), "phase": phase, **details, **finite}
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def last(self, phase: str, step: int) -> dict[str, float]:
        """The figures written for a phase at a step; empty where there are none."""
        found = [line for line in self.lines(phase) if line["step"] == step]
        return (
            {key: found[-1][key] for key in found[-1] if key not in ("step", "time", "phase")}
            if found
            else {}
        )

    def lines(self, phase: str | None = None) -> Iterator[dict[str, Any]]:
        """The lines of a phase, or all, in the order of the file; none where there is no file."""
        if not self._path.exists():
            return
        for text in self._path.read_text(encoding="utf-8").splitlines():
            # A process killed while it wrote leaves half a line.
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if phase in (None, line["phase"]):
                    yield line


def evaluation_of(folder: pathlib.Path, step: int, needed: str | None = None) -> dict[str, Any]:
    """The evaluation in `metrics.jsonl` that tells of the checkpoint of a step.

    The one at that step; else, as between two of them, the last before it; else the first after it. Empty
    where the run never evaluated.

    Args:
      folder: of the run.
      step: of the checkpoint.
      needed: a figure that it must have.
    """
    lines = [
        line
        for line in MetricsFile(folder / "metrics.jsonl").lines("eval")
        if needed is None or line.get(needed) is not None
    ]
    # The first of a step: mode "eval" once wrote its figures on other data below those of the run.
    of_step = [line for line in lines if line["step"] == step]
    before = [line for line in lines if line["step"] < step]
    return (of_step or before[-1:] or lines or [{}])[0]


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; empty outside a checkout."""
    here = pathlib.Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}
