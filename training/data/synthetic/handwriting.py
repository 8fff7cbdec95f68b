"""Handwriting as movement: signatures, initials, dates and notes from a kinematic model.

Every pen movement is a sum of strokes whose speed over time is a lognormal bell and whose direction
turns along the bell (the sigma-lognormal model): Plamondon, "A kinematic theory of rapid human
movements" (Biological Cybernetics, 1995); O'Reilly and Plamondon, "Development of a Sigma-Lognormal
representation for on-line signatures" (Pattern Recognition, 2009). Signatures synthesised with it were
shown to behave like real ones by Ferrer, Diaz-Cabrera and Morales, "Static signature synthesis: a
neuromotor inspired approach" (IEEE TPAMI, 2015).

A writer owns a plan (the targets the hand aims at) and traits (slant, overlap of strokes, pen). Each
specimen executes the plan anew: targets, angles and timing vary a little, as a hand does. A forger
executes somebody else's plan slowly: strokes overlap less, proportions slip, the hand trembles.

Lengths are in units of the height of a lower-case letter; x runs right, y runs down, 0 on the baseline.
"""

from __future__ import annotations

import dataclasses
import math
import re

import cv2
import numpy as np
from scipy.special import erf

from training.data.synthetic import letters
from training.data.synthetic.stroke import Stroke
from training.data.synthetic.variation import vary

# Samples a second: twice the 100 Hz of the tablets on which the model was fitted.
_RATE = 200.0
# Time constant of a lognormal stroke; exp(_MU) seconds is its median duration.
_MU = -1.9


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """An executed movement, sampled at 200 Hz.

    Attributes:
      points: float64 [n, 2], x and y.
      speed: float64 [n], units a second; a sum of lognormal bells.
      pen_down: bool [n].
    """

    points: np.ndarray
    speed: np.ndarray
    pen_down: np.ndarray


@dataclasses.dataclass(frozen=True)
class Hand:
    """Traits of a hand.

    Attributes:
      slant: horizontal shift per unit of height.
      pace: seconds between the starts of two strokes; small is fluent, large is drawn.
      sigma: width of the lognormal bell, in log seconds.
      wobble: standard deviation of a target from one execution to the next, in letter heights.
      tremor: amplitude of the 8 to 12 Hz shake, in letter heights.
      stretch: width of letters against their height.
      width: pen width, in letter heights.
      pressure: how much slow movements thicken the line.
      spread: how much whole signatures differ from each other, the amount of `variation.vary`.
    """

    slant: float
    pace: float
    sigma: float
    wobble: float
    tremor: float
    stretch: float
    width: float
    pressure: float
    spread: float


