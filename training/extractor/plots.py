"""Pictures of a verification: ROC, DET, score histograms, reliability, and the worst mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.extractor import metrics
from training.extractor.input import SignatureSet
from training.extractor.preprocessing import HEIGHT, WIDTH

# Signatures are drawn at half their size.
_HALF = (WIDTH // 2, HEIGHT // 2)

_COLOURS = {"genuine": "#1b7837", "skilled": "#c51b7d", "random": "#4575b4"}


def curves(scores: Sequence[metrics.Scores]) -> bytes:
    """ROC and DET, genuine against skilled and against random: PNG."""
    figure, (roc, det) = _figure(2)
    for kind in ("skilled", "random"):
        _, acceptance, rejection = metrics.error_rates(*metrics.pooled(scores, kind))
        rate = metrics.equal_error_rate(*metrics.pooled(scores, kind))[0]
        label = f"{kind}, EER {rate:.1%}"
        roc.plot(acceptance, 1 - rejection, color=_COLOURS[kind], label=label)
        inside = (acceptance > 0) & (rejection > 0)
        det.plot(acceptance[inside], rejection[inside], color=_COLOURS[kind], label=label)
    roc.set(xlabel="false acceptance", ylabel="genuine accepted", title="ROC", xlim=(0, 1), ylim=(0, 1.01))
    det.set(xscale="log", yscale="log", xlabel="false acceptance", ylabel="false rejection", title="DET")
    det.plot([1e-3, 1], [1e-3, 1], color="0.8", linewidth=1, zorder=0)
    for axes in (roc, det):
        axes.legend(loc="best")
        axes.grid(color="0.92")
    return _png(figure)


def histograms(scores: Sequence[metrics.Scores], threshold: float) -> bytes:
    """Scores of the three kinds of pair, with the threshold that was carried over: PNG."""
    figure, (axes,) = _figure(1)
    bins = np.linspace(-0.5, 1, 76)
    for kind, colour in _COLOURS.items():
        values = np.concatenate([getattr(one, kind) for one in scores])
        axes.hist(np.clip(values, -0.5, 1), bins, density=True, color=colour, alpha=0.5, label=kind)
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="cosine similarity", ylabel="density", title="scores")
    axes.legend(loc="best")
    return _png(figure)


def reliability(rows: Sequence[tuple[float, float, int]], error: float) -> bytes:
    """Share of genuine pairs against the probability that was said: PNG."""
    figure, (axes,) = _figure(1)
    axes.plot([0, 1], [0, 1], color="0.8")
    said, true, counts = zip(*rows, strict=True)
    axes.plot(said, true, color="0.5", linewidth=1)
    axes.scatter(said, true, s=20 + 200 * np.array(counts) / max(counts), color=_COLOURS["genuine"])
    axes.set(xlabel="probability said", ylabel="share genuine", title=f"reliability, mean error {error:.3f}")
    return _png(figure)


def mistakes(signatures: SignatureSet, embeddings: np.ndarray, count: int = 6) -> bytes:
    """The genuine pairs that look least alike and the forgeries that look most so: PNG, white without any."""
    import cv2

    pairs = _worst(signatures, embeddings, False, count) + _worst(signatures, embeddings, True, count)
    rows = []
    for score, first, second in pairs:
        forged = bool(signatures.forged[second])
        row = np.full((_HALF[1] + 22, 2 * _HALF[0] + 12, 3), 255, np.uint8)
        for number, left in ((first, 0), (second, _HALF[0] + 12)):
            drawn = cv2.resize(signatures.images[number], _HALF, interpolation=cv2.INTER_AREA)
            row[22:, left : left + _HALF[0]] = 255 - drawn[..., np.newaxis]
        what = "forged, yet alike" if forged else "both genuine, yet unlike"
        text = f"writer {signatures.names[signatures.writers[first]]}: {what}, {score:.2f}"
        colour = (197, 27, 125) if forged else (27, 120, 55)
        cv2.putText(row, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        rows.append(row)
    if not rows:
        return cv2.imencode(".png", np.full((_HALF[1], 4 * _HALF[0], 3), 255, np.uint8))[1].tobytes()
    if len(rows) % 2:
        rows.append(np.full_like(rows[0], 255))
    half = len(rows) // 2
    columns = [np.vstack(part) for part in (rows[:half], rows[half:])]
    sheet = np.hstack([columns[0], np.full((columns[0].shape[0], 24, 3), 255, np.uint8), columns[1]])
    return cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()


def _worst(
    signatures: SignatureSet, embeddings: np.ndarray, forged: bool, count: int
) -> list[tuple[float, int, int]]:
    """(score, genuine, other), one pair a writer at most."""
    found = []
    for writer in range(len(signatures.names)):
        own, others = signatures.of(writer, False), signatures.of(writer, forged)
        if len(own) < 2 or not len(others):
            continue
        scores = embeddings[own] @ embeddings[others].T
        place = np.unravel_index(scores.argmax() if forged else scores.argmin(), scores.shape)
        found.append((float(scores[place]), int(own[place[0]]), int(others[place[1]])))
    return sorted(found, reverse=forged)[:count]


def _figure(count: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * count, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
