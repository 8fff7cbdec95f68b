"""How a plan changes: from one signing to the next, and in the eyes of somebody who copies it.

A hand does not repeat a signature target by target with independent errors. It writes the whole a little
wider, leans or rises, hurries a letter away, ends the tail elsewhere; names move against each other. A
forger repeats somebody else's proportions as he sees them: his errors are of the same kinds, larger, and the
same in all his forgeries of one signature. Variation of either kind is therefore smooth along the signature;
on top of it comes what each target does alone.

Kinds and sizes were chosen by eye, on real signatures beside synthetic ones; `docs/realism.md` has what each
did to the figures.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from training.data.synthetic.stroke import Stroke

# Points that a smooth random function is drawn at; it runs straight between them.
_KNOTS = 6


def vary(plan: list[Stroke], amount: float, rng: np.random.Generator) -> list[Stroke]:
    """A plan with all the changes of one execution, or of one forger's view of it.

    Args:
      plan: targets in letter heights.
      amount: 0 leaves the plan as it is, 1 is an ordinary writer on an ordinary day, 3 a poor copy.
      rng: of this execution.

    Returns:
      A new plan; it may lack a stroke or two, where a hurried hand leaves them out.
    """
    if amount <= 0 or len(plan) < 2:
        return list(plan)
    kept = _hurried(plan, amount, rng)
    targets = np.array([stroke.target for stroke in kept])
    targets = _proportions(targets, amount, rng)
    targets += _pieces([stroke.pen_down for stroke in kept], amount, rng)
    lengths = np.hypot(*np.diff(np.vstack([targets[:1], targets]), axis=0).T)
    # Long strokes miss by more (Fitts 1954): tails and underlines never end in the same place.
    targets += amount * 0.06 * np.sqrt(np.maximum(lengths, 0.3))[:, None] * rng.normal(0, 1, targets.shape)
    targets[:, 0] += amount * 0.05 * lengths * rng.normal(0, 1, len(lengths))
    turns = np.array([stroke.turn for stroke in kept])
    turns = turns * np.exp(rng.normal(0, 0.1 * amount, len(turns))) + rng.normal(0, 0.1 * amount, len(turns))
    return [
        dataclasses.replace(stroke, target=(float(x), float(y)), turn=float(np.clip(turn, -3.0, 3.0)))
        for stroke, (x, y), turn in zip(kept, targets, turns, strict=True)
    ]


def _hurried(plan: list[Stroke], amount: float, rng: np.random.Generator) -> list[Stroke]:
    """Leaves out a few of the short strokes, never the first or the last."""
    kept = [plan[0]]
    for before, stroke in itertools.pairwise(plan[:-1]):
        length = np.hypot(stroke.target[0] - before.target[0], stroke.target[1] - before.target[1])
        if not (stroke.pen_down and length < 1.2 and rng.random() < 0.025 * amount):
            kept.append(stroke)
    return [*kept, plan[-1]]


def _proportions(targets: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Widths, heights and the baseline change smoothly along x; the whole is stretched and tilted."""
    x, y = targets.T
    low, high = x.min(), max(x.max(), x.min() + 1.0)
    along = np.linspace(low, high, 8 * _KNOTS)
    wider = np.exp(_smooth(along, 0.16 * amount, rng) + rng.normal(0, 0.08 * amount))
    steps = np.concatenate([[0.0], np.cumsum(0.5 * (wider[1:] + wider[:-1]) * np.diff(along))])
    moved = low + np.interp(x, along, steps)
    taller = np.exp(np.interp(x, along, _smooth(along, 0.12 * amount, rng)))
    baseline = np.interp(x, along, _smooth(along, 0.15 * amount, rng)) + rng.normal(0, 0.03 * amount) * moved
    # Capitals and small letters are not made larger together.
    capitals = np.exp(rng.normal(0, 0.1 * amount))
    heights = np.where(y < -1.2, -1.2 + (y + 1.2) * capitals, y)
    return np.column_stack([moved + rng.normal(0, 0.06 * amount) * heights, heights * taller + baseline])


def _smooth(along: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    knots = np.linspace(along[0], along[-1], _KNOTS)
    return np.interp(along, knots, rng.normal(0, deviation, _KNOTS))


def _pieces(pen_down: list[bool], amount: float, rng: np.random.Generator) -> np.ndarray:
    """What is written without lifting the pen moves as one, float64 [n, 2]."""
    piece = np.cumsum(~np.array(pen_down))
    offsets = rng.normal(0, 0.16 * amount, (int(piece.max()) + 1, 2))
    offsets[0] = 0
    return offsets[piece]
