"""A page in the making: paper, print, and ink that may have a label."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from PIL import Image, ImageDraw

from training.data.synthetic import handwriting, text

SIGNATURE, INITIALS, REDACTION, DATE = 1, 2, 3, 4

CLASSES = {SIGNATURE: "signature", INITIALS: "initials", REDACTION: "redaction", DATE: "date"}

# Writers of evaluation pages are numbered from here on, so no hand stands on both sides.
EVALUATION_WRITERS = 1_000_000

_WRITERS = 100_000
# Pens draw lines of 0.25 to 1 mm; a page is about 280 mm long, whatever its pixels.
_PEN_MILLIMETRES, PAGE_MILLIMETRES = 0.43, 280.0

_INK_COLOURS = ((15, 15, 20), (15, 15, 20), (25, 35, 120), (20, 40, 160), (60, 60, 70))

# What people sign on: white mostly, cream, blue, green and rose safety paper, and grey copies of these.
_PAPER_COLOURS = ((244, 236, 214), (222, 232, 240), (224, 238, 222), (242, 224, 226), (212, 212, 212))


def _worn(coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ink that a dry pen, rough paper or a bad copy left gaps in; shape and dtype as before."""
    height, width = coverage.shape
    grain = rng.uniform(1.5, 7)
    shape = (max(2, round(height / grain)), max(2, round(width / grain)))
    field = cv2.resize(rng.random(shape).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    kept = np.clip((field - rng.uniform(0.15, 0.45)) / 0.15, 0, 1)
    worn = coverage * kept
    return worn if worn.max(initial=0) > 0.3 else coverage


@dataclasses.dataclass
class Sheet:
    """A page in the making: paper, and the ink that has a label."""

    paper: np.ndarray  # uint8 [h, w, 3]
    rng: np.random.Generator
    writers: int
    typeface: str
    size: int
    labelled: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
    # Lines of running text: x and y of their top left, and their length, in pixels.
    printed: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)
    faintest: float = 1.0  # strength of the palest labelled ink

    def pen(self) -> tuple[np.ndarray, float]:
        """A colour and how much of the paper it hides; pencil and worn-out pens leave little."""
        faint = self.rng.random() < 0.12
        strength = float(self.rng.uniform(0.35, 0.75) if faint else self.rng.uniform(0.75, 1.0))
        return np.array(self.rng.choice(_INK_COLOURS), np.float32), strength

    @property
    def height(self) -> int:
        """Pixels."""
        return self.paper.shape[0]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.paper.shape[1]

    @property
    def line(self) -> int:
        """Pixels from one line of print to the next."""
        return round(1.25 * self.size)

    def small(self, share: float) -> int:
        """Size of captions and small print, this much of the running text's; still a letter to the eye."""
        return max(9, round(share * self.size))

    @property
    def advance(self) -> float:
        """Mean pixels from one letter of running text to the next."""
        return text.font(self.typeface, self.size).getlength("the quick brown fox ") / 20

    def print(
        self,
        x: float,
        y: float,
        words: str,
        typeface: str | None = None,
        size: int | None = None,
        grey: int = 20,
    ) -> float:
        """Prints a line with its top left at (x, y); returns its width in pixels."""
        font = text.font(typeface or self.typeface, size or self.size)
        image = Image.fromarray(self.paper)
        ImageDraw.Draw(image).text((round(x), round(y)), words, font=font, fill=(grey,) * 3)
        self.paper = np.asarray(image).copy()
        return font.getlength(words)

    def print_lines(self, x: float, y: float, lines: list[str]) -> float:
        """Prints lines under each other; returns the y below them."""
        image = Image.fromarray(self.paper)
        draw = ImageDraw.Draw(image)
        font = text.font(self.typeface, self.size)
        for number, words in enumerate(lines):
            place = (round(x), round(y + number * self.line))
            draw.text(place, words, font=font, fill=(20, 20, 20))
            self.printed.append((*place, font.getlength(words)))
        self.paper = np.asarray(image).copy()
        return y + len(lines) * self.line

    def rule(self, x: float, y: float, length: float, thickness: int = 1) -> None:
        """A horizontal rule."""
        y, x = round(y), round(x)
        self.paper[max(y, 0) : y + thickness, max(x, 0) : x + round(length)] = 30

    def writer(self) -> handwriting.Writer:
        """A hand that no evaluation page shares with a training page."""
        return handwriting.Writer(self.writers + int(self.rng.integers(_WRITERS)))

    def ink(
        self,
        coverage: np.ndarray,
        x: float,
        y: float,
        label: int | None,
        pen: tuple[np.ndarray, float] | None = None,
    ) -> None:
        """Lays ink over the paper, its array's top left at (x, y), and labels it unless None."""
        top, left = round(y), round(x)
        if top >= self.height or left >= self.width:
            return
        cut_y, cut_x = max(0, -top), max(0, -left)
        coverage = coverage[cut_y : self.height - top, cut_x : self.width - left]
        if coverage.size == 0 or coverage.max() < 0.2:
            return
        top, left = max(top, 0), max(left, 0)
        colour, strength = pen or self.pen()
        if self.rng.random() < 0.16:
            coverage = _worn(coverage, self.rng)
        area = self.paper[top : top + coverage.shape[0], left : left + coverage.shape[1]].astype(np.float32)
        # Ink darkens what is under it, so a signature over type leaves both visible.
        inked = np.minimum(
            area, area * (1 - strength * coverage[..., None]) + strength * coverage[..., None] * colour
        )
        self.paper[top : top + coverage.shape[0], left : left + coverage.shape[1]] = inked.astype(np.uint8)
        if label is not None:
            self.faintest = min(self.faintest, strength)
            ys, xs = np.nonzero(coverage > 0.25)
            hull = cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.int32))[:, 0, :]
            corners = np.concatenate([hull, hull + (1, 1)]) + (left, top)
            self.labelled.append((label, corners.astype(np.float64)))

    def write(
        self,
        drawn: handwriting.Trajectory,
        hand: handwriting.Hand,
        box: tuple[float, float, float, float],
        label: int | None,
        pen: tuple[np.ndarray, float] | None = None,
    ) -> None:
        """Writes a trajectory so that it fills the box (x, y of its centre, width, height at most).

        The pen's width is the pen's, not the writing's: large writing has relatively thin strokes.
        """
        x, y, width, height = box
        moving = drawn.points[drawn.pen_down]
        extent = np.maximum(moving.max(axis=0) - moving.min(axis=0), 0.1)
        scale = float(min(width / extent[0], height / extent[1]))
        millimetre = max(self.paper.shape[:2]) / PAGE_MILLIMETRES
        nib = float(np.clip(_PEN_MILLIMETRES * np.exp(self.rng.normal(0, 0.38)), 0.22, 1.1)) * millimetre
        ink = handwriting.render(drawn, hand, scale, max(1.0, nib))
        self.ink(ink, x - ink.shape[1] / 2, y - ink.shape[0] / 2, label, pen)

    def sign(self, x: float, baseline: float, room: float, highest: float = math.inf) -> None:
        """A signature that starts near x and sits around a baseline.

        The hand's own proportions fill one side of the box or the other, so that what is left are the sizes
        found on letters: a quarter of the page's width and a twentieth of its height, give or take half.
        In a narrow column a signature is little wider than its room; nowhere is it higher than
        `highest` pixels.
        """
        rng = self.rng
        width = min(self.width * float(np.exp(rng.normal(np.log(0.33), 0.38))), 1.4 * room)
        height = self.height * float(np.clip(np.exp(rng.normal(np.log(0.072), 0.4)), 0.02, 0.18))
        height = min(height, highest)
        shift = rng.normal(0, 0.2) * height
        box = (x + width / 2 + rng.normal(0, 0.1) * room, baseline - 0.35 * height + shift, width, height)
        drawn, hand = self.signature()
        self.write(drawn, hand, box, SIGNATURE)

    def signature(self) -> tuple[handwriting.Trajectory, handwriting.Hand]:
        """Somebody's signature: a name with a flourish, a name as it is written, or the hand's own plan."""
        writer, rng = self.writer(), self.rng
        kind = rng.random()
        if kind < 0.5:
            return writer.sign_name(text.signed(rng), rng), writer.hand
        if kind < 0.62:  # some sign as they write
            return writer.spell(text.signed(rng), rng), writer.hand
        return writer.signature(rng), writer.hand

    def tint(self) -> None:
        """Coloured paper, mottled where it is a copy; to be called before anything is printed."""
        colour = np.array(self.rng.choice(_PAPER_COLOURS), np.float32)
        shade = self.rng.uniform(0.8, 1.04) if self.rng.random() < 0.75 else self.rng.uniform(0.55, 0.8)
        field = self.rng.normal(0, self.rng.uniform(0, 7), (9, 7)).astype(np.float32)
        mottle = cv2.resize(field, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        self.paper = np.clip(colour * shade + mottle[..., None], 0, 255).astype(np.uint8)

    def initial(self, x: float, y: float, height: float) -> None:
        """Initials centred at (x, y)."""
        writer = self.writer()
        self.write(writer.initials(self.rng), writer.hand, (x, y, 2.2 * height, height), INITIALS)

    def handwrite_date(self, x: float, y: float, height: float, label: int | None = DATE) -> None:
        """A handwritten date centred at (x, y)."""
        writer, rng = self.writer(), self.rng
        if rng.random() < 0.25:
            spelled = text.date(rng).replace("19", str(rng.choice(["19", "'"])), 1)
            self.write(writer.spell(spelled, rng), writer.hand, (x, y, 9 * height, 1.3 * height), label)
            return
        month, day, year = rng.integers(1, 13), rng.integers(1, 29), rng.integers(60, 99)
        separator = str(rng.choice(["/", "-", "/", "."]))
        words = separator.join([str(month), str(day), str(year) if rng.random() < 0.7 else f"19{year}"])
        self.write(writer.write(words, rng), writer.hand, (x, y, 5.5 * height, height), label)

    def redact(self, x: float, y: float, width: float, height: float) -> None:
        """A bar over what stood there: black, grey with an outline, or white with an outline."""
        corners = np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]])
        start, end = (round(x), round(y)), (round(x + width), round(y + height))
        kind = self.rng.choice(["black", "grey", "white"], p=[0.8, 0.1, 0.1])
        fill = {"black": 0, "grey": 150, "white": 255}[str(kind)]
        cv2.rectangle(self.paper, start, end, (fill,) * 3, -1)
        if kind != "black":
            cv2.rectangle(self.paper, start, end, (40, 40, 40), 1)
        self.labelled.append((REDACTION, corners))
