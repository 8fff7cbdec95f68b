"""What several benchmarks need: the project's commands, and the name of the processor."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def call(module: str, *arguments: str) -> None:
    """Runs one of the project's commands; its failure ends the benchmark."""
    subprocess.run([sys.executable, "-W", "ignore", "-m", module, *arguments], cwd=ROOT, check=True)


def processor() -> str:
    """Name of the processor, as Linux tells it, and the number of cores that this process may use."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
