"""Where people sign: closings, captions, rules, rows of signers, and the notary's words beside them."""

from __future__ import annotations

from training.data.synthetic import marks, text
from training.data.synthetic.sheet import Sheet

# How a place to sign looks: under letters mostly a closing, under contracts mostly a rule.
_CLOSINGS = ("letter",) * 6 + ("by", "rule", "rule", "caption")
_LINES = ("letter", "by", "by", "by", "rule", "rule", "rule", "caption", "caption", "caption")


def margins(sheet: Sheet) -> tuple[float, int]:
    """Left margin in pixels and characters a line."""
    left = sheet.width * sheet.rng.uniform(0.08, 0.15)
    return left, int((sheet.width - 2 * left) / sheet.advance)


def paragraphs(
    sheet: Sheet, left: float, y: float, characters: int, bottom: float, justify: float = 0.0
) -> float:
    """Running text down to `bottom`, some of it under headings; returns the y below."""
    rng = sheet.rng
    while y < bottom:
        count = int(min(rng.integers(2, 9), max(1, (bottom - y) / sheet.line)))
        indent = sheet.size * 2.5 if rng.random() < justify else 0.0
        if rng.random() < 0.12:
            heading = text.sentence(rng, 3)[:-1]
            length = sheet.print(left, y, heading, str(rng.choice(text.BOLD)))
            if rng.random() < 0.5:
                sheet.rule(left, y + 1.15 * sheet.size, length)
            y += 1.4 * sheet.line
        y = sheet.print_lines(left + indent, y, text.lines(rng, characters - 3, count))
        y += sheet.line * rng.uniform(0.5, 1.0)
    return y


def signature_block(sheet: Sheet, x: float, y: float, width: float, narrow: bool = False) -> float:
    """Closing or caption, room to sign, a rule or not, the typed name; returns the y below.

    In a narrow column a signature keeps to its width; under a letter it runs as far as it likes.
    """
    rng = sheet.rng
    style = rng.choice(_LINES if narrow else _CLOSINGS)
    room = width if narrow else 0.95 * sheet.width - x
    if style == "letter":
        sheet.print(x, y, str(rng.choice(text.CLOSINGS)))
        y += sheet.line
    baseline = y + sheet.line * rng.uniform(1.2, 3.2)
    start = x
    if style == "by":
        start += (
            sheet.print(x, baseline - sheet.size, str(rng.choice(["By:", "Name:", "Signed", "BY", "X"]))) + 4
        )
    if style != "letter":
        sheet.rule(start, baseline + 2, width, int(rng.integers(1, 3)))
    if rng.random() < 0.93:
        sheet.sign(start + rng.uniform(-0.15, 0.15) * width, baseline, room)
        if style == "letter" and rng.random() < 0.1 and start + 2 * width < sheet.width:
            # Two people sign one letter, hand beside hand.
            second = start + width * rng.uniform(1.0, 1.25)
            sheet.sign(second, baseline, min(width, 0.98 * sheet.width - second))
    below = baseline + sheet.size * rng.uniform(0.25, 0.9)
    if style == "caption":
        sheet.print(
            x,
            below,
            str(rng.choice(["Signature", "(Signature)", "SIGNATURE OF LESSOR", "Authorized Signature"])),
            size=sheet.small(0.75),
        )
    elif rng.random() < 0.9:
        stamped = rng.random() < 0.06
        face = str(rng.choice(text.BOLD)) if stamped else None
        sheet.print(x, below, text.person(rng).upper() if stamped else text.person(rng), face)
        if rng.random() < 0.7:
            below += sheet.line
            sheet.print(x, below, str(rng.choice(text.TITLES)))
    below += 1.2 * sheet.line
    if style != "letter" and rng.random() < 0.25:
        # The name again, in block letters or cursive, by the one who signed: not a signature.
        marks.note(sheet, x + 0.4 * width, below + 0.4 * sheet.size, 0.7 * width, 1.3 * sheet.size)
        below += 1.3 * sheet.line
    if style != "letter" and rng.random() < 0.6:
        label = sheet.print(x, below, str(rng.choice(["Date:", "Dated", "DATE"])))
        sheet.rule(x + label + 4, below + sheet.size + 2, 0.5 * width)
        if rng.random() < 0.75:
            sheet.handwrite_date(
                x + label + 4 + 0.25 * width, below + 0.4 * sheet.size, sheet.size * rng.uniform(1.0, 1.7)
            )
        below += 1.4 * sheet.line
    return below