class Writer:
    """A person who signs: the same seed gives the same hand, signature plan and initials plan."""

    def __init__(self, seed: int):
        rng = np.random.default_rng([0x5165, seed])
        self.seed = seed
        self.hand = Hand(
            slant=rng.normal(0.35, 0.25),
            pace=rng.uniform(0.055, 0.10),
            sigma=rng.uniform(0.22, 0.36),
            wobble=rng.uniform(0.03, 0.09),
            tremor=0.0,
            stretch=float(np.exp(rng.normal(0.15, 0.3))),
            width=rng.uniform(0.06, 0.17),
            pressure=rng.uniform(0.1, 0.6),
            spread=float(np.exp(rng.normal(-0.4, 0.4))),
        )
        self.plan = signature_plan(rng, self.hand.stretch)
        self.initials_plan = initials_plan(rng, self.hand.stretch)

    def signature(self, rng: np.random.Generator) -> Trajectory:
        """One genuine signature."""
        return self._sign(self.plan, rng)

    def initials(self, rng: np.random.Generator) -> Trajectory:
        """One genuine set of initials."""
        return self._sign(self.initials_plan, rng)

    def _sign(self, plan: list[Stroke], rng: np.random.Generator) -> Trajectory:
        hand = self.hand
        today = dataclasses.replace(
            hand,
            slant=hand.slant + rng.normal(0, 0.05 * hand.spread),
            pace=hand.pace * float(np.exp(rng.normal(0, 0.12))),
        )
        return execute(vary(plan, hand.spread, rng), today, rng)

    def forge(self, other: Writer, rng: np.random.Generator) -> Trajectory:
        """A skilled forgery: the other's plan as this forger sees it, copied with care.

        What the forger sees wrong, he sees wrong each time; how well he has practised differs from one to the
        next. The better of them write as fluently as the owner.
        """
        view = np.random.default_rng([0xF0, *_words(self.seed), *_words(other.seed)])
        practised = view.random()
        mine, theirs = self.hand, other.hand
        hand = dataclasses.replace(
            theirs,
            slant=theirs.slant + 0.35 * (mine.slant - theirs.slant) + view.normal(0, 0.06),
            pace=theirs.pace * (1.05 + view.uniform(0.1, 0.8) * (1 - practised)),
            sigma=theirs.sigma * view.uniform(0.75, 1.0),
            wobble=theirs.wobble * rng.uniform(1.0, 1.6),
            tremor=view.exponential(0.015) * (1 - practised),
            width=mine.width,
            pressure=mine.pressure,
        )
        seen = vary(other.plan, float(view.uniform(1.3, 2.6)), view)
        return execute(vary(_hesitant(seen, 1 - practised, rng), 0.8, rng), hand, rng)

    def write(self, text: str, rng: np.random.Generator) -> Trajectory:
        """Digits, `/`, `-`, `.` and spaces as written by this hand; letters become cursive words."""
        strokes: list[Stroke] = []
        x = 0.0
        # A word is one run of joined letters, its dots set at its end; anything else stands alone.
        for piece in re.findall(r"[^\W\d_]+|.", text, flags=re.DOTALL):
            if piece in GLYPHS:
                strokes += _glyph(piece, x, self.hand.stretch)
                x += GLYPH_ADVANCE[piece] * self.hand.stretch * rng.uniform(0.9, 1.15)
            elif piece.isspace():
                x += rng.uniform(0.8, 1.4) * self.hand.stretch
                strokes.append(Stroke((x, -0.2), 0.3, pen_down=False))
            else:
                body, x = _letters(rng, x, len(piece), self.hand.stretch, 1.0, piece[0].isupper())
                strokes += body
        return execute(strokes, self._careful(), rng)

    def spell(self, words: str, rng: np.random.Generator) -> Trajectory:
        """Words that can be read, in this hand's cursive; digits and signs as in `write`."""
        strokes, _ = _spelled(words, self.hand.stretch, 1.0, 1.0, rng)
        return execute(strokes or [Stroke((0.5, 0.0), 0.1)], self._careful(), rng)

    def sign_name(self, name: str, rng: np.random.Generator) -> Trajectory:
        """A signature that spells a name: tall capitals, letters that flatten, perhaps a flourish."""
        capital, legibility = rng.uniform(1.0, 1.7), rng.uniform(0.45, 1.0)
        strokes, x = _spelled(name, self.hand.stretch, capital, legibility, rng)
        # An arc as wide as a whole name is no movement of the wrist.
        end = [
            dataclasses.replace(stroke, turn=math.copysign(min(abs(stroke.turn), 1.8), stroke.turn))
            for stroke in _flourish(rng, x, 0.0)
        ]
        return execute(strokes + end, dataclasses.replace(self.hand, pace=1.15 * self.hand.pace), rng)

    def _careful(self) -> Hand:
        """The hand that writes what is to be read: slower than it signs, and it aims better."""
        return dataclasses.replace(self.hand, wobble=0.7 * self.hand.wobble, pace=1.3 * self.hand.pace)


def _words(seed: int) -> tuple[int, int]:
    return seed & 0xFFFFFFFF, seed >> 32


def _hesitant(plan: list[Stroke], share: float, rng: np.random.Generator) -> list[Stroke]:
    """Stops where the owner runs through: the pen is lifted and set down again, a little off."""
    result: list[Stroke] = []
    for stroke in plan:
        result.append(stroke)
        if stroke.pen_down and rng.random() < 0.05 * share:
            x, y = stroke.target
            result.append(Stroke((x + rng.normal(0, 0.12), y + rng.normal(0, 0.12)), 0.1, pen_down=False))
    return result


