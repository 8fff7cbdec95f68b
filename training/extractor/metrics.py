"""Figures of verification: error rates over pairs, their uncertainty over writers, calibration.

A pair's score is the cosine of two embeddings; with k references it is how near the embedding is to what
they have in common, against how near they are to each other (`pair_scores`). High means genuine. Three kinds
of pair are kept apart: genuine (two genuine signatures of a writer), skilled (a genuine one and a forgery of
it), random (genuine ones of two writers). "Skilled EER" sets genuine against skilled.
Intervals resample writers, not pairs: pairs of one writer are no independent evidence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

_RANDOM_PER_WRITER = 200
# Of `signver.index`.
_RIDGE, _PRIOR_PAIRS = 0.1, 2


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of one writer's pairs, float64 [n] each; high means genuine.

    Attributes:
      writer: who.
      genuine, skilled, random: see the module.
    """

    writer: int
    genuine: np.ndarray
    skilled: np.ndarray
    random: np.ndarray


def pair_scores(
    embeddings: np.ndarray,
    writers: np.ndarray,
    forged: np.ndarray,
    references: int = 1,
    seed: int = 0,
    usual: float | None = None,
) -> list[Scores]:
    """Scores of all writers with enough genuine signatures.

    Args:
      embeddings: float [n, d].
      writers: int [n].
      forged: bool [n].
      references: enrolled genuine signatures; 1 takes every pair once, more draw ten random enrolments a
        writer, each against all signatures that it does not hold.
      seed: of the enrolments and of the random pairs.
      usual: mean cosine of a writer's genuine signatures, `consistency`: several references then score as
        `signver.index.Template` has it. None takes the cosine with their mean.
    """
    unit = embeddings.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found = []
    for writer in np.unique(writers):
        own = np.flatnonzero((writers == writer) & ~forged)
        skilled = np.flatnonzero((writers == writer) & forged)
        others = np.flatnonzero((writers != writer) & ~forged)
        if len(own) <= references:
            continue
        rng = np.random.default_rng([seed, int(writer)])
        others = rng.permutation(others)[:_RANDOM_PER_WRITER]
        if references == 1:
            first, second = np.triu_indices(len(own), 1)
            genuine = (unit[own[first]] * unit[own[second]]).sum(1)
            against = [unit[own] @ unit[group].T for group in (skilled, others)]
        else:
            genuine, against = _enrolled(unit, own, (skilled, others), references, rng, usual)
        found.append(Scores(int(writer), genuine, *(np.ravel(scores) for scores in against)))
    return found


def consistency(scores: Sequence[Scores]) -> float:
    """Mean cosine of a writer's genuine signatures, from scores with one reference; writers count alike."""
    return float(np.mean([one.genuine.mean() for one in scores]))


