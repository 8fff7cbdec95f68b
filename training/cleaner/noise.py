"""Paired noise: a signature becomes what a scanner sees of it on a used page, and the ink alone.

Polarity and range, here and everywhere in the cleaner: grey levels, dark ink on white paper, 255 is
paper; a network sees the same divided by 255. Layers multiply, as inks on paper do: a line that
crosses a stroke darkens it. What a scanner does to the ink itself (blur, threshold) is in both images
of a pair; what does not belong to the signature is in the noisy one alone.

A pair is a function of its key. Nothing here imports TensorFlow, so worker processes start fast; all
work on pixels is OpenCV on uint8.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np

from training.data.synthetic import handwriting, text

SIDE = 224
_TILE = 2 * SIDE


@dataclasses.dataclass
class NoiseLevels:
    """How often what is added, as probabilities; a layer's own strength is drawn each time.

    Attributes:
      untouched: crops that stay clean, target and input alike.
      lines: form lines: solid, dashed, dotted, boxes.
      text: printed or typed lines across and under the ink.
      stamp: stamps and seals.
      neighbour: handwriting or print that the crop's edge cuts.
      bleed: writing that shows through from the back.
      speckle: dust and toner.
      paper: texture, tone and uneven light.
      bilevel: a black-and-white scan instead of grey levels.
      jpeg: compression.
      padded: crops of their own shape in a white square, as the SDK makes them, instead of filling it.
    """

    untouched: float = 0.08
    lines: float = 0.6
    text: float = 0.65
    stamp: float = 0.12
    neighbour: float = 0.3
    bleed: float = 0.12
    speckle: float = 0.45
    paper: float = 0.7
    bilevel: float = 0.3
    jpeg: float = 0.25
    padded: float = 0.75


class Draws:
    """Random numbers of one pair, drawn at once: a generator's call costs more than a small drawing."""

    def __init__(self, *key: int):
        self._generator = np.random.Generator(np.random.Philox(key=_philox_key(key)))
        self._values = self._generator.random(160).tolist()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float between the two."""
        if not self._values:
            self._values = self._generator.random(160).tolist()
        return low + (high - low) * self._values.pop()

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1; 0 where count is 0."""
        return int(self.uniform() * count)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.uniform() < probability


def _philox_key(key: tuple[int, ...]) -> np.ndarray:
    """Folds any number of 64-bit numbers into the two that Philox takes (splitmix64 on each)."""
    mask, folded = (1 << 64) - 1, [0x9E3779B97F4A7C15, 0xD1B54A32D192ED03]
    for place, number in enumerate(key):
        mixed = (folded[place % 2] + (number & mask) * 0xBF58476D1CE4E5B9 + place) & mask
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        folded[place % 2] = mixed ^ (mixed >> 31)
        folded[(place + 1) % 2] = (folded[(place + 1) % 2] ^ folded[place % 2]) & mask
    return np.array(folded, np.uint64)


def make_pair(
    signature: np.ndarray, levels: NoiseLevels, draws: Draws, noisy: np.ndarray, clean: np.ndarray
) -> None:
    """Writes one pair.

    Args:
      signature: uint8 [h, w], cut to its ink, dark on 255.
      levels: what to add how often.
      draws: the pair's random numbers; they decide it.
      noisy, clean: uint8 [SIDE, SIDE], written.
    """
    untouched = draws.chance(levels.untouched)
    bilevel = draws.chance(levels.bilevel)
    ink, (top, left, bottom, right) = _place(signature, draws, draws.chance(levels.padded), bilevel)
    image = ink if untouched else _add_layers(ink, levels, draws, bilevel)
    if bilevel:
        level, large = draws.uniform(0.5, 0.88), draws.chance(0.6)
        image = _threshold(image, level, large, 0.0 if untouched else draws.uniform(0, 22), draws)
        ink = _threshold(ink, level, large, 0.0, draws)
    elif not untouched:
        image = _add_paper(image, levels, draws)
    if not untouched:
        if draws.chance(levels.speckle):
            image = cv2.min(image, _cut(_specks()[draws.below(len(_specks()))], draws))
        if draws.chance(levels.jpeg):
            image = _compress(image, 25 + draws.below(65))
    noisy.fill(255)
    noisy[top:bottom, left:right] = image[top:bottom, left:right]
    clean.fill(255)
    clean[top:bottom, left:right] = ink[top:bottom, left:right]