def execute(plan: list[Stroke], hand: Hand, rng: np.random.Generator) -> Trajectory:
    """Moves the pen along a plan: the vector sum of one lognormal stroke per target.

    Overlapping strokes cut corners and make loops round, as in fluent writing; strokes that hardly
    overlap stop at every target, as in careful drawing.
    """
    count = len(plan)
    targets = np.array([stroke.target for stroke in plan]) + rng.normal(0, hand.wobble, (count, 2))
    targets[:, 0] -= hand.slant * targets[:, 1]
    turns = np.array([stroke.turn for stroke in plan]) + rng.normal(0, 0.12, count)
    turns = np.where(np.abs(turns) < 1e-2, 1e-2, turns)
    chords = np.diff(np.vstack([[0.0, 0.0], targets]), axis=0)
    lengths = np.maximum(np.hypot(*chords.T), 1e-3)
    # A longer stroke takes longer, though far less than in proportion (isochrony).
    intervals = hand.pace * np.clip(lengths, 0.3, 20) ** 0.3 * np.exp(rng.normal(0, 0.08, count))
    starts = np.cumsum(intervals) - intervals[0]
    middle = np.arctan2(chords[:, 1], chords[:, 0])
    arcs = lengths * (turns / 2) / np.sin(turns / 2)
    times = np.arange(0, starts[-1] + 0.5, 1 / _RATE)
    progress, bells = lognormal(times, starts, _MU, hand.sigma)
    angles = middle - turns / 2 + turns * progress
    start_angles = middle - turns / 2
    x = (arcs / turns * (np.sin(angles) - np.sin(start_angles))).sum(axis=1)
    y = (arcs / turns * (np.cos(start_angles) - np.cos(angles))).sum(axis=1)
    velocity_x = (arcs * bells * np.cos(angles)).sum(axis=1)
    velocity_y = (arcs * bells * np.sin(angles)).sum(axis=1)
    points = np.stack([x, y], axis=1)
    if hand.tremor:
        points = points + tremor(times, hand.tremor, rng)
    # The stroke that is at its peak owns the moment.
    owner = np.clip(np.searchsorted(starts + math.exp(_MU) * 0.75, times, side="right") - 1, 0, count - 1)
    pen_down = np.array([stroke.pen_down for stroke in plan])[owner]
    return Trajectory(points, np.hypot(velocity_x, velocity_y), pen_down)


