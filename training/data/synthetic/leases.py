"""Leases: clauses with bars over amounts, initials at the foot, and forms that several sign in frames.

Sizes, numbers and places follow the annotation of SignVerOD's 1,016 lease pages (989 initials, 1,912
redactions, 570 dates; CC0); how they look was seen on ten of them.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.data.synthetic import blocks, marks, text
from training.data.synthetic.sheet import Sheet

# Whose initials stand at the foot of a page.
_PARTIES = (
    ("LESSOR:", "GOVERNMENT:"),
    ("Initials:", "Initials:"),
    ("Tenant", "Landlord"),
    ("LESSOR", "GOV'T"),
    ("Owner's initials", "Lessee's initials"),
)
# Captions below the lines of a form: where somebody signs, and what goes beside it.
_CAPTIONS = ("(Signature)", "Signature", "(Sign here)")
_BESIDE = ("(Title)", "(Address)", "(Official title)", "(Name)")


def page(sheet: Sheet) -> None:
    """A page of clauses, numbered or lettered, that both sides put their initials on."""
    rng = sheet.rng
    left, characters = blocks.margins(sheet)
    sheet.size = sheet.small(0.85)
    characters = int(characters / 0.85)
    if rng.random() < 0.5:
        marks.table(sheet, left, sheet.height * rng.uniform(0.3, 0.6))
    foot = sheet.height * rng.uniform(0.84, 0.95)
    y = sheet.height * rng.uniform(0.04, 0.1)
    bottom = foot - sheet.line * rng.uniform(2, 5)
    _terms(sheet, left, y, characters, bottom)
    redact(sheet)
    initials(sheet, foot)


def form(sheet: Sheet) -> None:
    """An agreement on a form: framed, with cells above, and rows below that several sign and date."""
    rng = sheet.rng
    left = sheet.width * rng.uniform(0.04, 0.1)
    width = sheet.width - 2 * left
    sheet.size = sheet.small(rng.uniform(0.85, 1.0))
    top = sheet.height * rng.uniform(0.03, 0.08)
    y = _cells(sheet, left, top, width)
    room = left + 0.02 * width
    characters = int(0.96 * width / sheet.advance)
    bottom = sheet.height * rng.uniform(0.45, 0.68)
    y = _terms(sheet, room, y, characters, bottom)
    redact(sheet)
    sheet.print(room, y, "IN WITNESS WHEREOF, the parties subscribed their names as of the above date.")
    y += 1.4 * sheet.line
    if rng.random() < 0.5:
        y = _rows(sheet, left, y, width)
        if rng.random() < 0.7:
            corners = (round(left), round(top)), (round(left + width), round(y))
            cv2.rectangle(sheet.paper, *corners, (30, 30, 30), int(rng.integers(1, 4)))
    else:
        half = 0.5 * width
        y = max(_column(sheet, room + column * half, y, 0.86 * half) for column in range(2))
        if y < 0.8 * sheet.height and rng.random() < 0.6:
            y = _column(sheet, room, y + sheet.line, 0.86 * half, witness=True)
    number = f"FORM {rng.integers(100, 999)} ({rng.integers(1, 13)}/{rng.integers(60, 99)})"
    sheet.print(left + width - 12 * sheet.size, y + 0.4 * sheet.line, number, size=sheet.small(0.8))
    if rng.random() < 0.4:
        initials(sheet, max(sheet.height * rng.uniform(0.88, 0.95), y + 1.5 * sheet.line))


def initials(sheet: Sheet, y: float) -> None:
    """A footer at y, with places for both sides' initials, or initials beside it without a place."""
    rng = sheet.rng
    small = sheet.small(0.8)
    if rng.random() < 0.7:
        words = f"LEASE NO. {rng.integers(10, 99)}-{rng.integers(1000, 99999)}, PAGE {rng.integers(1, 50)}"
        sheet.print(sheet.width * rng.uniform(0.05, 0.12), y, words, size=small)
    if rng.random() < 0.12:
        for _ in range(int(rng.integers(1, 3))):
            x = sheet.width * rng.uniform(0.6, 0.92)
            sheet.initial(x, y + rng.normal(-1, 1) * sheet.size, _initials_height(sheet))
        return
    x = sheet.width * float(
        rng.choice([rng.uniform(0.12, 0.25), rng.uniform(0.32, 0.5), 0.6], p=[0.2, 0.45, 0.35])
    )
    below, length = rng.random() < 0.3, sheet.size * rng.uniform(3.5, 7)
    for caption in _PARTIES[int(rng.integers(len(_PARTIES)))]:
        if below:
            sheet.print(x, y + 1.3 * sheet.size, caption, size=small)
        else:
            x += sheet.print(x, y, caption, size=small) + 4
        sheet.rule(x, y + sheet.size, length)
        if rng.random() < 0.88:
            lift = rng.normal(0.1, 0.45) * sheet.size
            sheet.initial(x + rng.uniform(0.35, 0.65) * length, y + lift, _initials_height(sheet))
        x += length + sheet.size * rng.uniform(0.8, 3)
        if below and rng.random() < 0.5:
            sheet.print(x - 0.9 * sheet.size, y, "&")