def _enrolled(
    unit: np.ndarray,
    own: np.ndarray,
    groups: Sequence[np.ndarray],
    references: int,
    rng: np.random.Generator,
    usual: float | None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    genuine, against = [], [[] for _ in groups]  # type: ignore[var-annotated]
    for _ in range(10):
        mixed = rng.permutation(own)
        enrolled = unit[mixed[:references]]
        genuine.append(_similarities(enrolled, unit[mixed[references:]], usual))
        for place, group in enumerate(groups):
            against[place].append(_similarities(enrolled, unit[group], usual))
    return np.concatenate(genuine), [np.concatenate(scores) for scores in against]


def _similarities(references: np.ndarray, rows: np.ndarray, usual: float | None) -> np.ndarray:
    """As `signver.index.Template`, which this package may not import; a test holds them equal.

    Args:
      references: float64 [k, d], of length 1; two at least.
      rows: float64 [n, d], of length 1.
      usual: see `pair_scores`.

    Returns:
      float64 [n].
    """
    count = len(references)
    if usual is None:
        mean = references.mean(axis=0)
        return rows @ mean / max(float(np.linalg.norm(mean)), 1e-12)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = references @ references.T + _RIDGE * np.eye(count)
    system[count, count] = 0
    inverse = np.linalg.inv(system)
    own = np.mean(1 / np.diag(inverse)[:count]) - _RIDGE - _RIDGE / (count - 1)
    own = own * (1 - 1 / count**2) + _RIDGE / count
    prior = (1 - usual) * (1 + 1 / count) + _RIDGE / count
    pairs = count * (count - 1) / 2
    expected = (pairs * own + _PRIOR_PAIRS * prior) / (pairs + _PRIOR_PAIRS)
    near = np.column_stack([rows @ references.T, np.ones(len(rows))])
    return usual + (expected - 1 + ((near @ inverse) * near).sum(axis=1)) / 2


def pooled(scores: Sequence[Scores], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of genuine pairs and of `kind` (skilled or random), of all writers together."""
    joined = [np.concatenate([getattr(one, name) for one in scores] or [[]]) for name in ("genuine", kind)]
    return joined[0], joined[1]


def error_rates(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False acceptance and false rejection at every threshold.

    Returns:
      thresholds float64 [n] rising, and the share of negatives at or above, of positives below each.
    """
    thresholds = np.unique(np.concatenate([positive, negative]))
    thresholds = np.append(thresholds, np.nextafter(thresholds[-1], math.inf))
    acceptance = 1 - np.searchsorted(np.sort(negative), thresholds, "left") / max(len(negative), 1)
    rejection = np.searchsorted(np.sort(positive), thresholds, "left") / max(len(positive), 1)
    return thresholds, acceptance, rejection


def equal_error_rate(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """The rate at which false acceptance equals false rejection, and its threshold, both interpolated.

    NaN where either side is empty.
    """
    if not len(positive) or not len(negative):
        return math.nan, math.nan
    thresholds, acceptance, rejection = error_rates(positive, negative)
    gap = acceptance - rejection  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    if gap[after] == 0 or after == 0:
        return float(acceptance[after]), float(thresholds[after])
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    rate = acceptance[after - 1] + share * (acceptance[after] - acceptance[after - 1])
    return float(rate), float(thresholds[after - 1] + share * (thresholds[after] - thresholds[after - 1]))


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    if not len(positive) or not len(negative):
        return math.nan
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / 2 / len(negative))


def acceptance_at(positive: np.ndarray, negative: np.ndarray, rejection: float) -> float:
    """False acceptance at the threshold that rejects this share of the genuine."""
    if not len(positive) or not len(negative):
        return math.nan
    threshold = np.quantile(positive, rejection, method="lower")
    return float((negative >= threshold).mean())


def accuracy_at(scores: Sequence[Scores], threshold: float, kind: str = "skilled") -> float:
    """Mean of the shares decided rightly on either side: unequal numbers of pairs do not matter."""
    positive, negative = pooled(scores, kind)
    if not len(positive) or not len(negative):
        return math.nan
    return float(((positive >= threshold).mean() + (negative < threshold).mean()) / 2)


def interval(
    scores: Sequence[Scores],
    figure: Callable[[Sequence[Scores]], float],
    repeats: int = 400,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a figure by bootstrap over writers."""
    rng = np.random.default_rng(seed)
    drawn = [figure([scores[n] for n in rng.integers(0, len(scores), len(scores))]) for _ in range(repeats)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def skilled_eer(scores: Sequence[Scores]) -> float:
    """Equal error rate of genuine against skilled."""
    return equal_error_rate(*pooled(scores, "skilled"))[0]


def random_eer(scores: Sequence[Scores]) -> float:
    """Equal error rate of genuine against random."""
    return equal_error_rate(*pooled(scores, "random"))[0]


def summarise(scores: Sequence[Scores]) -> dict[str, float]:
    """Figures of one evaluation: EER, AUC, false acceptance at fixed rejection; calibration."""
    figures: dict[str, float] = {}
    for kind in ("skilled", "random"):
        positive, negative = pooled(scores, kind)
        figures[f"eer_{kind}"], figures[f"threshold_{kind}"] = equal_error_rate(positive, negative)
        figures[f"auc_{kind}"] = area_under_curve(positive, negative)
        for share in (0.01, 0.05):
            figures[f"far_{kind}_at_frr_{share:g}"] = acceptance_at(positive, negative, share)
    if all(map(len, pooled(scores, "skilled"))):
        fitted = calibrate(*pooled(scores, "skilled"))
        figures |= {"calibration_slope": fitted.slope, "calibration_offset": fitted.offset}
    figures["writers"] = float(len(scores))
    return figures


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Turns a score into the probability of "genuine": 1 / (1 + exp(-(slope × score + offset))).

    Fitted on validation writers with both kinds counted alike, so that the prior is even (Platt 1999).
    """

    slope: float
    offset: float

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """float64, of the shape of `scores`."""
        return 1 / (1 + np.exp(-np.clip(self.slope * scores + self.offset, -500, 500)))


def calibrate(positive: np.ndarray, negative: np.ndarray) -> Calibration:
    """Logistic regression of one variable by Newton's method, with a slight pull towards zero."""
    scores = np.concatenate([positive, negative])
    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    weight = np.concatenate([np.full(len(part), 0.5 / max(len(part), 1)) for part in (positive, negative)])
    design = np.column_stack([scores, np.ones_like(scores)])
    found = np.zeros(2)
    for _ in range(50):
        guess = 1 / (1 + np.exp(-np.clip(design @ found, -500, 500)))
        slope = design.T @ (weight * (guess - truth)) + 1e-4 * found
        curve = (design * (weight * guess * (1 - guess))[:, np.newaxis]).T @ design + 1e-4 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        found -= step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(float(found[0]), float(found[1]))


def reliability(
    probability: np.ndarray, truth: np.ndarray, bins: int = 10
) -> tuple[list[tuple[float, float, int]], float]:
    """(mean probability, share genuine, count) of each bin, and the expected calibration error."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            mean, share = float(probability[inside].mean()), float(truth[inside].mean())
            rows.append((mean, share, int(inside.sum())))
            error += inside.mean() * abs(mean - share)
    return rows, float(error)
