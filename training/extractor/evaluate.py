"""Measures a trained extractor on strangers: `python -m training.extractor.evaluate --help`."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import html
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data import location
from training.errors import UserError, run_command
from training.files import atomic_file, write_json

if TYPE_CHECKING:
    from training.extractor.input import SignatureSet
    from training.extractor.metrics import Scores

REFERENCES = (1, 5, 10)
_NOTES = """
Writers of --data must be strangers to the model. The threshold and the calibration come from --calibration
(by default the run's own validation writers) and are carried over unchanged; the equal error rate, which
needs no threshold, is given beside. Intervals are 95 %, by bootstrap over writers.

example:
  python -m training.extractor.evaluate --model_dir=runs/extractor --data='data/other/eval*' \\
      --output=verification.html
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="python -m training.extractor.evaluate",
        description="Error rates of a trained extractor, with pictures.",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model_dir", required=True, help="folder of a run of training.train")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument(
        "--data", required=True, help="TFRecord pattern of a signature set, e.g. 'data/eval*'"
    )
    location.add_argument(parser)
    parser.add_argument("--calibration", help="TFRecord pattern of the writers that fix the threshold")
    parser.add_argument("--repeats", type=int, default=400, help="of the bootstrap (default 400)")
    parser.add_argument("--output", type=pathlib.Path, help="HTML report; figures.json is written beside it")
    return parser.parse_args(arguments)


@dataclasses.dataclass(frozen=True)
class Verification:
    """What an evaluation found.

    Attributes:
      rows: one for each number of references, with figures and intervals.
      shortcuts: name of a cue to its AUC for the label and its skilled EER over pairs.
      threshold, slope, offset: as fixed on the calibration writers, by number of references.
      calibration_error: mean difference between the probability said and the share genuine.
      reliability: rows of `metrics.reliability`.
      scores: by number of references.
      embeddings: float32 [n, d] of the data.
    """

    rows: list[dict[str, Any]]
    shortcuts: dict[str, dict[str, float]]
    threshold: dict[int, float]
    slope: dict[int, float]
    offset: dict[int, float]
    calibration_error: float
    reliability: list[tuple[float, float, int]]
    scores: dict[int, list[Scores]]
    embeddings: np.ndarray

    def leaks(self) -> list[str]:
        """Cues that tell the label nearly by themselves."""
        from training.data.leaks import LEAK

        return [name for name, row in self.shortcuts.items() if row["label_auc"] > LEAK]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": self.rows,
            "shortcuts": self.shortcuts,
            "leaks": self.leaks(),
            "threshold": self.threshold,
            "slope": self.slope,
            "offset": self.offset,
            "calibration_error": self.calibration_error,
        }


def verify(
    embeddings: np.ndarray,
    signatures: SignatureSet,
    calibration_embeddings: np.ndarray,
    calibration: SignatureSet,
    shortcuts: dict[str, dict[str, float]],
    repeats: int = 400,
) -> Verification:
    """All figures; the threshold and the calibration come from the second set alone.

    Raises:
      UserError: sets without two genuine signatures or without a forgery.
    """
    from training.extractor import metrics

    rows, scores, fixed = [], {}, {}
    rest: tuple[list[Any], float] = ([], float("nan"))
    known = (calibration_embeddings, calibration.writers, calibration.forged)
    strange = (embeddings, signatures.writers, signatures.forged)
    singles = metrics.pair_scores(*known)
    usual = metrics.consistency(singles) if singles else None
    for references in REFERENCES:
        held = metrics.pair_scores(*known, references, usual=usual)
        found = metrics.pair_scores(*strange, references, usual=usual)
        if not found or not held:
            if references == 1:
                raise UserError("evaluate: both sets need writers with two genuine signatures.")
            continue
        positive, negative = metrics.pooled(held, "skilled")
        if not len(negative):
            raise UserError("evaluate: the calibration set has no forgery; it fixes no threshold.")
        if not len(metrics.pooled(found, "skilled")[1]):
            raise UserError(
                "evaluate: no writer with two genuine signatures has a forgery, so nothing is told."
            )
        _, threshold = metrics.equal_error_rate(positive, negative)
        calibrated = metrics.calibrate(positive, negative)
        scores[references] = found
        fixed[references] = (threshold, calibrated)
        rows.append(_row(found, references, threshold, repeats))
        if references == 1:
            rest = _reliability(found, calibrated)
    return Verification(
        rows,
        shortcuts,
        {k: threshold for k, (threshold, _) in fixed.items()},
        {k: calibrated.slope for k, (_, calibrated) in fixed.items()},
        {k: calibrated.offset for k, (_, calibrated) in fixed.items()},
        rest[1],
        rest[0],
        scores,
        embeddings,
    )