def _initials_height(sheet: Sheet) -> float:
    """Pixels: nearly 9 mm, most between 6 and 13."""
    return sheet.height * float(np.clip(np.exp(sheet.rng.normal(np.log(0.031), 0.3)), 0.016, 0.07))


def redact(sheet: Sheet) -> None:
    """Bars over amounts and names in what is printed; on every second page none."""
    rng = sheet.rng
    lines = [line for line in sheet.printed if line[2] > 8 * sheet.size]
    if rng.random() < 0.5 or len(lines) < 3:
        return
    # They stand together, in the clauses that speak of money.
    first, count = int(rng.integers(len(lines))), 1 + int(rng.geometric(0.22))
    for _ in range(min(count, 14)):
        place = first + round(rng.normal(0, 5)) if rng.random() < 0.75 else int(rng.integers(len(lines)))
        x, y, length = lines[int(np.clip(place, 0, len(lines) - 1))]
        long = rng.random() < 0.15
        share = rng.uniform(0.15, 0.5) if long else float(np.exp(rng.normal(np.log(0.07), 0.35)))
        width = min(share * sheet.width, length)
        rows = 1.0 if rng.random() < 0.82 else rng.uniform(1.6, 3.2)
        height = sheet.line * (rng.uniform(0.75, 1.05) * rows)
        sheet.redact(
            x + rng.uniform(0, 1) * (length - width), y + rng.normal(0, 0.1) * sheet.size, width, height
        )


def _terms(sheet: Sheet, left: float, y: float, characters: int, bottom: float) -> float:
    """What is agreed on, in paragraphs or clauses; returns the y below."""
    write = blocks.paragraphs if sheet.rng.random() < 0.5 else _clauses
    return write(sheet, left, y, characters, bottom)


def _clauses(sheet: Sheet, left: float, y: float, characters: int, bottom: float) -> float:
    """Numbered headings with lettered items, as leases have them; returns the y below."""
    rng = sheet.rng
    section, number = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    indent = sheet.size * rng.uniform(2, 4)
    while y < bottom:
        heading = " ".join(rng.choice(text.WORDS, int(rng.integers(2, 5)))).upper()
        sheet.print(left, y, f"{section}.{number:02d}", str(rng.choice(text.BOLD)))
        sheet.print(left + 4 * sheet.size, y, heading, str(rng.choice(text.BOLD)))
        number += 1
        y += 1.6 * sheet.line
        for item in range(int(rng.integers(1, 5))):
            count = int(min(rng.integers(1, 6), max(1, (bottom - y) / sheet.line)))
            sheet.print(left, y, f"{chr(65 + item)}.")
            room = characters - int(indent / sheet.advance) - 1
            y = sheet.print_lines(left + indent, y, text.lines(rng, room, count)) + 0.6 * sheet.line
            if y > bottom:
                break
    return y


def _cells(sheet: Sheet, left: float, y: float, width: float) -> float:
    """The head of a form: its name, and cells for a number and for the day; returns the y below."""
    rng = sheet.rng
    height = sheet.line * rng.uniform(2.2, 3.4)
    title = str(rng.choice(["SUPPLEMENTAL AGREEMENT", "LEASE FOR REAL PROPERTY", "LEASE AMENDMENT"]))
    cells = [("title", 0.48), ("number", 0.24), ("date", 0.28)]
    x = left
    for place in rng.permutation(len(cells)):
        content, share = cells[place]
        corners = (round(x), round(y)), (round(x + share * width), round(y + height))
        cv2.rectangle(sheet.paper, *corners, (30, 30, 30), 1)
        if content == "title":
            face = str(rng.choice(text.BOLD))
            fits = 0.94 * share * width / text.font(face, sheet.size).getlength(title)
            size = sheet.small(min(fits, rng.uniform(1.0, 1.6)))
            sheet.print(x + 4, y + (height - size) / 2, title, face, size)
        else:
            caption = "DATE OF LEASE" if content == "date" else "LEASE NO."
            sheet.print(x + 3, y + 2, caption, str(rng.choice(text.SANS)), sheet.small(0.65))
            if content == "number":
                sheet.print(x + 6, y + 0.45 * height, f"{rng.integers(10, 99)}-{rng.integers(1000, 99999)}")
            elif rng.random() < 0.5:
                tall = sheet.size * rng.uniform(1.2, 2.0)
                sheet.handwrite_date(x + 0.5 * share * width, y + 0.65 * height, tall)
            elif rng.random() < 0.7:
                _stamp_day(sheet, x + 8, y + 0.45 * height)
        x += share * width
    return y + height + 0.6 * sheet.line


