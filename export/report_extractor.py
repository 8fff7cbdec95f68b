"""The extractor's part of the report: how well it tells strangers' hands apart, and where it errs."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from export.report_html import png_picture, section, table, tiles
from signver import MetricExtractor, SignVerError
from training import record
from training.errors import UserError
from training.extractor import metrics
from training.extractor.baselines import direction_histograms
from training.extractor.evaluate import REFERENCES, shortcut_figures

if TYPE_CHECKING:
    from training.extractor.input import SignatureSet


@dataclasses.dataclass(frozen=True)
class ExtractorRun:
    """What the part tells of.

    Attributes:
      record: `run.json`.
      rows: name of the extractor, or of what it is compared with, to its figures by number of references.
      shortcuts: name of a trivial cue to its skilled EER with one reference.
      pictures: title to PNG.
      signatures, writers: how many were measured.
      milliseconds: ONNX Runtime, an embedding.
      length: of an embedding.
      megabytes: of the ONNX file.
    """

    record: Mapping[str, Any]
    rows: Mapping[str, Mapping[int, Mapping[str, float]]]
    shortcuts: Mapping[str, float]
    pictures: Mapping[str, bytes]
    signatures: int
    writers: int
    milliseconds: float
    length: int
    megabytes: float


def read_run(model_dir: pathlib.Path, onnx: pathlib.Path, data: pathlib.Path) -> ExtractorRun:
    """Runs the ONNX file on the signatures of held-out writers.

    Raises:
      UserError: a file is missing or is not what it should be, or no writer can be measured.
    """
    # These load TensorFlow, which a report without an extractor does not need.
    from training.extractor import plots
    from training.extractor.input import load_set

    try:
        extractor = MetricExtractor().load(onnx)
    except SignVerError as error:
        raise UserError(f"--extractor_onnx {error}") from error
    path = f"{data}/eval*"
    signatures = load_set(path)
    rows, seconds = [], []
    for image in signatures.images:
        begun = time.perf_counter()
        rows.append(extractor.embed([image.astype(np.float32) / 255])[0])
        seconds.append(time.perf_counter() - begun)
    embeddings = np.stack(rows)
    scores = _singles(embeddings, signatures)
    positive, negative = metrics.pooled(scores, "skilled")
    if not len(positive) or not len(negative):
        raise UserError(f"{path}: no writer has two genuine signatures and a forgery.")
    histograms = direction_histograms(signatures.images)
    histograms -= histograms.mean(axis=0)
    _, threshold = metrics.equal_error_rate(positive, negative)
    return ExtractorRun(
        record=record.read(model_dir),
        rows={
            "this extractor": _figures(scores, embeddings, signatures),
            "histograms of directions": _figures(_singles(histograms, signatures), histograms, signatures),
        },
        shortcuts={
            name: figures["eer_skilled"] for name, figures in shortcut_figures(signatures, path).items()
        },
        pictures={
            "ROC and DET, one reference": plots.curves(scores),
            "Scores, one reference": plots.histograms(scores, threshold),
            "The worst mistakes": plots.mistakes(signatures, embeddings),
        },
        signatures=len(signatures.images),
        writers=len(signatures.names),
        milliseconds=1e3 * statistics.median(seconds),
        length=extractor.length,
        megabytes=onnx.stat().st_size / 1e6,
    )


def _singles(embeddings: np.ndarray, signatures: SignatureSet) -> list[metrics.Scores]:
    """Scores with one reference."""
    return metrics.pair_scores(embeddings, signatures.writers, signatures.forged)


def _figures(
    singles: Sequence[metrics.Scores], embeddings: np.ndarray, signatures: SignatureSet
) -> dict[int, dict[str, float]]:
    """By number of references, as many as writers have signatures for."""
    known = (embeddings, signatures.writers, signatures.forged)
    usual = metrics.consistency(singles)
    found = {}
    for references in REFERENCES:
        scores = singles if references == 1 else metrics.pair_scores(*known, references, usual=usual)
        if scores:
            low, high = metrics.interval(scores, metrics.skilled_eer)
            found[references] = {**metrics.summarise(scores), "low": low, "high": high}
    return found


def render(run: ExtractorRun) -> str:
    """The part as HTML."""
    own = run.rows["this extractor"]
    best = min(run.shortcuts, key=lambda name: run.shortcuts[name])
    figures = [
        (_percent(row["eer_skilled"]), "skilled EER", f"{_words(references)}; {_interval(row)}")
        for references, row in own.items()
    ]
    figures += [
        (_percent(own[1]["eer_random"]), "random EER", "one reference against other writers"),
        (_percent(run.shortcuts[best]), "best trivial cue", f"{best}, one reference"),
        (
            f"{run.milliseconds:.1f} ms",
            "an embedding",
            f"{run.length} values, ONNX Runtime, median; file {run.megabytes:.1f} MB",
        ),
    ]
    head = ["", *(f"skilled EER, {_words(references)}" for references in own), "random EER", "skilled AUC"]
    compared = table(head, [_row(name, found) for name, found in run.rows.items()])
    cues = table(["trivial cue", "skilled EER"], [[name, _percent(v)] for name, v in run.shortcuts.items()])
    shown = "".join(
        f"<h3>{html.escape(title)}</h3><div class='wide'>{png_picture(png, title)}</div>"
        for title, png in run.pictures.items()
    )
    name = html.escape(str(run.record["experiment"]))
    note = (
        f"<p class='note'>{run.signatures} signatures of {run.writers} writers whom training never saw, "
        f"through the ONNX file; experiment {name}. EER: at the threshold that accepts as many forgeries as "
        "it rejects genuine signatures; intervals are 95 %, by bootstrap over writers. A trivial cue that "
        "does well means that the data give the answer away.</p>"
    )
    return section("Extractor", tiles(figures) + note + compared + cues + shown)


def _row(name: str, found: Mapping[int, Mapping[str, float]]) -> Sequence[str]:
    rates = [f"{_percent(row['eer_skilled'])} ({_interval(row)})" for row in found.values()]
    return [name, *rates, _percent(found[1]["eer_random"]), f"{found[1]['auc_skilled']:.3f}"]


def _words(references: int) -> str:
    return "one reference" if references == 1 else f"{references} references"


def _interval(row: Mapping[str, float]) -> str:
    return f"{_percent(row['low'])} to {_percent(row['high'])}"


def _percent(value: float) -> str:
    return f"{value:.1%}"
