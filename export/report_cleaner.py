"""The cleaner's part of the report: before and after on held-out writers, figures beside baselines."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from export.report_html import picture, section, table, tiles
from export.report_plots import Series, line_chart, points, smooth
from signver import Cleaner, SignVerError
from training import record
from training.cleaner import metrics
from training.cleaner.baselines import BASELINES
from training.cleaner.input import UNTOUCHED_EVERY, evaluation_pairs, load_bank
from training.cleaner.noise import NoiseLevels
from training.errors import UserError
from training.files import read_json

_SHOWN = 12
_FIGURES = ("psnr", "ssim", "rmse", "ink_precision", "ink_recall", "ink_f1", "ink_f1_untouched")


@dataclasses.dataclass(frozen=True)
class CleanerRun:
    """What the part tells of.

    Attributes:
      record: `run.json`.
      train, evaluations: the lines of `metrics.jsonl`.
      validation: what `export validate` found; empty where it did not run.
      figures: name of the model or baseline to its figures, on the same fixed pairs.
      samples: (noisy, cleaned, true) images, uint8 [h, w].
      milliseconds: ONNX Runtime, an image.
      pairs: how many were measured.
      megabytes: of the ONNX file.
    """

    record: Mapping[str, Any]
    train: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    validation: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]
    samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    milliseconds: float
    pairs: int
    megabytes: float


def read_run(
    model_dir: pathlib.Path,
    onnx: pathlib.Path,
    data: pathlib.Path,
    validation: pathlib.Path | None,
    limit: int,
) -> CleanerRun:
    """Runs the ONNX file and the baselines on the fixed pairs of held-out writers.

    Raises:
      UserError: a file is missing or is not what it should be.
    """
    try:
        cleaner = Cleaner().load(onnx)
    except SignVerError as error:
        raise UserError(f"--cleaner_onnx {error}") from error
    logged = record.MetricsFile(model_dir / "metrics.jsonl")
    bank = load_bank(f"{data}/eval*")
    # Evenly through the writers, a multiple of what keeps every eighth pair an untouched one.
    chosen = [
        pair
        for pair in evaluation_pairs(bank, NoiseLevels())
        if len(bank) <= limit or _kept(pair[0], len(bank), limit)
    ]
    answers, seconds = [], []
    for _, noisy, _ in chosen:
        begun = time.perf_counter()
        answers.append(cleaner.clean(Image.fromarray(noisy)))
        seconds.append(time.perf_counter() - begun)
    untouched = [number % UNTOUCHED_EVERY == 0 for number, _, _ in chosen]
    clean = [pair[2] for pair in chosen]
    figures = {"this cleaner": metrics.measure(zip(answers, clean, untouched, strict=True))}
    for name, method in BASELINES.items():
        found = (method(noisy) for _, noisy, _ in chosen)
        figures[name] = metrics.measure(zip(found, clean, untouched, strict=True))
    places = np.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).round().astype(int)
    return CleanerRun(
        record=record.read(model_dir),
        train=list(logged.lines("train")),
        evaluations=list(logged.lines("eval")),
        validation=read_json(validation) if validation else {},
        figures=figures,
        samples=[
            (chosen[place][1], answers[place], clean[place]) for place in dict.fromkeys(places.tolist())
        ],
        milliseconds=1e3 * statistics.median(seconds),
        pairs=len(chosen),
        megabytes=onnx.stat().st_size / 1e6,
    )


def render(run: CleanerRun) -> str:
    """The part as HTML."""
    own = run.figures["this cleaner"]
    identity = run.figures["identity"]
    headline = tiles(
        [
            (
                f"{own['psnr']:.1f} dB",
                "PSNR",
                f"{own['psnr'] - identity['psnr']:+.1f} dB against doing nothing",
            ),
            (f"{own['ink_f1']:.3f}", "ink F1", "pixels darker than a quarter of the range"),
            (
                f"{own.get('ink_f1_untouched', float('nan')):.3f}",
                "ink F1, untouched",
                "crops that were clean",
            ),
            (f"{run.milliseconds:.1f} ms", "an image", f"ONNX Runtime, median; file {run.megabytes:.1f} MB"),
            (_verdict(run.validation), "ONNX file", "against TensorFlow, largest difference of a value"),
        ]
    )
    rows = [
        [name, *(_figure(figures.get(key), key) for key in _FIGURES)] for name, figures in run.figures.items()
    ]
    compared = table(["", *(key.replace("_", " ") for key in _FIGURES)], rows)
    charts = "".join(
        line_chart(title, series, "step", from_zero=zero)
        for title, series, zero in (
            ("Loss", [Series("training", smooth(points(run.train, "training_loss"), 5))], True),
            (
                "PSNR on held-out writers, dB",
                [Series("PSNR", points(run.evaluations, "psnr"), marks=True)],
                False,
            ),
            (
                "Ink F1 on held-out writers",
                [Series("F1", points(run.evaluations, "ink_f1"), marks=True)],
                False,
            ),
        )
    )
    name = html.escape(str(run.record["experiment"]))
    note = f"<p class='note'>{run.pairs} fixed pairs of held-out writers; experiment {name}.</p>"
    return section(
        "Cleaner", headline + _gallery(run) + note + compared + f"<div class='charts'>{charts}</div>"
    )


def _gallery(run: CleanerRun) -> str:
    figures = "".join(
        f"<figure>{picture(noisy, 'before')}{picture(found, 'after')}{picture(clean, 'true ink')}</figure>"
        for noisy, found, clean in run.samples
    )
    title = "Before, after, and the true ink: evenly through the pairs, chosen without looking"
    return f"<h3>{title}</h3><div class='triples'>{figures}</div>"


def _kept(number: int, count: int, limit: int) -> bool:
    block = max(1, count // limit)
    return (number // UNTOUCHED_EVERY) % block == 0


def _verdict(validation: Mapping[str, Any]) -> str:
    if not validation:
        return "–"
    return f"equal, {validation['value']:.0e}" if validation.get("passed") else "NOT equal"


def _figure(value: float | None, key: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if key in ("psnr", "rmse") else f"{value:.3f}"