def _stamp_day(sheet: Sheet, x: float, y: float) -> None:
    """Read as a date, but nobody wrote it."""
    stamped = text.date(sheet.rng).upper().replace(",", "")
    sheet.print(x, y, stamped, str(sheet.rng.choice(text.BOLD)))


def _rows(sheet: Sheet, left: float, y: float, width: float) -> float:
    """Who signs on the left, what they are on the right, close rows between rules; returns the y below."""
    rng = sheet.rng
    gap = sheet.line * rng.uniform(2.0, 3.2)
    for party in ("LESSOR", str(rng.choice(["UNITED STATES OF AMERICA", "LESSEE", "TENANT"]))):
        if y + gap > 0.95 * sheet.height:
            break
        sheet.rule(left, y, width, 2)
        length = sheet.print(left + 4, y + 3, party)
        if rng.random() < 0.6:
            sheet.print(left + length + 2 * sheet.size, y + 3, str(rng.choice(text.COMPANIES)).upper())
        y += sheet.line
        for _ in range(int(rng.integers(1, 3))):
            baseline = y + gap - 1.1 * sheet.size
            sheet.print(left + 4, baseline - 0.9 * sheet.size, "BY", size=sheet.small(0.8))
            start, room = left + 3 * sheet.size, 0.38 * width
            sheet.rule(start, baseline + 2, 0.44 * width)
            sheet.print(
                start + 0.15 * width, baseline + 3, str(rng.choice(_CAPTIONS)), size=sheet.small(0.65)
            )
            if rng.random() < 0.9:
                sheet.sign(start + rng.uniform(0, 0.08) * width, baseline, room, highest=1.5 * gap)
            _beside(sheet, left + 0.56 * width, baseline, 0.4 * width)
            y += gap
        y += 0.3 * sheet.line
    return y


def _beside(sheet: Sheet, x: float, baseline: float, width: float) -> None:
    """A title, an address or a name: typed, written, covered, or not filled in."""
    rng = sheet.rng
    sheet.rule(x, baseline + 2, width)
    sheet.print(x + 0.4 * width, baseline + 3, str(rng.choice(_BESIDE)), size=sheet.small(0.65))
    draw, tall = rng.random(), sheet.size * rng.uniform(1.2, 2.0)
    if draw < 0.4:
        marks.note(sheet, x + 0.5 * width, baseline - 0.4 * tall, 0.9 * width, tall)
    elif draw < 0.75:
        sheet.print(x + 0.1 * width, baseline - sheet.size, str(rng.choice(text.TITLES)))
        if draw < 0.5:
            sheet.redact(
                x + 0.05 * width, baseline - 0.9 * sheet.size, width * rng.uniform(0.4, 0.9), sheet.size
            )


def _column(sheet: Sheet, x: float, y: float, width: float, witness: bool = False) -> float:
    """Caption, signature, name, title and day under each other; returns the y below."""
    rng = sheet.rng
    captions = ["WITNESSED BY:"] if witness else ["FOR THE LESSOR:", "FOR THE GOVERNMENT:", "FOR THE TENANT:"]
    sheet.print(x, y, str(rng.choice(captions)))
    baseline = y + sheet.line * rng.uniform(2.4, 4)
    sheet.rule(x, baseline + 2, 0.8 * width)
    if rng.random() < 0.92:
        sheet.sign(x + rng.uniform(0, 0.1) * width, baseline, 0.8 * width, highest=5 * sheet.line)
    if rng.random() < 0.12:  # an officer's name, from a rubber stamp, across what stands there
        start, above = x + rng.uniform(0.4, 0.7) * width, baseline - rng.uniform(0, 1) * sheet.line
        face = str(rng.choice(text.BOLD))
        name, title = text.person(rng).upper(), str(rng.choice(text.TITLES)).upper()
        sheet.print(start, above, name, face)
        sheet.print(start, above + sheet.line, title, face)
    y = baseline + 0.4 * sheet.size
    labels = ("Name: ", "Title: ", "Entity: ") if rng.random() < 0.6 else ("", "", "")
    typed = (text.person(rng), str(rng.choice(text.TITLES)), str(rng.choice(text.COMPANIES)))
    for label, words in list(zip(labels, typed, strict=True))[: int(rng.integers(1, 4))]:
        sheet.print(x, y, label + (words if rng.random() < 0.9 else ""))
        y += 1.15 * sheet.line
    if rng.random() < 0.8:
        y += 0.5 * sheet.line
        length = sheet.print(x, y, "Date:") + 4
        sheet.rule(x + length, y + sheet.size + 2, 0.55 * width)
        if rng.random() < 0.7:
            place = x + length + width * rng.uniform(0.15, 0.35)
            sheet.handwrite_date(place, y + 0.3 * sheet.size, sheet.size * rng.uniform(1.2, 2.1))
        elif rng.random() < 0.4:
            _stamp_day(sheet, x + length + 0.1 * width, y - 2)
        y += 1.5 * sheet.line
    return y
