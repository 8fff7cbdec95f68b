"""`run.json`: what produced a model, so that it can be told, repeated and compared."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training import distribution
from training.errors import UserError
from training.files import write_json

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
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}). Restore it or train anew.") from error
    if not isinstance(record, dict) or "experiment" not in record:
        raise UserError(f"{path}: not a run record; the key 'experiment' is missing.")
    return record


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
