"""Measures the input pipeline of one rank on this host; makes sample data where there are none."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psutil
import tensorflow as tf

from training import config
from training.errors import UserError
from training.experiment import Experiment


@contextlib.contextmanager
def data_of(name: str, experiment: Experiment) -> Iterator[bool]:
    """Sees that the training data exist; where they do not, points the config at a small synthetic set.

    Yields:
      Whether the data are samples.
    """
    from training.data.records import match_files

    try:
        match_files(experiment.task.train_data.input_path)
    except UserError:
        with tempfile.TemporaryDirectory(prefix="signver-preflight-") as folder:
            experiment.task.train_data.input_path = config.sample_data(name, pathlib.Path(folder))
            yield True
        return
    yield False


def measure(dataset: tf.data.Dataset, batch: int, seconds: float) -> dict[str, float]:
    """Rate and processor time of an input pipeline, after its first batch.

    Args:
      dataset: batches of one rank.
      batch: images in each.
      seconds: how long to measure; at least two batches are read.

    Returns:
      images_per_second: as measured here, with all cores of this host.
      cpu_seconds_per_image: processor time of this process and its children.
    """
    iterator: Any = iter(dataset)
    next(iterator)
    begun, spent, images = time.perf_counter(), _processor_seconds(), 0
    while images < 2 * batch or time.perf_counter() - begun < seconds:
        next(iterator)
        images += batch
    elapsed = time.perf_counter() - begun
    return {
        "images_per_second": images / elapsed,
        "cpu_seconds_per_image": (_processor_seconds() - spent) / images,
    }


def _processor_seconds() -> float:
    # The system counts a child's time in hundredths of a second; this process's own is known exactly.
    spent = time.process_time()
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            spent += times.user + times.system
    return spent
