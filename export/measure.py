"""Accuracy and speed of an exported ONNX file: AP of a detector, ink F1 of a cleaner, EER of an extractor.

Through the SDK's own code, on synthetic or real data, with the metrics of the training; no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from export import samples
from export.report_pages import Found, PageResult, average_precision, detect_pages
from signver import Cleaner, Detector, MetricExtractor, SignVerError
from training.cleaner.metrics import Totals
from training.data import signatures
from training.data.page import Box, Page
from training.data.synthetic.sheet import CLASSES
from training.extractor import metrics

# Genuine signatures and forgeries of a writer.
_GENUINE, _FORGED = 6, 4
_TIMED = 20


def detector(
    path: pathlib.Path, pages: Sequence[Page], threshold: float, names: Mapping[int, str] = CLASSES
) -> dict[str, float]:
    """Figures over pages with true boxes, for the classes that model and pages have in common.

    Args:
      path: the ONNX file.
      pages: with true boxes.
      threshold: what a box must score for precision and recall.
      names: of the pages' labels; the model may number its classes otherwise.

    Returns:
      `AP` and `AP50`, means over the classes that occur; `precision` and `recall` of the boxes that score at
      least `threshold`, at an overlap of one half. Empty without a class in common.
    """
    model = Detector(1).load(path)
    places = {name.lower(): label for label, name in model.class_names.items()}
    labels = {label: places[name.lower()] for label, name in names.items() if name.lower() in places}
    if not labels:
        return {}
    known_to_both = set(labels.values())
    pages = [
        dataclasses.replace(
            page,
            boxes=tuple(
                dataclasses.replace(box, label=labels[box.label]) for box in page.boxes if box.label in labels
            ),
        )
        for page in pages
    ]

    def find(image: np.ndarray) -> list[Found]:
        found = model.detect(image)
        return [
            Found(Box(box[0], box[1], box[2], box[3], int(label)), float(score))
            for box, score, label in zip(found.boxes.tolist(), found.scores, found.classes, strict=True)
            if int(label) in known_to_both
        ]

    results = detect_pages(find, pages, threshold)
    rows = average_precision(results, sorted(known_to_both)).values()
    known = [row for row in rows if row["AP"] >= 0]
    return {
        **{name: float(np.mean([row[name] for row in known])) if known else 0.0 for name in ("AP", "AP50")},
        **_counted(results),
    }


def _counted(results: Sequence[PageResult]) -> dict[str, float]:
    hits, false, missed = (
        sum(getattr(one, name) for one in results) for name in ("hits", "false_alarms", "misses")
    )
    return {"precision": hits / max(hits + false, 1), "recall": hits / max(hits + missed, 1)}


def cleaner(path: pathlib.Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """`ink_f1`, `psnr` and `ssim` over pairs of noisy crop and ink, uint8 [224, 224] each."""
    model, totals = Cleaner(1).load(path), Totals()
    for noisy, clean in pairs:
        totals.add(model.clean(noisy), clean)
    figures = totals.figures()
    return {name: figures[name] for name in ("ink_f1", "psnr", "ssim")}


def extractor(path: pathlib.Path, drawn: Sequence[tuple[np.ndarray, int, bool]]) -> dict[str, float]:
    """`eer_skilled`, `eer_random` and `auc_skilled` over signatures: (picture, writer, forged)."""
    model = MetricExtractor(1).load(path)
    embeddings, writers, forged = [], [], []
    for picture, writer, is_forged in drawn:
        try:
            embeddings.append(model.extract(picture))
        except SignVerError:
            continue
        writers.append(writer)
        forged.append(is_forged)
    found = metrics.summarise(
        metrics.pair_scores(np.stack(embeddings), np.asarray(writers), np.asarray(forged))
    )
    return {name: found[name] for name in ("eer_skilled", "eer_random", "auc_skilled")}


def signature_set(writers: int, seed: int) -> list[tuple[np.ndarray, int, bool]]:
    """Genuine signatures and skilled forgeries of synthetic writers: (picture, writer, forged)."""
    labels = [(signatures.GENUINE, _GENUINE), (signatures.FORGED, _FORGED)]
    return [
        (samples.signature(seed, writer, number, label), writer, label == signatures.FORGED)
        for writer in range(writers)
        for label, count in labels
        for number in range(count)
    ]


def race(calls: Sequence[Callable[[Any], Any]], items: Sequence[Any]) -> list[float]:
    """Median milliseconds of each call; the calls take turns, so that other work slows all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(_TIMED + 1):
        item = items[number % len(items)]
        for call, taken in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call(item)
            taken.append(1000 * (time.perf_counter() - begun))
    # The first call warms up.
    return [statistics.median(taken[1:]) for taken in times]