def shortcut_figures(signatures: SignatureSet, input_path: str) -> dict[str, dict[str, float]]:
    """Trivial cues, of the images as they are (raw) and of what the network sees."""
    from training.data import leaks
    from training.extractor import metrics, shortcuts

    cues = {f"{name} (raw)": value for name, value in shortcuts.raw_cues(input_path).items()}
    cues |= shortcuts.normalised_cues(signatures)
    figures = {}
    for name, cue in cues.items():
        scores = shortcuts.cue_scores(cue, signatures.writers, signatures.forged)
        figures[name] = {
            "label_auc": leaks.separation(cue, signatures.forged),
            "eer_skilled": metrics.skilled_eer(scores),
        }
    return figures


def _row(found: Sequence[Scores], references: int, threshold: float, repeats: int) -> dict[str, Any]:
    from training.extractor import metrics

    row: dict[str, Any] = {"references": references, **metrics.summarise(found)}
    row["accuracy"] = metrics.accuracy_at(found, threshold)
    figures = {
        "eer_skilled": metrics.skilled_eer,
        "eer_random": metrics.random_eer,
        "accuracy": lambda scores: metrics.accuracy_at(scores, threshold),
    }
    for name, figure in figures.items():
        row[f"{name}_interval"] = metrics.interval(found, figure, repeats)
    return row


def _reliability(found: Sequence[Scores], calibrated: Any) -> tuple[list[Any], float]:
    from training.extractor import metrics

    positive, negative = metrics.pooled(found, "skilled")
    # Both kinds count alike, as in the calibration.
    count = min(len(positive), len(negative))
    rng = np.random.default_rng(0)
    chosen = np.concatenate([rng.permutation(part)[:count] for part in (positive, negative)])
    truth = np.repeat([1.0, 0.0], count)
    return metrics.reliability(calibrated.probability(chosen), truth)


def text(found: Verification) -> str:
    """The figures as a table."""
    head = f"{'references':>10} {'skilled EER':>24} {'AUC':>7} {'FAR@FRR1%':>10} {'FAR@FRR5%':>10}"
    lines = [head + f" {'random EER':>24} {'accuracy, carried threshold':>30}"]
    for row in found.rows:
        lines.append(
            f"{row['references']:10d} {_with_interval(row, 'eer_skilled'):>24} {row['auc_skilled']:7.3f} "
            f"{row['far_skilled_at_frr_0.01']:10.3f} {row['far_skilled_at_frr_0.05']:10.3f} "
            f"{_with_interval(row, 'eer_random'):>24} {_with_interval(row, 'accuracy'):>30}"
        )
    lines += ["", f"{'shortcut':22} {'label AUC':>10} {'skilled EER':>12}"]
    for name, cue in found.shortcuts.items():
        lines.append(f"{name:22} {cue['label_auc']:10.3f} {cue['eer_skilled']:12.3f}")
    if found.leaks():
        lines.append(
            f"\nThis set leaks: {', '.join(found.leaks())} alone tells much of the label. The network sees "
            "no grey level; what shape and stroke width give away remains."
        )
    return "\n".join(lines)


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.1%} [{low:.1%}, {high:.1%}]"


def write_report(found: Verification, signatures: SignatureSet, title: str, output: pathlib.Path) -> None:
    """One HTML page with pictures, and figures.json beside it."""
    from training.extractor import plots

    pictures = {
        "ROC and DET, one reference": plots.curves(found.scores[1]),
        "Scores, one reference": plots.histograms(found.scores[1], found.threshold[1]),
        "Is a probability of 80 % right in 80 %?": plots.reliability(
            found.reliability, found.calibration_error
        ),
        "The worst mistakes": plots.mistakes(signatures, found.embeddings),
    }
    parts = [f"<h1>{html.escape(title)}</h1><pre>{html.escape(text(found))}</pre>"]
    for name, png in pictures.items():
        encoded = base64.b64encode(png).decode()
        parts.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{encoded}">')
    style = "body{font:15px system-ui;margin:2em auto;max-width:75em}pre{overflow-x:auto}img{max-width:100%}"
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as temporary:
        temporary.write_text(page + "".join(parts), encoding="utf-8")
    write_json(output.with_name("figures.json"), found.as_dict())


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.repeats < 10:
        raise UserError("--repeats must be at least 10.")
    from training.extractor.input import load_set
    from training.extractor.model import embed
    from training.runner import load_model

    loaded = load_model(arguments.model_dir, arguments.checkpoint)
    if loaded.experiment != "extractor_metric":
        raise UserError(f"--model_dir {arguments.model_dir}: {loaded.experiment}, not an extractor.")
    held_path = arguments.calibration or loaded.params.task.validation_data.input_path
    signatures, held = load_set(arguments.data), load_set(held_path)
    found = verify(
        embed(loaded.model, signatures.images),
        signatures,
        embed(loaded.model, held.images),
        held,
        shortcut_figures(signatures, arguments.data),
        arguments.repeats,
    )
    print(text(found))
    if arguments.output:
        title = f"{arguments.model_dir} on {arguments.data}: {len(signatures.names)} writers"
        write_report(found, signatures, title, arguments.output)
        print(f"\n{arguments.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