def _place(
    signature: np.ndarray, draws: Draws, padded: bool, bilevel: bool
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The signature in the square as a detector would crop it, and the crop (top, left, bottom, right).

    The crop's longer side fills the square; its margins are random, at times negative: cut ink.
    """
    height, width = signature.shape
    angle = math.radians(draws.uniform(-5, 5))
    shear = draws.uniform(-0.15, 0.15)
    stretch = draws.uniform(0.88, 1.14)
    turn = np.array(
        [[math.cos(angle) * stretch, -math.sin(angle) + shear], [math.sin(angle), math.cos(angle)]]
    )
    extent = np.abs(turn) @ (width, height)
    before, after = (
        np.array([draws.uniform(-0.03, 0.22), draws.uniform(-0.03, 0.3)]),
        np.array([draws.uniform(-0.03, 0.22), draws.uniform(-0.03, 0.3)]),
    )
    crop = extent * (1 + before + after)
    scale = SIDE / max(crop)
    size = np.minimum(np.ceil(crop * scale), SIDE) if padded else np.array([SIDE, SIDE])
    corner = (SIDE - size) // 2 if draws.chance(0.75) else np.zeros(2)
    centre = corner + size / 2 + (before - after) / 2 * extent * scale
    matrix = np.empty((2, 3))
    matrix[:, :2] = turn * scale
    matrix[:, 2] = centre - matrix[:, :2] @ (width / 2, height / 2)
    # Bilinear sampling skips pixels below half size; the image is halved first instead.
    while matrix[0, 0] < 0.5 and min(signature.shape) > 16:
        signature = cv2.resize(signature, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= 2
    ink = cv2.warpAffine(
        signature,
        matrix,
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=255,
    )
    pen = draws.uniform()
    if pen < 0.12:
        ink = cv2.erode(ink, _SQUARE)  # dark grows
    elif pen < 0.2:
        ink = cv2.max(ink, cv2.dilate(ink, _SQUARE) // 2)
    if draws.chance(0.25):
        ink = cv2.GaussianBlur(ink, (3, 3), draws.uniform(0.4, 0.9))
    # How dark strokes come out is drawn, not inherited: reducing a large scan pales its thin strokes.
    peak = 255 - cv2.minMaxLoc(cv2.blur(ink, (3, 3)))[0]
    ink = cv2.LUT(ink, _fade(255 * draws.uniform(0.7 if bilevel else 0.45, 0.95) / max(peak, 64)))
    left, top = (int(value) for value in corner)
    return ink, (top, left, top + int(size[1]), left + int(size[0]))


_SQUARE = np.ones((2, 2), np.uint8)


def _fade(strength: float) -> np.ndarray:
    """Look-up table that multiplies darkness."""
    return np.clip(255 - (255 - np.arange(256)) * strength, 0, 255).astype(np.uint8)


def _add_layers(ink: np.ndarray, levels: NoiseLevels, draws: Draws, bilevel: bool) -> np.ndarray:
    layer = np.full((SIDE, SIDE), 255, np.uint8)
    if draws.chance(levels.text):
        for _ in range(1 + draws.below(4)):
            _add_text(layer, draws)
    if draws.chance(levels.lines):
        for _ in range(1 + draws.below(3)):
            _add_lines(layer, draws)
    if draws.chance(levels.stamp):
        _add_stamp(layer, draws)
    if draws.chance(levels.neighbour):
        _add_neighbour(layer, draws)
    shape = draws.uniform()
    if shape < 0.15:
        layer = cv2.erode(layer, _SQUARE)
    elif shape < 0.25:
        layer = cv2.GaussianBlur(layer, (3, 3), draws.uniform(0.4, 0.9))
    if draws.chance(0.5):
        turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), draws.uniform(-4, 4), draws.uniform(0.95, 1.1))
        layer = cv2.warpAffine(layer, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    layer = cv2.LUT(layer, _fade(draws.uniform(0.7 if bilevel else 0.35, 1.1)))
    image = cv2.multiply(ink, layer, scale=1 / 255)
    if draws.chance(levels.bleed):
        back = cv2.flip(_cut(_written()[draws.below(len(_written()))], draws), 1)
        image = cv2.multiply(
            image, cv2.LUT(cv2.blur(back, (3, 3)), _fade(draws.uniform(0.08, 0.3))), scale=1 / 255
        )
    return image


def _add_text(layer: np.ndarray, draws: Draws) -> None:
    strips = _printed()
    strip = strips[draws.below(len(strips))]
    y = draws.below(SIDE + strip.shape[0]) - strip.shape[0] // 2
    x = draws.below(SIDE) - SIDE // 2 if draws.chance(0.6) else 0
    rows = 1 if draws.chance(0.6) else 1 + draws.below(4)
    for row in range(rows):
        start = draws.below(strip.shape[1] - SIDE)
        _stamp_on(layer, strip[:, start : start + SIDE], y + int(1.2 * row * strip.shape[0]), x)


def _stamp_on(layer: np.ndarray, patch: np.ndarray, y: int, x: int) -> None:
    """Darkens the layer by a patch whose top left is at (x, y), in place; what lies outside is cut."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + patch.shape[0], SIDE), min(x + patch.shape[1], SIDE)
    if bottom > top and right > left:
        area = layer[top:bottom, left:right]
        cv2.min(area, patch[top - y : bottom - y, left - x : right - x], dst=area)


def _add_lines(layer: np.ndarray, draws: Draws) -> None:
    """One rule, a ladder of rules, or a box; solid, dashed or dotted."""
    kind = draws.uniform()
    grey, width = draws.below(110), 1 + draws.below(3 if draws.chance(0.8) else 8)
    y = int(draws.uniform(0.05, 0.98) * SIDE)
    if kind < 0.5:
        x, end = (
            (0, SIDE) if draws.chance(0.6) else (draws.below(SIDE // 2), SIDE // 2 + draws.below(SIDE // 2))
        )
        _rule(layer, (x, y), (end, y + draws.below(7) - 3), grey, width, draws)
    elif kind < 0.65:
        gap = 14 + draws.below(50)
        for row in range(y % gap, SIDE, gap):
            cv2.line(layer, (0, row), (SIDE, row), grey, width)
    elif kind < 0.8:
        x = draws.below(SIDE)
        _rule(layer, (x, 0), (x + draws.below(7) - 3, SIDE), grey, width, draws)
    else:
        corner = draws.below(SIDE // 2), draws.below(SIDE // 2)
        opposite = corner[0] + 40 + draws.below(SIDE), corner[1] + 20 + draws.below(SIDE)
        cv2.rectangle(layer, corner, opposite, grey, width)


def _rule(
    layer: np.ndarray, start: tuple[int, int], end: tuple[int, int], grey: int, width: int, draws: Draws
) -> None:
    pattern = draws.uniform()
    if pattern < 0.65:
        cv2.line(layer, start, end, grey, width, cv2.LINE_AA)
        return
    dash, gap = (
        (2 + draws.below(2), 3 + draws.below(4))
        if pattern < 0.82
        else (5 + draws.below(12), 3 + draws.below(8))
    )
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    step_x, step_y = (end[0] - start[0]) / max(length, 1), (end[1] - start[1]) / max(length, 1)
    for begin in range(0, length, dash + gap):
        points = [
            (int(start[0] + along * step_x), int(start[1] + along * step_y))
            for along in (begin, begin + dash)
        ]
        cv2.line(layer, points[0], points[1], grey, width)


def _add_stamp(layer: np.ndarray, draws: Draws) -> None:
    stamp = _stamps()[draws.below(len(_stamps()))]
    stamp = cv2.LUT(stamp, _fade(draws.uniform(0.4, 1.0)))
    _stamp_on(layer, stamp, draws.below(SIDE) - stamp.shape[0] // 2, draws.below(SIDE) - stamp.shape[1] // 2)


def _add_neighbour(layer: np.ndarray, draws: Draws) -> None:
    """Writing or print of another line that reaches into the crop from one of its edges."""
    written = draws.chance(0.6)
    source = _written() if written else _printed()
    patch = source[draws.below(len(source))]
    start = draws.below(max(1, patch.shape[1] - SIDE))
    patch = patch[:, start : start + SIDE]
    if written:
        patch = patch[draws.below(patch.shape[0] // 3) :, :]
    inside = int(draws.uniform(0.04, 0.16) * SIDE)
    side = draws.below(4)
    if side == 0:
        _stamp_on(layer, patch, inside - patch.shape[0], 0)
    elif side == 1:
        _stamp_on(layer, patch, SIDE - inside, 0)
    else:
        x = inside - patch.shape[1] if side == 2 else SIDE - inside
        _stamp_on(layer, patch, draws.below(SIDE), x)


def _add_paper(image: np.ndarray, levels: NoiseLevels, draws: Draws) -> np.ndarray:
    if not draws.chance(levels.paper):
        return image
    light = _cut(_lights()[draws.below(len(_lights()))], draws)
    image = cv2.multiply(image, cv2.LUT(light, _fade(draws.uniform(0.1, 1.2))), scale=1 / 255)
    grain = _cut(_grains()[draws.below(len(_grains()))], draws)
    # 128 is no change; a weight of 0 to 0.8 makes the grain's 25 grey levels up to 20.
    return cv2.addWeighted(image, 1.0, grain, weight := draws.uniform(0, 0.8), -128 * weight)


def _threshold(image: np.ndarray, level: float, large: bool, noise: float, draws: Draws) -> np.ndarray:
    """Black and white: at one and a half times the size and reduced again, or at this size."""
    if large:
        image = cv2.resize(image, (SIDE * 3 // 2,) * 2, interpolation=cv2.INTER_LINEAR)
    if noise > 2:
        grain = _cut(_grains()[draws.below(len(_grains()))], draws, image.shape[0])
        image = cv2.addWeighted(image, 1.0, grain, noise / 25, -128 * noise / 25)
    _, image = cv2.threshold(image, 255 * level, 255, cv2.THRESH_BINARY)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if large else image


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def _cut(tile: np.ndarray, draws: Draws, side: int = SIDE) -> np.ndarray:
    """A square of a larger tile, at times mirrored."""
    y, x = draws.below(tile.shape[0] - side + 1), draws.below(tile.shape[1] - side + 1)
    part = tile[y : y + side, x : x + side]
    return cv2.flip(part, draws.below(3) - 1) if draws.chance(0.5) else part


# What layers are cut from: made once a process, from fixed seeds, so that a pair depends on its key alone.


@functools.cache
def _printed() -> list[np.ndarray]:
    """Printed lines in every face, in sizes from small print to headings: uint8 [size, 3 x SIDE]."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0x7E47)
    faces = (*text.TYPEWRITER, *text.SERIF, *text.SANS, *text.BOLD, *text.ITALIC)
    strips = []
    for number in range(360):
        size = round(7 * float(np.exp(rng.uniform(0, 1.5))))
        font = text.font(faces[number % len(faces)], size)
        words = text.sentence(rng, 12 if size > 20 else 40)
        words = words.upper() if rng.random() < 0.2 else words
        strip = Image.new("L", (3 * SIDE, round(1.35 * size)), 255)
        ImageDraw.Draw(strip).text((0, 0), words, font=font, fill=int(rng.integers(0, 90)))
        strips.append(np.asarray(strip).copy())
    return strips


@functools.cache
def _stamps() -> list[np.ndarray]:
    """Framed and round stamps, turned and unevenly inked: uint8 [h, w]."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0x57A3)
    stamps = []
    for number in range(64):
        size = int(rng.integers(12, 26))
        font = text.font(str(rng.choice(text.BOLD)), size)
        words = [str(rng.choice(["RECEIVED", "FILED", "COPY", "PAID", "APPROVED", "NOTARY"])), text.date(rng)]
        width = round(max(font.getlength(line) for line in words)) + 2 * size
        height = width if number % 3 == 0 else round(3.6 * size)
        stamp = Image.new("L", (width, height), 255)
        draw = ImageDraw.Draw(stamp)
        frame = [1, 1, width - 2, height - 2]
        draw.ellipse(frame, outline=0, width=2) if number % 3 == 0 else draw.rectangle(
            frame, outline=0, width=2
        )
        for line, line_words in enumerate(words):
            y = (height - 2.8 * size) / 2 + 1.4 * line * size
            draw.text(((width - font.getlength(line_words)) / 2, y), line_words, font=font, fill=0)
        turned = stamp.rotate(
            float(rng.normal(0, 14)), expand=True, fillcolor=255, resample=Image.Resampling.BILINEAR
        )
        array = np.asarray(turned, np.float32)
        patches = cv2.resize(rng.uniform(0.3, 1.3, (5, 8)).astype(np.float32), array.shape[::-1])
        stamps.append((255 - (255 - array) * np.clip(patches, 0, 1)).astype(np.uint8))
    return stamps


@functools.cache
def _written() -> list[np.ndarray]:
    """Handwriting of other people, a line or a signature each, repeated over a tile: uint8 [_TILE, _TILE]."""
    tiles = []
    for number in range(24):
        rng = np.random.default_rng([0x3177, number])
        writer = handwriting.Writer(9_000_000 + number)
        tile = np.full((_TILE, _TILE), 255, np.uint8)
        height, y = rng.uniform(8, 30), 6.0
        while y < _TILE:
            drawn = (
                writer.signature(rng)
                if rng.random() < 0.3
                else writer.write("Aaaa aaa aaaaa aa aaaaaa aaa", rng)
            )
            extent = np.ptp(drawn.points[drawn.pen_down], axis=0)
            scale = float(min(2.2 * height / max(extent[1], 0.1), _TILE / max(extent[0], 0.1)))
            cover = handwriting.render(
                drawn, writer.hand, scale, float(np.clip(writer.hand.width * scale, 1.2, 4))
            )
            line = (255 * (1 - cover[:, :_TILE])).astype(np.uint8)
            line = line[: _TILE - int(y)]
            area = tile[int(y) : int(y) + line.shape[0], : line.shape[1]]
            np.minimum(area, line, out=area)
            y += 2.4 * height
        tiles.append(tile)
    return tiles


@functools.cache
def _lights() -> list[np.ndarray]:
    """Tone, uneven light, shadows and folds of paper: uint8 [_TILE, _TILE], 255 is full light."""
    rng = np.random.default_rng(0x11F7)
    tiles = []
    for number in range(32):
        field = cv2.resize(
            rng.normal(0, 1, (4, 4)).astype(np.float32), (_TILE, _TILE), interpolation=cv2.INTER_CUBIC
        )
        dim = rng.uniform(0, 0.2) + rng.uniform(0, 0.15) * np.abs(field)
        if number % 4 == 0:  # the edge of a shadow
            angle = rng.uniform(0, 2 * math.pi)
            y, x = np.mgrid[:_TILE, :_TILE] / _TILE - 0.5
            dim = dim + rng.uniform(0.1, 0.35) / (
                1 + np.exp(-(x * math.cos(angle) + y * math.sin(angle)) * 40)
            )
        if number % 5 == 0:  # a fold
            row = int(rng.integers(_TILE // 4, 3 * _TILE // 4))
            dim[row : row + 3] += rng.uniform(0.1, 0.4)
        tiles.append((255 * np.clip(1 - dim, 0.3, 1)).astype(np.uint8))
    return tiles


@functools.cache
def _grains() -> list[np.ndarray]:
    """Noise of paper and sensor, fine and coarse, 25 grey levels around 128: uint8 [_TILE, _TILE]."""
    rng = np.random.default_rng(0x6A1)
    tiles = []
    for number in range(12):
        grain = rng.normal(0, 1, (_TILE, _TILE)).astype(np.float32)
        if number % 3:
            grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 1.6))
        tiles.append(np.clip(128 + 25 * grain / grain.std(), 0, 255).astype(np.uint8))
    return tiles


@functools.cache
def _specks() -> list[np.ndarray]:
    """Dust from hardly any to a bad photocopy's, dots of one to four pixels: uint8 [_TILE, _TILE]."""
    rng = np.random.default_rng(0x5BEC)
    tiles = []
    for _ in range(32):
        tile = np.full((_TILE, _TILE), 255, np.uint8)
        for _ in range(int(np.exp(rng.uniform(2, 7.6)))):
            y, x = rng.integers(0, _TILE - 4, 2)
            height, width = rng.choice([1, 1, 1, 2, 2, 3, 4], 2)
            tile[y : y + height, x : x + width] = rng.integers(0, 140)
        tiles.append(tile)
    return tiles
