"""Drawn things that are no writing: logos, crests, monograms, seals, safety patterns.

They are made of the same thin lines as signatures and stand where letters are signed or headed, so a detector
that has never seen them takes them for signatures.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from training.data.synthetic import text
from training.data.synthetic.sheet import Sheet

_RED, _GOLD = (180, 30, 35), (190, 160, 60)


def logo(sheet: Sheet, x: float, y: float, size: float) -> None:
    """What a firm puts above its name; top left at (x, y), `size` pixels high."""
    draw = (_shapes, _crest, _monogram, _badge)[int(sheet.rng.choice(4, p=[0.25, 0.35, 0.25, 0.15]))]
    aspect = float(np.exp(sheet.rng.normal(0.15, 0.35)))
    height, width = max(8, round(size)), max(8, round(size * aspect))
    coverage = draw(sheet.rng, height, width)
    colour = sheet.rng.choice([[15, 15, 15], [15, 15, 15], [60, 60, 60], [30, 50, 130], [150, 30, 30]])
    pen = (np.array(colour, np.float32), float(sheet.rng.uniform(0.6, 1.0)))
    sheet.ink(coverage, x, y, None, pen)


def scattered(sheet: Sheet) -> None:
    """A logo where there is no letterhead: at the foot, in a corner, beside a signature."""
    rng = sheet.rng
    size = sheet.width * float(np.exp(rng.uniform(np.log(0.025), np.log(0.12))))
    logo(sheet, rng.uniform(0.05, 0.85) * sheet.width, rng.uniform(0.02, 0.93) * sheet.height, size)


def _shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Circles, polygons and ellipses within each other; float32 [height, width], share of ink."""
    canvas = np.zeros((height, width), np.uint8)
    centre, radius = (width // 2, height // 2), max(4, min(height, width) // 2 - 1)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.circle(canvas, centre, radius, 255, int(rng.choice([-1, 1, 2])), cv2.LINE_AA)
        elif kind == 1:
            points = np.array(centre) + rng.integers(-radius, radius + 1, (int(rng.integers(3, 8)), 2))
            cv2.polylines(canvas, [points.astype(np.int32)], True, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
        else:
            cv2.ellipse(canvas, centre, (radius, max(2, radius // 2)), 0, 0, 360, 255, 2, cv2.LINE_AA)
        radius = max(3, int(radius * 0.6))
    return canvas.astype(np.float32) / 255


def _outline(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A closed curve that is its own mirror image, as leaves, shields and flames are; int [n, 2]."""
    along = np.linspace(0, np.pi, 40)
    waves = sum(rng.normal(0, 0.5 / k) * np.cos(k * along + rng.uniform(0, 6)) for k in range(1, 7))
    radius = np.clip(0.7 + 0.35 * np.asarray(waves), 0.25, 1.0)
    half = np.stack([np.sin(along) * radius, -np.cos(along) * radius], axis=1)
    points = np.concatenate([half, half[::-1] * (-1, 1)])
    return np.round((points * 0.48 + 0.5) * (width, height)).astype(np.int32)


def _crest(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Mirrored curves and patches inside an outline; animals, wreaths and leaves look so from afar."""
    over = 3
    canvas = np.zeros((height * over, width * over), np.uint8)
    if rng.random() < 0.7:
        outline = _outline(rng, *canvas.shape)
        cv2.polylines(canvas, [outline], True, 255, int(rng.integers(2, 7)), cv2.LINE_AA)
    half = np.zeros((height * over, width * over // 2 + 1), np.uint8)
    rows, columns = half.shape
    for _ in range(int(rng.integers(4, 16))):
        steps = np.cumsum(rng.normal(0, 0.12, (int(rng.integers(3, 9)), 2)), axis=0) + rng.uniform(
            0.1, 0.9, 2
        )
        points = np.round(np.clip(steps, 0.02, 0.98) * (columns, rows)).astype(np.int32)
        if rng.random() < 0.3:
            cv2.fillPoly(half, [points], int(rng.choice([0, 255, 255])), cv2.LINE_AA)
        else:
            cv2.polylines(half, [points], False, 255, int(rng.integers(2, 7)), cv2.LINE_AA)
    mirrored = rng.random() < 0.75
    both = np.concatenate([half[:, ::-1] if mirrored else half, half], axis=1)
    np.maximum(canvas, both[:, : canvas.shape[1]], out=canvas)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _monogram(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Large letters, hollow or full, on a figure or in a frame."""
    figure = _crest(rng, height, width) if rng.random() < 0.6 else np.zeros((height, width), np.float32)
    image = Image.fromarray(np.round(figure * 255).astype(np.uint8))
    letters = "".join(chr(65 + int(n)) for n in rng.integers(0, 26, int(rng.integers(1, 4))))
    letters = letters if rng.random() < 0.6 else "&".join(letters)
    face = text.font(str(rng.choice(text.BOLD + text.ITALIC)), max(9, round(height * rng.uniform(0.35, 0.8))))
    draw, length = ImageDraw.Draw(image), face.getlength(letters)
    place = ((width - length) / 2, height * rng.uniform(0.05, 0.35))
    hollow = rng.random() < 0.5
    border = max(1, height // 30)
    draw.text(
        place, letters, 0 if hollow else 255, face, stroke_width=border, stroke_fill=255 if hollow else 0
    )
    if rng.random() < 0.4:
        draw.rectangle([0, 0, width - 1, height - 1], outline=255, width=border)
    return np.asarray(image, np.float32) / 255


def _badge(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Words in a thick ring or on a dark oval, as on copy stamps and unions' labels."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    dark = rng.random() < 0.4
    inside = [1, 1, width - 2, height - 2]
    draw.ellipse(
        inside, fill=255 if dark else 0, outline=255, width=max(2, height // int(rng.integers(8, 20)))
    )
    words = [["BEST", "COPY"], ["ORIGINAL"], ["FILE", "COPY"], ["UNION", "LABEL"], ["EST", "1902"]]
    chosen = words[int(rng.integers(len(words)))]
    face = text.font(str(rng.choice(text.BOLD)), max(8, round(height * 0.26)))
    for number, line in enumerate(chosen):
        y = height / 2 + (number - len(chosen) / 2) * 0.28 * height
        draw.text(((width - face.getlength(line)) / 2, y), line, 0 if dark else 255, face)
    turned = image.rotate(float(rng.normal(0, 15)), resample=Image.Resampling.BILINEAR)
    patches = cv2.resize(rng.uniform(0.5, 1.3, (5, 6)).astype(np.float32), (width, height))
    return np.asarray(turned, np.float32) / 255 * np.clip(patches, 0, 1)


def seal(sheet: Sheet, x: float, y: float) -> None:
    """A notary's or company's round seal: inked rings with teeth and a name, or a wafer of foil."""
    rng = sheet.rng
    radius = round(sheet.width * rng.uniform(0.05, 0.11))
    if rng.random() < 0.35:
        _wafer(sheet, x, y, radius)
        return
    seal = np.zeros((2 * radius + 4,) * 2, np.uint8)
    centre = (radius + 2, radius + 2)
    for share in (1.0, 0.92, 0.55)[: int(rng.integers(1, 4))]:
        cv2.circle(seal, centre, round(radius * share), 255, 1, cv2.LINE_AA)
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(0, 60)), endpoint=False):
        ray = np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(np.round(centre + radius * share * ray).astype(int)) for share in (0.94, 1.0)]
        cv2.line(seal, ends[0], ends[1], 255, 1, cv2.LINE_AA)
    image = Image.fromarray(seal)
    words = str(rng.choice(["SEAL", "NOTARY", "PUBLIC", "1931", "CORPORATE"]))
    face = text.font(str(rng.choice(text.BOLD)), max(9, radius // 3))
    ImageDraw.Draw(image).text((centre[0] - face.getlength(words) / 2, 0.8 * radius), words, 255, face)
    sheet.ink(np.asarray(image, np.float32) / 255 * float(rng.uniform(0.3, 0.9)), x, y, None)


def _wafer(sheet: Sheet, x: float, y: float, radius: int) -> None:
    """A disc of red or gold foil with a toothed edge and pressed rings."""
    rng = sheet.rng
    angles = np.linspace(0, 2 * np.pi, 8 * int(rng.integers(20, 50)), endpoint=False)
    teeth = radius * (1 - rng.uniform(0.02, 0.08) * (np.arange(len(angles)) // 4 % 2))
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * teeth[:, None] + radius + 1
    disc = np.zeros((2 * radius + 3,) * 2, np.uint8)
    cv2.fillPoly(disc, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
    for share in rng.uniform(0.2, 0.9, int(rng.integers(1, 5))):
        cv2.circle(
            disc, (radius + 1,) * 2, round(radius * share), int(rng.integers(150, 235)), 2, cv2.LINE_AA
        )
    colour = np.array(_RED if rng.random() < 0.5 else _GOLD, np.float32)
    sheet.ink(disc.astype(np.float32) / 255, x, y, None, (colour, float(rng.uniform(0.7, 1.0))))


def safety_pattern(sheet: Sheet) -> None:
    """Fine waves over the paper, as cheques, deeds and identity papers have them against copying."""
    rng = sheet.rng
    colour = np.array(rng.choice([[120, 150, 190], [190, 130, 140], [130, 170, 130], [150, 150, 150]]))
    strength = rng.uniform(0.2, 0.6)
    layer = np.zeros(sheet.paper.shape[:2], np.uint8)
    along = np.arange(0, sheet.width + 6, 6)
    depth, period = sheet.width * rng.uniform(0.005, 0.04), sheet.width * rng.uniform(0.03, 0.3)
    gap, drift = int(rng.integers(7, 22)), rng.uniform(0.0, 0.02)
    for row in range(-int(depth), sheet.height + int(depth), gap):
        wave = row + depth * np.sin(2 * np.pi * along / period + row * drift)
        points = np.stack([along, wave], axis=1).astype(np.int32)
        cv2.polylines(layer, [points], False, 255, 1, cv2.LINE_AA)
    share = layer[..., None].astype(np.float32) / 255 * strength
    sheet.paper = (sheet.paper * (1 - share) + share * np.minimum(colour, sheet.paper)).astype(np.uint8)
