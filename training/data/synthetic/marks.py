"""What stands on pages beside text and signatures: notes, stamps, frames, tables; some look written."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from PIL import Image, ImageDraw

from training.data.synthetic import emblems, text
from training.data.synthetic.sheet import Sheet


def note(sheet: Sheet, x: float, y: float, width: float, height: float) -> None:
    """Handwriting that is no signature, centred at (x, y): words, names, or figures."""
    rng, writer = sheet.rng, sheet.writer()
    kind = rng.choice(["figures", "read", "scrawl", "jotting"], p=[0.22, 0.42, 0.2, 0.16])
    if kind == "figures":
        whole = rng.random() < 0.7
        words = str(rng.integers(10, 10**6)) if whole else f"{rng.integers(1, 99)}.{rng.integers(10, 99)}"
        drawn = writer.write(words, rng)
    elif kind == "jotting":
        drawn = writer.spell(text.jotting(rng), rng)
    elif kind == "read":
        words = text.signed(rng) if rng.random() < 0.3 else text.sentence(rng, int(rng.integers(1, 6)))
        drawn = writer.spell(words, rng)
    else:
        lengths = rng.integers(2, 8, int(rng.integers(2, 7)))
        drawn = writer.write(" ".join("a" * int(length) for length in lengths), rng)
    sheet.write(drawn, writer.hand, (x, y, width, height), None)


def annotation(sheet: Sheet) -> None:
    """Lines that somebody wrote in a margin or under the text, some circled, some with an arrow."""
    rng, width, height = sheet.rng, sheet.width, sheet.height
    writer, pen = sheet.writer(), sheet.pen()
    tall = height * rng.uniform(0.014, 0.034)
    x, y = width * rng.uniform(0.12, 0.85), height * rng.uniform(0.03, 0.92)
    first = (x, y)
    for _ in range(int(rng.integers(1, 6))):
        words = text.sentence(rng, int(rng.integers(1, 4))).rstrip(".")
        if rng.random() < 0.3:
            words = f"{rng.integers(1, 13)}/{rng.integers(1, 29)}/{rng.integers(60, 99)} {words}"
        length = width * rng.uniform(0.08, 0.3)
        sheet.write(writer.spell(words, rng), writer.hand, (x, y, length, tall), None, pen)
        x, y = x + rng.normal(0, 0.02) * width, y + 1.15 * tall
    grey = (40, 40, 40)
    if rng.random() < 0.2:
        centre = (round((first[0] + x) / 2), round((first[1] + y - tall) / 2))
        axes = (round(0.13 * width), max(8, round(0.6 * (y - first[1]) + 0.6 * tall)))
        cv2.ellipse(sheet.paper, centre, axes, float(rng.normal(0, 8)), 0, 350, grey, 2, cv2.LINE_AA)
    if rng.random() < 0.25:
        start = np.round(first).astype(int)
        end = np.round(first + rng.normal(0, 0.15, 2) * (width, height)).astype(int)
        cv2.arrowedLine(sheet.paper, start.tolist(), end.tolist(), grey, 2, cv2.LINE_AA, tipLength=0.1)


def _jotting(sheet: Sheet) -> None:
    """A word or two, as large as a signature, where there is room: it is read, not recognised."""
    rng, writer, pen = sheet.rng, sheet.writer(), sheet.pen()
    tall = sheet.height * float(np.exp(rng.uniform(np.log(0.016), np.log(0.05))))
    x, y = sheet.width * rng.uniform(0.12, 0.88), sheet.height * rng.uniform(0.03, 0.95)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        length = sheet.width * rng.uniform(0.1, 0.36)
        sheet.write(writer.spell(text.jotting(rng), rng), writer.hand, (x, y, length, tall), None, pen)
        x, y = x + rng.normal(0, 0.04) * sheet.width, y + rng.uniform(0.9, 1.3) * tall


def _ticked_names(sheet: Sheet) -> None:
    """A list of those who get a copy, some of them ticked, struck or pointed at by hand."""
    rng = sheet.rng
    x, y = sheet.width * rng.uniform(0.1, 0.7), sheet.height * rng.uniform(0.08, 0.8)
    grey, thickness = (int(rng.integers(10, 70)),) * 3, int(rng.integers(1, 4))
    for _ in range(int(rng.integers(3, 10))):
        length = sheet.print(x, y, text.person(rng))
        middle = y + 0.6 * sheet.size
        if rng.random() < 0.35:
            start = (round(x + rng.uniform(-1.5, 1.0) * sheet.size), round(middle))
            low = (round(start[0] + 0.4 * sheet.size), round(middle + 0.5 * sheet.size))
            high = (
                round(low[0] + sheet.size * rng.uniform(0.8, 3.5)),
                round(middle - sheet.size * rng.uniform(0.4, 2.0)),
            )
            places = [start, low, high] if rng.random() < 0.6 else [low, high]
            cv2.polylines(sheet.paper, [np.array(places)], False, grey, thickness, cv2.LINE_AA)
        if rng.random() < 0.08:
            ends = (round(x), round(middle)), (round(x + length), round(middle + rng.normal(0, 3)))
            cv2.line(sheet.paper, *ends, grey, thickness, cv2.LINE_AA)
        y += sheet.line


def script_letterhead(sheet: Sheet, y: float) -> float:
    """A firm's name in drawn script, as old letterheads have it; returns the y below.

    It looks written and stands where nobody signs.
    """
    rng = sheet.rng
    words = str(rng.choice(text.COMPANIES)) + str(rng.choice(["", " Company", " Inc"]))
    length, height = sheet.width * rng.uniform(0.2, 0.5), sheet.height * rng.uniform(0.018, 0.05)
    x = sheet.width * float(rng.choice([0.06, 0.3, 0.5]))
    box = (x + length / 2, y + height / 2, length, height)
    script(sheet, words, box)
    below = y + 1.2 * height
    if rng.random() < 0.6:
        small = sheet.small(0.75)
        sheet.print(x, below, f"{rng.integers(10, 999)} {rng.choice(text.LAST_NAMES)} Street", size=small)
        below += 1.5 * small
    return below


def script(sheet: Sheet, words: str, box: tuple[float, float, float, float]) -> None:
    """Words in drawn script, even letters of thick and thin lines; box as `Sheet.write`."""
    writer = sheet.writer()
    writer.hand = dataclasses.replace(
        writer.hand,
        wobble=0.01,
        slant=float(sheet.rng.uniform(0.2, 0.5)),
        pressure=float(sheet.rng.uniform(0.4, 1)),
    )
    drawn = writer.spell(words.replace("&", "and"), sheet.rng)
    sheet.write(drawn, writer.hand, box, None, (np.full(3, 15.0), 1.0))


def distract(sheet: Sheet) -> None:
    """Marks that are not signatures, most of them near where nothing else stands."""
    rng, width = sheet.rng, sheet.width
    for chance, draw in _DISTRACTIONS:
        if rng.random() < chance:
            draw(sheet)
    if rng.random() < 0.1:
        time = f"{rng.integers(10, 24)}:{rng.integers(10, 59)} P.{rng.integers(1, 9)}"
        words = f"FROM {rng.choice(text.COMPANIES)} {text.date(rng)} {time}"
        sheet.print(0.05 * width, 2, words, "DejaVuSansMono.ttf", sheet.small(0.8))


def _scattered_note(sheet: Sheet) -> None:
    rng, width, height = sheet.rng, sheet.width, sheet.height
    top = height * rng.uniform(0.02, 0.95)
    for line in range(int(rng.integers(1, 5))):
        x, length = width * rng.uniform(0.15, 0.85), width * rng.uniform(0.1, 0.4)
        note(sheet, x, top + 1.6 * line * sheet.size, length, sheet.size * rng.uniform(1.2, 2.2))


def _circled_number(sheet: Sheet) -> None:
    rng, width, height = sheet.rng, sheet.width, sheet.height
    centre = (round(width * rng.uniform(0.1, 0.9)), round(height * rng.uniform(0.05, 0.95)))
    axes = (round(sheet.size * rng.uniform(1, 2)), round(sheet.size * rng.uniform(0.8, 1.8)))
    cv2.ellipse(sheet.paper, centre, axes, float(rng.uniform(0, 90)), 15, 370, (30, 30, 30), 2, cv2.LINE_AA)
    writer = sheet.writer()
    box = (*centre, 1.4 * sheet.size, sheet.size)
    sheet.write(writer.write(str(rng.integers(1, 99)), rng), writer.hand, box, None)


def _crossing_line(sheet: Sheet) -> None:
    """A stroke of the pen or a scratch from one side to another."""
    rng, width, height = sheet.rng, sheet.width, sheet.height
    ends = [(round(width * rng.uniform(0, 1)), round(height * rng.uniform(0, 1))) for _ in range(2)]
    cv2.line(sheet.paper, ends[0], ends[1], (40, 40, 40), int(rng.integers(1, 3)), cv2.LINE_AA)


def _underlines(sheet: Sheet) -> None:
    """Lines drawn by hand under words or through them, brackets beside them, ticks before them."""
    rng, width, height = sheet.rng, sheet.width, sheet.height
    for _ in range(int(rng.integers(1, 9))):
        x, y = width * rng.uniform(0.08, 0.7), height * rng.uniform(0.15, 0.85)
        kind = rng.choice(["line", "tick", "bar"], p=[0.6, 0.25, 0.15])
        if kind == "line":
            steps = np.linspace(0, width * rng.uniform(0.05, 0.5), 12)
            points = np.stack([x + steps, y + np.cumsum(rng.normal(0, 0.6, 12))], axis=1)
        elif kind == "tick":
            points = np.array([[x, y], [x + 5, y + 7], [x + 16, y - 12]]) * 1.0
        else:
            points = np.array([[x, y], [x + rng.normal(0, 3), y + height * rng.uniform(0.03, 0.1)]])
        cv2.polylines(
            sheet.paper, [points.astype(np.int32)], False, (40,) * 3, int(rng.integers(1, 4)), cv2.LINE_AA
        )


def _bates_number(sheet: Sheet) -> None:
    rng = sheet.rng
    number = text.font(str(rng.choice(text.BOLD)), round(1.1 * sheet.size))
    words = str(rng.integers(10**7, 10**10))
    patch = Image.new("L", (round(number.getlength(words)) + 4, round(1.7 * sheet.size)), 255)
    ImageDraw.Draw(patch).text((2, 0), words, font=number, fill=20)
    if rng.random() < 0.7:
        patch = patch.rotate(90, expand=True)
    x = round(sheet.width * 0.97 - patch.width)
    y = round((sheet.height - patch.height) * rng.uniform(0.3, 0.97))
    area = sheet.paper[y : y + patch.height, x : x + patch.width]
    np.minimum(area, np.asarray(patch)[: area.shape[0], : area.shape[1], None], out=area)


def _stamp(sheet: Sheet) -> None:
    """A received or date stamp, framed or round, turned and badly inked."""
    rng = sheet.rng
    size = round(sheet.size * rng.uniform(1.0, 1.6))
    words = [
        str(rng.choice(["RECEIVED", "FILED", "COPY", "PAID", "APPROVED", "CONFIDENTIAL"])),
        text.date(rng).upper(),
    ]
    face = text.font(str(rng.choice(text.BOLD)), size)
    length = round(max(face.getlength(line) for line in words)) + 2 * size
    stamp = Image.new("L", (length, round(3.6 * size)), 0)
    draw = ImageDraw.Draw(stamp)
    frame = rng.choice(["none", "single", "double", "hatched"], p=[0.3, 0.35, 0.2, 0.15])
    for inset in {"none": (), "single": (1,), "double": (1, 6), "hatched": (1,)}[str(frame)]:
        draw.rectangle([inset, inset, length - 1 - inset, stamp.height - 1 - inset], outline=255, width=2)
    if frame == "hatched":
        for x in range(0, length, 6):
            draw.line([x, 0, x, round(0.5 * size)], fill=255, width=2)
            draw.line([x, stamp.height - round(0.5 * size), x, stamp.height], fill=255, width=2)
    for number, line in enumerate(words[: int(rng.integers(1, 3))]):
        draw.text((size, size * (0.4 + 1.4 * number)), line, font=face, fill=255)
    turned = stamp.rotate(float(rng.normal(0, 12)), expand=True, resample=Image.Resampling.BILINEAR)
    coverage = np.asarray(turned, np.float32) / 255
    patches = cv2.resize(rng.uniform(0.3, 1.3, (6, 10)).astype(np.float32), coverage.shape[::-1])
    left, top = rng.uniform(0.02, 0.7) * sheet.width, rng.uniform(0.02, 0.9) * sheet.height
    sheet.ink(coverage * np.clip(patches, 0, 1), left, top, None)


def frame(sheet: Sheet) -> None:
    """A border of rules or of interlaced waves, as engraved ones look from afar."""
    rng = sheet.rng
    inset = sheet.width * rng.uniform(0.02, 0.05)
    grey = (int(rng.integers(30, 150)),) * 3
    corners = (round(inset), round(inset)), (round(sheet.width - inset), round(sheet.height - inset))
    cv2.rectangle(sheet.paper, *corners, grey, int(rng.integers(1, 5)))
    if rng.random() < 0.6:
        depth, period = inset * rng.uniform(0.3, 0.6), inset * rng.uniform(0.4, 1.2)
        for phase in np.linspace(0, 2 * np.pi, int(rng.integers(2, 6)), endpoint=False):
            for side in range(4):
                along = np.arange(inset, (sheet.width if side % 2 else sheet.height) - inset, 1.5)
                wave = depth * np.sin(2 * np.pi * along / period + phase)
                edge = (sheet.height if side % 2 else sheet.width) - inset if side > 1 else inset
                across = edge + wave
                points = np.stack([along, across] if side % 2 else [across, along], axis=1)
                cv2.polylines(sheet.paper, [points.astype(np.int32)], False, grey, 1, cv2.LINE_AA)


def table(sheet: Sheet, left: float, y: float) -> float:
    """A table of words and figures, ruled or not; returns the y below."""
    rng = sheet.rng
    rows, columns = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    width = (sheet.width - 2 * left) * rng.uniform(0.5, 1.0)
    height = 1.3 * sheet.line
    lined = rng.random() < 0.7
    for row in range(rows + 1):
        if lined:
            sheet.rule(left, y + row * height, width)
        for column in range(columns if row < rows else 0):
            words = f"{rng.integers(1, 99999):,}" if column and row else str(rng.choice(text.WORDS))
            sheet.print(
                left + 3 + column * width / columns,
                y + row * height + 2,
                words,
                size=sheet.small(0.85),
            )
    if lined:
        for column in range(columns + 1):
            x = round(left + column * width / columns)
            sheet.paper[round(y) : round(y + rows * height), x : x + 1] = 30
    return y + (rows + 1) * height


# What may stand on any page: (probability, what draws it).
_DISTRACTIONS = (
    (0.15, _scattered_note),
    (0.25, annotation),
    (0.25, _jotting),
    (0.1, _ticked_names),
    (0.15, emblems.scattered),
    (0.2, _stamp),
    (0.12, _circled_number),
    (0.1, _crossing_line),
    (0.15, _underlines),
    (0.45, _bates_number),
)