def signers(sheet: Sheet, x: float, y: float, width: float) -> float:
    """Several who sign one above the other, close as on old forms; some have not signed yet.

    Returns the y below. Signatures run into each other's lines but never hide one another.
    """
    rng = sheet.rng
    gap = sheet.line * rng.uniform(2.2, 3.8)
    ruled, named, captioned = rng.random() < 0.75, rng.random() < 0.75, rng.random() < 0.4
    prefix = str(rng.choice(["", "", "By:", "By", "X", "/s/"]))
    dated = rng.random() < 0.35 and x + 1.6 * width < 0.97 * sheet.width
    for _ in range(int(rng.integers(2, 6))):
        baseline = y + gap - sheet.size
        if baseline > 0.94 * sheet.height:
            break
        start = x + (sheet.print(x, baseline - sheet.size, prefix) + 4 if prefix else 0)
        if ruled:
            sheet.rule(start, baseline + 2, width)
        if captioned:
            title = str(rng.choice(text.TITLES))
            sheet.print(min(start + 1.02 * width, 0.85 * sheet.width), baseline - sheet.size, ", " + title)
        if rng.random() < 0.85:
            sheet.sign(start + rng.uniform(0, 0.1) * width, baseline, width, highest=1.25 * gap)
        if named:
            sheet.print(start, baseline + 3, text.person(rng), size=sheet.small(0.9))
        if dated:
            _dated(sheet, start + 1.15 * width, baseline, 0.4 * width)
        y += gap
    return y + sheet.line


def _dated(sheet: Sheet, x: float, baseline: float, width: float) -> None:
    """A place for the day beside the one for the name, mostly filled in."""
    rng = sheet.rng
    sheet.rule(x, baseline + 2, width)
    if rng.random() < 0.5:
        sheet.print(x, baseline + 3, "Date", size=sheet.small(0.8))
    if rng.random() < 0.85:
        height = sheet.size * rng.uniform(1.0, 2.0)
        sheet.handwrite_date(x + 0.5 * width, baseline - 0.4 * height, height)


def sworn(sheet: Sheet, x: float, y: float, width: float) -> float:
    """A notary's lines: typed, gaps filled in by hand, signed close to the type; returns the y below.

    What stands in the gaps is read: of all that is written here only the names at the end are signatures.
    """
    rng = sheet.rng
    state, county = str(rng.choice(text.LAST_NAMES)).upper(), str(rng.choice(text.LAST_NAMES)).upper()
    for heading, typed in (
        ("STATE OF", f" {state}     )"),
        ("", "                    ) ss.:"),
        ("COUNTY OF", f" {county}    )"),
    ):
        blank = bool(heading) and rng.random() < 0.4
        length = sheet.print(x, y, heading if blank else heading + typed)
        if blank:
            _filled(sheet, x + length + 4, y, 10 * sheet.size, str(rng.choice(text.LAST_NAMES)))
        y += sheet.line
    y += 0.6 * sheet.line
    number = f"{rng.integers(1, 29)}th"
    for before, gap, after in (
        ("     On this", number, "day of"),
        ("in the year", str(rng.choice(text.MONTHS)), "before me came"),
    ):
        place = x + sheet.print(x, y, before) + 4
        sheet.rule(place, y + sheet.size + 2, 8 * sheet.size)
        if rng.random() < 0.8:
            _filled(sheet, place, y, 8 * sheet.size, gap)
        sheet.print(place + 8.5 * sheet.size, y, after)
        y += 1.3 * sheet.line
    y = sheet.print_lines(x, y, text.lines(rng, max(20, int(width / sheet.advance)), int(rng.integers(2, 6))))
    right = x + width * rng.uniform(0.3, 0.6)
    baseline = y + sheet.line * rng.uniform(1.4, 2.6)
    if rng.random() < 0.8:
        sheet.rule(right, baseline + 2, 0.4 * width)
    sheet.sign(right, baseline, 0.4 * width, highest=5 * sheet.line)
    sheet.print(
        right + 0.1 * width, baseline + 3, str(rng.choice(["Notary Public", "NOTARY PUBLIC", "(Notary)"]))
    )
    return baseline + 2 * sheet.line


def _filled(sheet: Sheet, x: float, y: float, width: float, words: str) -> None:
    """A word that somebody wrote into a gap of the type, a bit larger than the type."""
    writer, height = sheet.writer(), sheet.size * sheet.rng.uniform(1.1, 2.0)
    box = (x + 0.5 * width, y + 0.4 * sheet.size, 0.9 * width, height)
    sheet.write(writer.spell(words, sheet.rng), writer.hand, box, None)
