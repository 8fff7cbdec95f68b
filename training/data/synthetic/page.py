"""Synthetic pages: letters, memos, contracts, leases, forms, cheques, certificates; exact boxes.

A page is composed of printed blocks and of ink that a `handwriting.Writer` puts where people sign,
then scanned. Boxes are the bounds of the ink's own pixels after every geometric change. Unlabelled
handwriting, stamps, logos, tables, marks and scanner dirt are there to be mistaken for signatures.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.data.page import Box, Page
from training.data.synthetic import blocks, emblems, leases, marks, scan, text
from training.data.synthetic.sheet import (
    DATE,
    EVALUATION_WRITERS,
    INITIALS,
    PAGE_MILLIMETRES,
    REDACTION,
    SIGNATURE,
    Sheet,
)

# Least pixels of the longer side on which type is drawn; below, letters of 8 points have no shape.
_DRAWN = 1000
# What boxes leave around the ink, by class, in shares of `margin`: initials are annotated generously.
_ROOM = {SIGNATURE: 1.0, INITIALS: 1.5, REDACTION: 0.5, DATE: 1.0}


def synthesize_page(
    seed: int, index: int, *, long_side: int = 1000, evaluation: bool = False, margin: float = 0.0
) -> Page:
    """One page; the same arguments give the same bytes.

    Args:
      seed: of the data set.
      index: number of the page in its split.
      long_side: pixels of the longer side. A page is drawn on at least _DRAWN of them and reduced at the
        end, as archives reduce their scans: small type and thin strokes become grey, not jagged.
      evaluation: draw from the writers that training pages never use.
      margin: millimetres, of a page 280 mm long, that boxes of signatures and dates leave around the ink;
        half as much again around initials, half of it around redactions. Exact by default; people who
        annotate leave one or two.

    Returns:
      A page with its encoded image (JPEG, or PNG for one in ten) and its boxes.
    """
    rng = np.random.default_rng([seed, int(evaluation), index])
    kinds = list(_LAYOUTS)
    kind = kinds[int(rng.choice(len(kinds), p=[_LAYOUTS[name][1] for name in kinds]))]
    ratio = rng.uniform(0.4, 0.5) if kind == "cheque" else rng.uniform(0.72, 0.8)
    drawn = max(long_side, _DRAWN)
    shape = (round(drawn * ratio), drawn) if kind == "cheque" else (drawn, round(drawn * ratio))
    family = [text.TYPEWRITER, text.SERIF, text.SANS][int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    sheet = Sheet(
        np.full((*shape, 3), 255, np.uint8),
        rng,
        EVALUATION_WRITERS if evaluation else 0,
        str(rng.choice(family)),
        round(drawn * rng.uniform(0.0105, 0.0165)),
    )
    tinted = rng.random() < 0.2
    if tinted:
        sheet.tint()
        if rng.random() < 0.25:
            emblems.safety_pattern(sheet)
    _LAYOUTS[kind][0](sheet)
    marks.distract(sheet)
    image, boxes = _scan(sheet, long_side, 0.45 if tinted else 0.75, margin)
    name = f"{'eval' if evaluation else 'train'}-{kind}-{index:06d}"
    encoded, suffix = _encode(image, rng)
    return Page(f"{name}.{suffix}", name, encoded, image.shape[0], image.shape[1], tuple(boxes))


def _scan(sheet: Sheet, long_side: int, bilevel: float, margin: float) -> tuple[np.ndarray, list[Box]]:
    """The page as an image and the boxes on it; `bilevel` is the share of scans in black and white."""
    rng = sheet.rng
    labels = [label for label, _ in sheet.labelled]
    page, points = sheet.paper, [corners for _, corners in sheet.labelled]
    if rng.random() < 0.25:
        page, points = scan.mount(page, points, rng)
    page, points = scan.skew(page, points, rng)
    scan.edges(page, rng)
    if rng.random() < 0.6:
        scan.speckle(page, rng)
    if rng.random() < 0.3:
        page = scan.blur(page, rng)
    if rng.random() < bilevel:
        if rng.random() < 0.12:
            scan.show_through(page, rng)
        page = scan.bilevel(page, rng, sheet.faintest)
        if rng.random() < 0.12:
            scan.dither(page, rng)
    else:
        page = scan.light(page, rng)
        if rng.random() < 0.5:
            page = np.repeat(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    height, width = page.shape[:2]
    boxes = []
    for label, corners in zip(labels, points, strict=True):
        room = _ROOM[label] * margin * max(height, width) / PAGE_MILLIMETRES
        xmin, ymin = np.clip((corners.min(axis=0) - room) / (width, height), 0, 1)
        xmax, ymax = np.clip((corners.max(axis=0) + room) / (width, height), 0, 1)
        if (xmax - xmin) * width >= 4 and (ymax - ymin) * height >= 3:
            boxes.append(Box(float(ymin), float(xmin), float(ymax), float(xmax), label))
    return _resize(page, long_side, rng), boxes


def _resize(page: np.ndarray, long_side: int, rng: np.random.Generator) -> np.ndarray:
    """The page at its final size; every second is stretched to a square, as many data sets are exported."""
    height, width = page.shape[:2]
    reduction = long_side / max(height, width)
    size = (max(1, round(width * reduction)), max(1, round(height * reduction)))
    if rng.random() < 0.5:
        size = (long_side, long_side)
    return page if size == (width, height) else cv2.resize(page, size, interpolation=cv2.INTER_AREA)


def _encode(page: np.ndarray, rng: np.random.Generator) -> tuple[bytes, str]:
    grey = bool((page[..., 0] == page[..., 1]).all() and (page[..., 0] == page[..., 2]).all())
    image = page[..., 0] if grey else page[..., ::-1]
    if rng.random() < 0.1:
        return cv2.imencode(".png", image)[1].tobytes(), "png"
    quality = int(rng.integers(45, 95))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), "jpg"


def _letterhead(sheet: Sheet) -> float:
    rng = sheet.rng
    y = sheet.height * rng.uniform(0.02, 0.06)
    if rng.random() < 0.18:
        return marks.script_letterhead(sheet, y) + sheet.line * rng.uniform(0.8, 3)
    if rng.random() < 0.75:
        company = str(rng.choice(text.COMPANIES))
        company = company.upper() if rng.random() < 0.5 else company
        face, size = str(rng.choice(text.BOLD + text.ITALIC)), round(sheet.size * rng.uniform(1.3, 2.6))
        length = text.font(face, size).getlength(company)
        x = {0: 0.06 * sheet.width, 1: (sheet.width - length) / 2}[int(rng.integers(2))]
        place = rng.random()
        if place < 0.3:
            emblems.logo(sheet, x - 2.2 * size if x > 3 * size else 0.8 * sheet.width, y, 1.8 * size)
        elif place < 0.55:  # above the name, larger than it
            tall = sheet.width * rng.uniform(0.05, 0.11)
            emblems.logo(sheet, x + length / 2 - 0.6 * tall, y, tall)
            y += 1.1 * tall
        sheet.print(x, y, company, face, size)
        y += 1.3 * size
        if rng.random() < 0.6:
            address = f"{rng.integers(10, 9999)} {rng.choice(text.LAST_NAMES)} Avenue"
            small = sheet.small(0.75)
            sheet.print(x, y, address, str(rng.choice(text.SANS)), small)
            y += 1.5 * small
        if rng.random() < 0.4:
            sheet.rule(0.06 * sheet.width, y, 0.88 * sheet.width, int(rng.integers(1, 4)))
    return y + sheet.line * rng.uniform(0.8, 3)


def _letter(sheet: Sheet) -> None:
    rng = sheet.rng
    left, characters = blocks.margins(sheet)
    y = _letterhead(sheet)
    sheet.print(left if rng.random() < 0.5 else 0.55 * sheet.width, y, text.date(rng))
    y += sheet.line * rng.uniform(1.5, 3)
    address = [text.person(rng), str(rng.choice(text.COMPANIES)), f"{rng.integers(10, 999)} Main Street"]
    y = sheet.print_lines(left, y, address[: int(rng.integers(1, 4))]) + sheet.line
    sheet.print(left, y, f"Dear {text.person(rng)}:")
    bottom = sheet.height * rng.uniform(0.32, 0.76)
    y = blocks.paragraphs(sheet, left, y + 1.6 * sheet.line, characters, bottom, 0.4)
    x = left if rng.random() < 0.2 else sheet.width * rng.uniform(0.45, 0.62)
    y = blocks.signature_block(sheet, x, y + 0.3 * sheet.line, sheet.width * rng.uniform(0.18, 0.36))
    if rng.random() < 0.18 and y < 0.75 * sheet.height:
        sheet.print(
            left, y, str(rng.choice(["AGREED TO:", "ACCEPTED AND AGREED", "Approved:", "Witnessed by:"]))
        )
        y = blocks.signers(sheet, left, y + sheet.line, sheet.width * rng.uniform(0.22, 0.36))
    if rng.random() < 0.5:
        copies = ["cc:  " + text.person(rng)] + [
            "     " + text.person(rng) for _ in range(int(rng.integers(0, 5)))
        ]
        sheet.print_lines(left, y + sheet.line, copies)


def _memo(sheet: Sheet) -> None:
    rng = sheet.rng
    left, characters = blocks.margins(sheet)
    y = _letterhead(sheet)
    sheet.print(0.5 * sheet.width, y, "Memorandum", str(rng.choice(text.BOLD)))
    y += 2 * sheet.line
    for label in ("TO:", "FROM:", "DATE:", "SUBJECT:")[: int(rng.integers(3, 5))]:
        sheet.print(left, y, label)
        words = (
            text.date(rng)
            if label == "DATE:"
            else text.person(rng)
            if label != "SUBJECT:"
            else text.sentence(rng, 5)
        )
        x = left + 6 * sheet.size
        length = sheet.print(x, y, words)
        if label == "FROM:" and rng.random() < 0.35:
            # Who signs a memo signs beside the typed name, shortly; annotators call it a signature.
            writer, height = sheet.writer(), sheet.size * rng.uniform(1.6, 3.2)
            box = (x + length + 3 * sheet.size, y + 0.4 * sheet.size, 3.5 * height, height)
            drawn = writer.initials(rng) if rng.random() < 0.5 else writer.signature(rng)
            sheet.write(drawn, writer.hand, box, SIGNATURE)
        y += 1.5 * sheet.line
    sheet.rule(left, y, sheet.width - 2 * left)
    y = blocks.paragraphs(sheet, left, y + sheet.line, characters, sheet.height * rng.uniform(0.5, 0.85))
    if rng.random() < 0.4 and y < 0.85 * sheet.height:
        blocks.signature_block(sheet, 0.5 * sheet.width, y, sheet.width * rng.uniform(0.18, 0.3))


def _contract(sheet: Sheet) -> None:
    rng = sheet.rng
    left, characters = blocks.margins(sheet)
    y = sheet.height * 0.05
    sheet.print(
        0.3 * sheet.width,
        y,
        str(rng.choice(["AGREEMENT", "LEASE AMENDMENT", "TERMS AND CONDITIONS"])),
        str(rng.choice(text.BOLD)),
    )
    y = blocks.paragraphs(sheet, left, y + 2 * sheet.line, characters, sheet.height * rng.uniform(0.3, 0.62))
    leases.redact(sheet)
    sheet.print(left, y, "IN WITNESS WHEREOF the parties have subscribed their names below.")
    y += 1.5 * sheet.line
    columns = int(rng.integers(1, 3))
    width = (sheet.width - 2 * left) / columns - 2 * sheet.size
    lowest = y
    if rng.random() < 0.5:
        for column in range(columns):
            x = left + column * (width + 2 * sheet.size)
            lowest = max(lowest, blocks.signers(sheet, x, y, min(0.8 * width, 0.34 * sheet.width)))
        y = lowest
    for _ in range(int(rng.integers(1, 3)) if y < 0.75 * sheet.height else 0):
        for column in range(columns):
            x = left + column * (width + 2 * sheet.size)
            lowest = max(
                lowest, blocks.signature_block(sheet, x, y, min(width * 0.75, 0.36 * sheet.width), True)
            )
        y = lowest + sheet.line
        if y > 0.85 * sheet.height:
            break
    if y < 0.72 * sheet.height and rng.random() < 0.6:
        blocks.sworn(sheet, left, y, sheet.width - 2 * left)
    if rng.random() < 0.5:
        leases.initials(sheet, sheet.height * rng.uniform(0.92, 0.96))


def _form(sheet: Sheet) -> None:
    rng = sheet.rng
    left, _ = blocks.margins(sheet)
    y = _letterhead(sheet)
    right = sheet.width - left
    while y < 0.75 * sheet.height:
        if rng.random() < 0.15:
            y = marks.table(sheet, left, y)
            continue
        split = left + (right - left) * rng.uniform(0.4, 0.6)
        cv2.rectangle(
            sheet.paper, (round(left), round(y)), (round(right), round(y + 2.2 * sheet.line)), (30, 30, 30), 1
        )
        sheet.paper[round(y) : round(y + 2.2 * sheet.line), round(split)] = 30
        for x in (left + 3, split + 3):
            sheet.print(
                x,
                y + 1,
                " ".join(rng.choice(text.WORDS, 2)).upper(),
                str(rng.choice(text.SANS)),
                max(8, round(0.65 * sheet.size)),
            )
            draw = rng.random()
            if draw < 0.35:
                sheet.print(x + 4, y + 0.9 * sheet.line, text.sentence(rng, 3)[:24])
            elif draw < 0.5:
                marks.note(sheet, x + 6 * sheet.size, y + 1.4 * sheet.line, 8 * sheet.size, 1.1 * sheet.size)
            elif draw < 0.58:
                sheet.handwrite_date(x + 5 * sheet.size, y + 1.4 * sheet.line, 1.2 * sheet.size)
            elif draw < 0.6:
                sheet.sign(x + sheet.size, y + 1.7 * sheet.line, min(12 * sheet.size, 0.8 * (split - left)))
        y += 2.2 * sheet.line
    if rng.random() < 0.3:
        blocks.signers(sheet, left if rng.random() < 0.5 else 0.55 * sheet.width, y, 0.3 * sheet.width)
    elif rng.random() < 0.6:
        blocks.signature_block(sheet, left, y + sheet.line, 0.3 * sheet.width)


def _cheque(sheet: Sheet) -> None:
    rng = sheet.rng
    width, height = sheet.width, sheet.height
    sheet.size = round(sheet.size * 1.3)
    if rng.random() < 0.5:
        sheet.paper[:] = rng.integers(200, 250, 3, dtype=np.uint8)
    cv2.rectangle(sheet.paper, (5, 5), (width - 6, height - 6), (60, 60, 60), 2)
    sheet.print(0.04 * width, 0.06 * height, str(rng.choice(text.COMPANIES)), str(rng.choice(text.BOLD)))
    sheet.print(0.68 * width, 0.15 * height, "DATE")
    sheet.rule(0.74 * width, 0.2 * height, 0.2 * width)
    sheet.handwrite_date(0.83 * width, 0.16 * height, 0.06 * height)
    sheet.print(0.04 * width, 0.33 * height, "PAY TO THE ORDER OF", size=sheet.small(0.7))
    sheet.rule(0.2 * width, 0.38 * height, 0.5 * width)
    marks.note(sheet, 0.42 * width, 0.33 * height, 0.35 * width, 0.07 * height)
    marks.note(sheet, 0.83 * width, 0.34 * height, 0.12 * width, 0.06 * height)
    marks.note(sheet, 0.35 * width, 0.5 * height, 0.5 * width, 0.07 * height)
    sheet.rule(0.04 * width, 0.55 * height, 0.8 * width)
    sheet.rule(0.58 * width, 0.84 * height, 0.36 * width)
    sheet.sign(0.6 * width, 0.83 * height, width * rng.uniform(0.2, 0.36))
    sheet.print(
        0.05 * width, 0.92 * height, " ".join(str(n) for n in rng.integers(0, 999999, 3)), "cmtt10.ttf"
    )


def _handwritten_letter(sheet: Sheet) -> None:
    """A letter that one hand wrote from date to name; of its words only the name is a signature."""
    rng, writer, pen = sheet.rng, sheet.writer(), sheet.pen()
    width, height = sheet.width, sheet.height
    if rng.random() < 0.3:
        _letterhead(sheet)
    left, y = width * rng.uniform(0.05, 0.14), height * rng.uniform(0.06, 0.2)
    line = height * rng.uniform(0.026, 0.048)
    tall = line * rng.uniform(0.5, 0.8)
    if rng.random() < 0.3:  # ruled paper
        for row in np.arange(y, 0.95 * height, line):
            sheet.rule(0, row + 0.45 * line, width)
    if rng.random() < 0.6:
        sheet.handwrite_date(width * rng.uniform(0.65, 0.85), y, tall)
    y += line * rng.uniform(1, 2)
    lines = int(rng.integers(3, 15))
    readable = rng.random() < 0.6
    for row in range(lines):
        share = rng.uniform(0.2, 0.6) if row in (0, lines - 1) else rng.uniform(0.75, 1.0)
        length = share * (width - 2 * left)
        words: list[str] = []
        # A letter is about as wide as half a line's height from its lowest loop to its tallest stem.
        room = length / (0.5 * tall)
        while room > 0:
            letters = int(rng.integers(1, 9))
            capital = not words or rng.random() < 0.08
            words.append(("A" if capital else "a") + "a" * (letters - 1))
            room -= letters + 1
        spelled = text.sentence(rng, max(1, len(words))) if readable else ""
        drawn = writer.spell(spelled, rng) if readable else writer.write(" ".join(words), rng)
        slope = rng.normal(0, 0.1) * line
        sheet.write(drawn, writer.hand, (left + length / 2, y + slope, length, 2 * tall), None, pen)
        y += line
        if y > 0.85 * height:
            break
    if rng.random() < 0.85:
        extent = width * rng.uniform(0.15, 0.35)
        box = (width * rng.uniform(0.3, 0.75), y + 0.6 * line, extent, rng.uniform(1.3, 2.6) * tall)
        named = rng.random() < 0.4
        drawn = writer.sign_name(text.signed(rng), rng) if named else writer.signature(rng)
        sheet.write(drawn, writer.hand, box, SIGNATURE, pen)


def _certificate(sheet: Sheet) -> None:
    """A framed deed or certificate on safety paper: large type, a seal, several who sign."""
    rng = sheet.rng
    width, height = sheet.width, sheet.height
    if rng.random() < 0.8:
        sheet.tint()
        if rng.random() < 0.4:
            emblems.safety_pattern(sheet)
    marks.frame(sheet)
    y = height * rng.uniform(0.1, 0.16)
    for size in (2.6, 1.3, 1.9):
        words = str(rng.choice(["CERTIFICATE", *text.COMPANIES])).upper() if size > 1.5 else text.person(rng)
        face, points = str(rng.choice(text.BOLD + text.ITALIC)), round(size * sheet.size)
        if rng.random() < 0.3:  # the name of who is honoured, in script
            words = text.person(rng) if rng.random() < 0.6 else str(rng.choice(text.COMPANIES))
            box = (width / 2, y + 0.7 * points, width * rng.uniform(0.2, 0.6), points * rng.uniform(1.0, 2.2))
            marks.script(sheet, words, box)
        else:
            sheet.print((width - text.font(face, points).getlength(words)) / 2, y, words, face, points)
        y += 1.6 * points
    left, characters = blocks.margins(sheet)
    y = blocks.paragraphs(sheet, left, y + sheet.line, characters, height * rng.uniform(0.4, 0.68))
    if rng.random() < 0.3:
        size = width * rng.uniform(0.06, 0.16)
        emblems.logo(sheet, (width - size) / 2, height * rng.uniform(0.02, 0.08), size)
    if rng.random() < 0.6:
        emblems.seal(sheet, width * rng.uniform(0.15, 0.7), height * rng.uniform(0.66, 0.8))
    columns = int(rng.integers(1, 4))
    room = (width - 2 * left) / columns
    for column in range(columns):
        x = left + column * room
        baseline = min(y + sheet.line * rng.uniform(2.5, 4), 0.9 * height)
        sheet.rule(x, baseline, 0.85 * room)
        if rng.random() < 0.9:
            sheet.sign(x + rng.uniform(0, 0.15) * room, baseline, room * rng.uniform(0.55, 0.9))
        caption = str(rng.choice([*text.TITLES, text.person(rng)]))
        sheet.print(x + 0.1 * room, baseline + 4, caption, size=sheet.small(0.8))


def _plain(sheet: Sheet) -> None:
    """A page that nobody signed."""
    left, characters = blocks.margins(sheet)
    y = _letterhead(sheet) if sheet.rng.random() < 0.5 else 0.05 * sheet.height
    y = blocks.paragraphs(sheet, left, y, characters, sheet.height * sheet.rng.uniform(0.3, 0.9))
    if y < 0.7 * sheet.height and sheet.rng.random() < 0.5:
        marks.table(sheet, left, y)


# What pages there are: layout -> (composer, share).
_LAYOUTS = {
    "letter": (_letter, 0.36),
    "memo": (_memo, 0.07),
    "contract": (_contract, 0.14),
    "lease": (leases.page, 0.12),
    "agreement": (leases.form, 0.09),
    "form": (_form, 0.06),
    "cheque": (_cheque, 0.03),
    "certificate": (_certificate, 0.05),
    "handwritten": (_handwritten_letter, 0.04),
    "plain": (_plain, 0.04),
}