def lognormal(
    times: np.ndarray, starts: np.ndarray, mu: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each stroke done, and its speed as a share of its length, both float64 [times, strokes]."""
    elapsed = np.maximum(times[:, None] - starts[None], 1e-9)
    deviation = (np.log(elapsed) - mu) / sigma
    progress = 0.5 * (1 + erf(deviation / math.sqrt(2)))
    bells = np.exp(-0.5 * deviation**2) / (elapsed * sigma * math.sqrt(2 * math.pi))
    return progress, bells


def tremor(times: np.ndarray, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """A shake of 8 to 12 Hz, the band of physiological tremor; float64 [times, 2]."""
    frequencies = rng.uniform(8, 12, (3, 1, 2))
    phases = rng.uniform(0, 2 * math.pi, (3, 1, 2))
    return amplitude * np.sin(2 * math.pi * frequencies * times[None, :, None] + phases).mean(axis=0)


def signature_plan(rng: np.random.Generator, stretch: float) -> list[Stroke]:
    """What a person means to write: capitals, a body that decays, perhaps a second name and a flourish."""
    strokes: list[Stroke] = []
    x = 0.0
    legibility = rng.uniform(0.15, 1.0)
    names = int(rng.choice([1, 2, 3], p=[0.35, 0.5, 0.15]))
    stacked = names > 1 and rng.random() < 0.08
    lifted = 0.8 * rng.random() if rng.random() < 0.15 else 0.0
    for name in range(names):
        letters = int(rng.integers(2, 9))
        capital = name == 0 or rng.random() < 0.8
        middle_initial = names == 3 and name == 1
        start = x
        body, x = _letters(rng, x, 1 if middle_initial else letters, stretch, legibility, capital, lifted)
        if stacked and name == names - 1:
            back = start * rng.uniform(0.6, 1.0)
            body = [_moved(stroke, -back, rng.uniform(2.2, 3.2)) for stroke in body]
            strokes.append(Stroke((start - back, 1.0), 0.2, pen_down=False))
        strokes += body
        x += rng.uniform(0.1, 0.9) * stretch
        if name + 1 < names and rng.random() < 0.7:
            strokes.append(Stroke((x, -rng.uniform(0, 2)), 0.2, pen_down=False))
    strokes += _flourish(rng, x, strokes[-1].target[1])
    # Many sign upwards, some steeply, few downwards.
    rise = rng.normal(0.05, 0.06) if rng.random() < 0.75 else rng.uniform(0.1, 0.6)
    return [_moved(stroke, 0.0, -rise * stroke.target[0]) for stroke in strokes]


def _moved(stroke: Stroke, right: float, down: float) -> Stroke:
    return dataclasses.replace(stroke, target=(stroke.target[0] + right, stroke.target[1] + down))


def initials_plan(rng: np.random.Generator, stretch: float) -> list[Stroke]:
    """Two or three capitals run together, often circled off with a tail."""
    strokes: list[Stroke] = []
    x = 0.0
    for _ in range(int(rng.integers(1, 4))):
        body, x = _capital(rng, x, stretch)
        strokes += body
        x -= rng.uniform(0, 0.5) * stretch
        if rng.random() < 0.3:
            strokes.append(Stroke((x, -rng.uniform(1, 2)), 0.1, pen_down=False))
    if rng.random() < 0.4:
        strokes.append(Stroke((x + rng.uniform(0.5, 2.5), rng.uniform(-1.0, 0.6)), rng.normal(0, 1)))
    return strokes


def _letters(
    rng: np.random.Generator,
    x: float,
    count: int,
    stretch: float,
    legibility: float,
    capital: bool,
    lifted: float = 0.0,
) -> tuple[list[Stroke], float]:
    """A run of letters; heights decay and widths grow where the writer does not care to be read.

    `lifted` is the probability that the pen is lifted between two letters.
    """
    strokes: list[Stroke] = []
    if capital:
        strokes, x = _capital(rng, x, stretch)
        count -= 1
    marks: list[Stroke] = []
    for number in range(max(count, 0)):
        decay = legibility + (1 - legibility) * math.exp(-0.5 * number)
        width = stretch * rng.uniform(0.35, 0.75) * (2.0 - decay)
        if lifted and rng.random() < lifted:
            x += 0.15 * width
            strokes.append(Stroke((x, -rng.uniform(0.2, 1.0) * decay), 0.1, pen_down=False))
        strokes += _letter(rng, x, width, decay)
        if rng.random() < 0.12 * legibility:
            dot = x + 0.7 * width
            marks += [
                Stroke((dot, -2.1), 0.1, pen_down=False),
                Stroke((dot + rng.uniform(0.1, 1.2), -2.15), 0.1),
            ]
        x += width
    if marks:
        strokes += [*marks, Stroke((x, -0.2), 0.3, pen_down=False)]
    return strokes, x


def _letter(rng: np.random.Generator, x: float, width: float, decay: float) -> list[Stroke]:
    """One small letter of no alphabet: the movements that letters are made of."""
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    if kind == "round":
        top = decay
        return [
            Stroke((x + 0.9 * width, -top), -1.2), Stroke((x, -0.5 * top), -1.6),
            Stroke((x + 0.5 * width, 0.0), -1.6), Stroke((x + width, -top), -1.0),
            Stroke((x + 0.75 * width, rng.normal(0, 0.08)), -rng.uniform(0.0, 1.0)),
        ]  # fmt: skip
    if kind == "arch":  # n, m, h: over the top and straight down
        humps = int(rng.integers(1, 4))
        places = [x + width * (hump + 1) / humps for hump in range(humps)]
        up = [Stroke((place - 0.45 * width / humps, -decay), 1.1) for place in places]
        down = [Stroke((place, rng.normal(0, 0.06)), 0.7) for place in places]
        return [stroke for pair in zip(up, down, strict=True) for stroke in pair]
    if kind == "angle":  # v, w, i: up and down in straight lines
        return [Stroke((x + 0.5 * width, -decay), 0.1), Stroke((x + width, rng.normal(0, 0.06)), 0.15)]
    if kind == "loop":  # e, l: round and across itself
        top = rng.choice([1.0, 2.2]) * decay
        return [
            Stroke((x + 0.9 * width, -0.7 * top), -0.9), Stroke((x + 0.4 * width, -top), -1.6),
            Stroke((x + 0.3 * width, -0.2 * top), -1.1), Stroke((x + width, -0.05), -1.5),
        ]  # fmt: skip
    top = decay * (rng.uniform(1.8, 2.8) if kind == "tall" else 1.0)
    bottom = rng.uniform(0.9, 1.9) * decay if kind == "low" else rng.normal(0, 0.08)
    strokes = [
        Stroke((x + 0.6 * width, -top), -rng.uniform(0.2, 1.3)),
        Stroke((x + (0.35 if kind == "low" else 0.75) * width, bottom), -rng.uniform(0.0, 1.0)),
    ]
    return [*strokes, Stroke((x + width, -0.3), -1.5)] if kind == "low" else strokes


# How often small letters are of a kind.
_KINDS = {"x": 0.26, "tall": 0.14, "low": 0.1, "round": 0.15, "arch": 0.15, "angle": 0.1, "loop": 0.1}


def _capital(rng: np.random.Generator, x: float, stretch: float) -> tuple[list[Stroke], float]:
    """A large opening letter: a stem, a bowl, an oval, a zigzag or a looped stem."""
    height = rng.uniform(2.0, 4.2)
    width = stretch * rng.uniform(0.8, 2.2)
    drop = rng.uniform(-0.1, 0.6)
    start = Stroke((x + rng.uniform(0, 0.4) * width, -height * rng.uniform(0.6, 1.0)), 0.1, pen_down=False)
    side = float(rng.choice([-1.0, 1.0]))
    kinds = {
        "stem": [
            Stroke((x, drop), 0.2 * side),
            Stroke((x + width, -height), -1.0),
            Stroke((x + width, 0.0), 0.4),
        ],
        "bowl": [
            Stroke((x, drop), 0.2),
            Stroke((x + 0.2 * width, -height), -0.6),
            Stroke((x + width, -0.7 * height), 1.6),
            Stroke((x + 0.3 * width, -0.4 * height), 1.6),
            Stroke((x + width, 0.0), 0.3),
        ],
        "oval": [
            Stroke((x, -0.5 * height), -1.6),
            Stroke((x + 0.5 * width, drop), -1.5),
            Stroke((x + width, -0.5 * height), -1.6),
            Stroke((x + 0.4 * width, -height), -1.6),
            Stroke((x + width, -0.2 * height), 1.0 * side),
        ],
        "zigzag": [
            Stroke((x, drop), 0.1),
            Stroke((x + 0.4 * width, -height), 0.1),
            Stroke((x + 0.55 * width, drop), 0.1),
            Stroke((x + width, -height), 0.2),
            Stroke((x + width, drop), 0.3),
        ],
        "loop": [
            Stroke((x + 0.2 * width, drop + 0.6), 0.3),
            Stroke((x - 0.4 * width, 0.0), 2.2),
            Stroke((x + 0.8 * width, -0.9 * height), -0.8),
            Stroke((x + 0.5 * width, -0.4 * height), -2.0),
            Stroke((x + width, 0.0), 0.8),
        ],
    }
    return [start, *kinds[str(rng.choice(list(kinds)))]], x + width


def _flourish(rng: np.random.Generator, x: float, y: float) -> list[Stroke]:
    """What ends a signature: nothing, a long tail, an underline drawn back, a paraph of loops."""
    kind = rng.choice(list(_ENDINGS), p=list(_ENDINGS.values()))
    if kind == "tail":
        return [Stroke((x + rng.uniform(1, 5), rng.uniform(-2.0, 1.5)), rng.normal(0, 0.5))]
    if kind == "underline":
        depth = rng.uniform(0.5, 1.6)
        return [
            Stroke((x + rng.uniform(0.2, 1.0), depth), 1.8),
            Stroke((x * rng.uniform(0.0, 0.5), depth * rng.uniform(0.8, 1.4)), rng.normal(0, 0.2)),
            *([Stroke((x, depth + rng.uniform(0.1, 0.8)), 2.6)] if rng.random() < 0.5 else []),
        ]
    if kind == "loops":
        radius = rng.uniform(0.6, 1.6)
        strokes = []
        for turn in range(int(rng.integers(2, 5))):
            along = x - turn * radius * 0.7
            strokes += [Stroke((along + radius, y - radius), -1.7), Stroke((along - radius, y + 0.3), -1.7)]
        return [*strokes, Stroke((x + 3 * radius, y + radius), -1.2)]
    if kind == "strike":  # back and forth across the name
        places = rng.uniform([-0.1 * x, -1.6], [0.25 * x, 0.8], (3, 2))
        ends = rng.uniform([0.75 * x, -2.0], [1.2 * x + 1, 0.6], (3, 2))
        turns = rng.normal(0, 0.5, 6)
        path = [point for pair in zip(places, ends, strict=True) for point in pair]
        count = int(rng.integers(2, 7))
        return [
            Stroke((float(px), float(py)), float(turn)) for (px, py), turn in zip(path, turns, strict=True)
        ][:count]
    if kind == "oval":  # round the whole name
        high, low = -rng.uniform(1.5, 3.5), rng.uniform(0.5, 1.8)
        return [
            Stroke((x + 1.0, -0.5), 1.2), Stroke((0.5 * x, high), -1.5), Stroke((-1.0, -0.5), -1.3),
            Stroke((0.5 * x, low), -1.3), Stroke((x + rng.uniform(0, 3), rng.uniform(-1.5, 0.5)), -1.2),
        ]  # fmt: skip
    if kind == "dots":
        left = x * rng.uniform(0.2, 0.8)
        dots = [(left + 0.8 * number, rng.uniform(0.9, 1.3)) for number in range(int(rng.integers(1, 4)))]
        line = [Stroke((0.1 * x, 0.8), 0.1, pen_down=False), Stroke((0.9 * x, 0.7), rng.normal(0, 0.2))]
        return line + [
            stroke
            for place, depth in dots
            for stroke in (
                Stroke((place, depth), 0.1, pen_down=False), Stroke((place + 0.12, depth + 0.06), 0.1),
            )
        ]  # fmt: skip
    if kind == "cross":
        left = x * rng.uniform(0.2, 0.6)
        return [
            Stroke((left, -rng.uniform(1, 2.4)), 0.1, pen_down=False),
            Stroke((x, -rng.uniform(1, 2.4)), 0.15),
        ]
    return []


# How often a signature ends in a way.
_ENDINGS = {
    "none": 0.32, "tail": 0.24, "underline": 0.13, "loops": 0.06, "cross": 0.07, "strike": 0.09, "oval": 0.05,
    "dots": 0.04,
}  # fmt: skip

# Skeletons of digits and signs in a box of width 1 and height 2, y up from the baseline; each tuple is
# (x, y, turn) as in `letters`; a turn of None lifts the pen on the way there.
GLYPHS: dict[str, letters.Skeleton] = {
    "0": ((0.6, 2.0, None), (0.0, 1.0, -1.5), (0.5, 0.0, -1.5), (1.0, 1.0, -1.5), (0.5, 2.0, -1.5)),
    "1": ((0.3, 1.6, None), (0.55, 2.0, 0.0), (0.45, 0.0, 0.0)),
    "2": ((0.05, 1.5, None), (0.5, 2.0, 1.3), (0.9, 1.4, 1.4), (0.0, 0.0, 0.3), (1.0, 0.05, 0.1)),
    "3": ((0.1, 1.8, None), (0.9, 1.6, 1.5), (0.35, 1.05, 1.5), (0.95, 0.5, 1.6), (0.0, 0.15, 1.5)),
    "4": ((0.5, 2.0, None), (0.0, 0.8, 0.1), (1.0, 0.8, 0.0), (0.75, 1.4, None), (0.7, 0.0, 0.0)),
    "5": ((0.9, 2.0, None), (0.25, 1.95, 0.0), (0.15, 1.15, 0.0), (0.9, 0.6, 1.6), (0.0, 0.1, 1.4)),
    "6": ((0.8, 2.0, None), (0.05, 0.7, -0.7), (0.5, 0.0, -1.5), (0.9, 0.6, -1.6), (0.15, 0.6, -1.8)),
    "7": ((0.0, 1.9, None), (0.95, 1.95, 0.0), (0.3, 0.0, 0.2)),
    "8": ((0.8, 1.7, None), (0.2, 1.5, -1.8), (0.8, 0.5, 0.4), (0.2, 0.4, 2.4), (0.8, 1.7, -0.4)),
    "9": ((0.9, 1.5, None), (0.15, 1.4, -2.2), (0.85, 1.6, -2.2), (0.7, 0.0, 0.2)),
    "/": ((0.9, 2.1, None), (0.1, -0.2, 0.0)),
    "-": ((0.1, 0.9, None), (0.8, 0.95, 0.1)),
    ".": ((0.2, 0.1, None), (0.3, 0.0, 0.5)),
    ",": ((0.3, 0.1, None), (0.15, -0.3, 0.3)),
    "'": ((0.3, 2.1, None), (0.2, 1.6, 0.0)),
    "#": (
        (0.4, 1.8, None),
        (0.25, 0.2, 0.0),
        (0.8, 1.8, None),
        (0.65, 0.2, 0.0),
        (0.05, 1.3, None),
        (1.0, 1.35, 0.0),
        (0.0, 0.7, None),
        (0.95, 0.75, 0.0),
    ),
}
GLYPH_ADVANCE = {glyph: 1.25 if glyph.isdigit() else 0.9 for glyph in GLYPHS}


def _glyph(character: str, x: float, stretch: float) -> list[Stroke]:
    return _strokes(GLYPHS[character], x, stretch, 0.85)


def _strokes(skeleton: letters.Skeleton, x: float, stretch: float, height: float) -> list[Stroke]:
    """A skeleton's targets on the page; its angles are the page's already, only y is turned over."""
    return [
        Stroke((x + px * stretch, -height * py), turn or 0.0, pen_down=turn is not None)
        for px, py, turn in skeleton
    ]


def _spelled(
    words: str, stretch: float, capital: float, legibility: float, rng: np.random.Generator
) -> tuple[list[Stroke], float]:
    """Strokes of words, and the x where they end.

    Args:
      capital: height of capitals against the alphabet's own.
      legibility: 1 keeps every letter's height; less flattens and widens a word towards its end.
    """
    strokes: list[Stroke] = []
    x = 0.0
    for word in words.split():
        marks: list[Stroke] = []
        joined = False
        for number, character in enumerate(word):
            small = character in letters.SMALL
            skeleton = letters.SMALL.get(character) or letters.CAPITAL.get(character) or GLYPHS.get(character)
            if skeleton is None:
                continue
            fade = legibility + (1 - legibility) * math.exp(-0.3 * number)
            height = fade if small else capital if character.isupper() else 0.85
            width = stretch * (2.0 - fade if small else math.sqrt(height)) * rng.uniform(0.85, 1.15)
            if small and not joined:
                strokes.append(Stroke((x, 0.0), 0.1, pen_down=False))
            strokes += _strokes(skeleton, x, width, height)
            if character in letters.MARKS and rng.random() < 0.8:
                ends = [(x + px * width, -py * height) for px, py in letters.MARKS[character]]
                marks += [Stroke(ends[0], 0.1, pen_down=False), Stroke(ends[1], 0.1)]
            x += letters.advance(skeleton) * width + (0.0 if small else 0.15 * stretch)
            joined = small
        strokes += marks
        x += rng.uniform(0.5, 1.1) * stretch
    return strokes, x


def render(
    trajectory: Trajectory, hand: Hand, scale: float, pen: float | None = None, margin: int = 3
) -> np.ndarray:
    """Draws a trajectory as ink.

    Args:
      trajectory: what to draw.
      hand: pen width and pressure.
      scale: pixels per letter height.
      pen: pen width in pixels; by default the hand's own at this scale, 1 at least.
      margin: empty pixels around the ink.

    Returns:
      float32 [height, width], share of each pixel that is covered by ink, 0..1; at least one pixel is.
    """
    over = 3
    # Joined to the previous sample only where the pen is down at both.
    down = trajectory.pen_down[1:] & trajectory.pen_down[:-1]
    points = trajectory.points * scale
    if not down.any():
        down = np.ones_like(down)
    used = np.concatenate([points[1:][down], points[:-1][down]])
    thickness = max(1.0, hand.width * scale) if pen is None else pen
    origin = used.min(axis=0) - margin - thickness
    extent = np.ceil(used.max(axis=0) - origin + margin + thickness).astype(int) + 1
    canvas = np.zeros((extent[1] * over, extent[0] * over), np.uint8)
    slow = 1.0 - np.clip(trajectory.speed / (np.percentile(trajectory.speed, 90) + 1e-9), 0, 1)
    widths = np.maximum(1, np.rint(over * thickness * (1 + hand.pressure * (slow - 0.5)))).astype(int)
    pixels = np.rint((points - origin) * over * 8).astype(int)
    for number in np.nonzero(down)[0]:
        start, end = pixels[number].tolist(), pixels[number + 1].tolist()
        cv2.line(canvas, start, end, 255, int(widths[number]), cv2.LINE_AA, shift=3)
    size = (int(extent[0]), int(extent[1]))
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
