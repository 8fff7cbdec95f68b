"""Synthetic pages: letters, memos, contracts, leases, forms, cheques, certificates; exact boxes.

A page is composed of printed blocks and of ink that a `handwriting.Writer` puts where people sign,
then scanned. Boxes are the bounds of the ink's own pixels after every geometric change. Unlabelled
handwriting, stamps, logos, tables, marks and scanner dirt are there to be mistaken for signatures.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from PIL import Image, ImageDraw

from training.data.page import Box, Page
from training.data.synthetic import handwriting, scan, text

SIGNATURE, INITIALS, REDACTION, DATE = 1, 2, 3, 4
CLASSES = {SIGNATURE: "signature", INITIALS: "initials", REDACTION: "redaction", DATE: "date"}
# Writers of evaluation pages are numbered from here on, so no hand stands on both sides.
_EVALUATION_WRITERS = 1_000_000
_WRITERS = 100_000
_INK_COLOURS = ((15, 15, 20), (15, 15, 20), (25, 35, 120), (20, 40, 160), (60, 60, 70))
# What people sign on: white mostly, cream, blue, green and rose safety paper, and grey copies of these.
_PAPER_COLOURS = ((244, 236, 214), (222, 232, 240), (224, 238, 222), (242, 224, 226), (212, 212, 212))


@dataclasses.dataclass
class _Sheet:
    """A page in the making: paper, and the ink that has a label."""

    paper: np.ndarray  # uint8 [h, w, 3]
    rng: np.random.Generator
    writers: int
    typeface: str
    size: int
    labelled: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
    faintest: float = 1.0  # strength of the palest labelled ink

    def pen(self) -> tuple[np.ndarray, float]:
        """A colour and how much of the paper it hides; pencil and worn-out pens leave little."""
        faint = self.rng.random() < 0.12
        strength = float(self.rng.uniform(0.35, 0.75) if faint else self.rng.uniform(0.75, 1.0))
        return np.array(self.rng.choice(_INK_COLOURS), np.float32), strength

    @property
    def height(self) -> int:
        return self.paper.shape[0]

    @property
    def width(self) -> int:
        return self.paper.shape[1]

    @property
    def line(self) -> int:
        return round(1.25 * self.size)

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
            draw.text((round(x), round(y + number * self.line)), words, font=font, fill=(20, 20, 20))
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
        """Writes a trajectory so that it fills the box (x, y of its centre, width, height at most)."""
        x, y, width, height = box
        moving = drawn.points[drawn.pen_down]
        extent = np.maximum(moving.max(axis=0) - moving.min(axis=0), 0.1)
        scale = float(min(width / extent[0], height / extent[1]))
        ink = handwriting.render(drawn, hand, scale, float(np.clip(hand.width * scale, 1.0, 4.5)))
        self.ink(ink, x - ink.shape[1] / 2, y - ink.shape[0] / 2, label, pen)

    def sign(self, x: float, baseline: float, width: float) -> None:
        """A signature that starts near x and sits around a baseline."""
        writer, rng = self.writer(), self.rng
        height = self.height * rng.uniform(0.03, 0.075)
        shift = rng.normal(0, 0.25) * height
        box = (x + width / 2 + rng.normal(0, 0.05) * width, baseline - 0.3 * height + shift, width, height)
        self.write(writer.signature(rng), writer.hand, box, SIGNATURE)

    def tint(self) -> None:
        """Coloured paper, mottled where it is a copy; to be called before anything is printed."""
        colour = np.array(self.rng.choice(_PAPER_COLOURS), np.float32)
        shade = self.rng.uniform(0.8, 1.04)
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


def synthesize_page(seed: int, index: int, *, long_side: int = 1000, evaluation: bool = False) -> Page:
    """One page; the same arguments give the same bytes.

    Args:
      seed: of the data set.
      index: number of the page in its split.
      long_side: pixels of the longer side.
      evaluation: draw from the writers that training pages never use.

    Returns:
      A page with its encoded image (JPEG, or PNG for one in ten) and exact boxes.
    """
    rng = np.random.default_rng([seed, int(evaluation), index])
    kinds = list(_LAYOUTS)
    kind = kinds[int(rng.choice(len(kinds), p=[_LAYOUTS[name][1] for name in kinds]))]
    ratio = rng.uniform(0.4, 0.5) if kind == "cheque" else rng.uniform(0.72, 0.8)
    shape = (
        (round(long_side * ratio), long_side) if kind == "cheque" else (long_side, round(long_side * ratio))
    )
    family = [text.TYPEWRITER, text.SERIF, text.SANS][int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    sheet = _Sheet(
        np.full((*shape, 3), 255, np.uint8),
        rng,
        _EVALUATION_WRITERS if evaluation else 0,
        str(rng.choice(family)),
        round(long_side * rng.uniform(0.0115, 0.0175)),
    )
    if rng.random() < 0.12:
        sheet.tint()
    _LAYOUTS[kind][0](sheet)
    _distract(sheet)
    image, boxes = _scan(sheet)
    name = f"{'eval' if evaluation else 'train'}-{kind}-{index:06d}"
    encoded, suffix = _encode(image, rng)
    return Page(f"{name}.{suffix}", name, encoded, image.shape[0], image.shape[1], tuple(boxes))


def _scan(sheet: _Sheet) -> tuple[np.ndarray, list[Box]]:
    rng = sheet.rng
    labels = [label for label, _ in sheet.labelled]
    page, points = scan.skew(sheet.paper, [corners for _, corners in sheet.labelled], rng)
    scan.edges(page, rng)
    if rng.random() < 0.6:
        scan.speckle(page, rng)
    if rng.random() < 0.5:
        page = scan.blur(page, rng)
    if rng.random() < 0.65:
        page = scan.bilevel(page, rng, sheet.faintest)
    else:
        page = scan.light(page, rng)
        if rng.random() < 0.5:
            page = np.repeat(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    height, width = page.shape[:2]
    if rng.random() < 0.4:  # many data sets are exported stretched to a square
        page = cv2.resize(page, (max(height, width),) * 2, interpolation=cv2.INTER_AREA)
    boxes = []
    for label, corners in zip(labels, points, strict=True):
        xmin, ymin = np.clip(corners.min(axis=0) / (width, height), 0, 1)
        xmax, ymax = np.clip(corners.max(axis=0) / (width, height), 0, 1)
        if (xmax - xmin) * width >= 4 and (ymax - ymin) * height >= 3:
            boxes.append(Box(float(ymin), float(xmin), float(ymax), float(xmax), label))
    return page, boxes


def _encode(page: np.ndarray, rng: np.random.Generator) -> tuple[bytes, str]:
    grey = bool((page[..., 0] == page[..., 1]).all() and (page[..., 0] == page[..., 2]).all())
    image = page[..., 0] if grey else page[..., ::-1]
    if rng.random() < 0.1:
        return cv2.imencode(".png", image)[1].tobytes(), "png"
    quality = int(rng.integers(45, 95))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), "jpg"


def _margins(sheet: _Sheet) -> tuple[float, int]:
    """Left margin in pixels and characters a line."""
    left = sheet.width * sheet.rng.uniform(0.08, 0.15)
    advance = text.font(sheet.typeface, sheet.size).getlength("the quick brown fox ") / 20
    return left, int((sheet.width - 2 * left) / advance)


def _letterhead(sheet: _Sheet) -> float:
    rng = sheet.rng
    y = sheet.height * rng.uniform(0.02, 0.06)
    if rng.random() < 0.75:
        company = str(rng.choice(text.COMPANIES))
        company = company.upper() if rng.random() < 0.5 else company
        face, size = str(rng.choice(text.BOLD + text.ITALIC)), round(sheet.size * rng.uniform(1.3, 2.6))
        length = text.font(face, size).getlength(company)
        x = {0: 0.06 * sheet.width, 1: (sheet.width - length) / 2}[int(rng.integers(2))]
        if rng.random() < 0.5:
            _logo(sheet, x - 2.2 * size if x > 3 * size else 0.8 * sheet.width, y, 1.8 * size)
        sheet.print(x, y, company, face, size)
        y += 1.3 * size
        if rng.random() < 0.6:
            address = f"{rng.integers(10, 9999)} {rng.choice(text.LAST_NAMES)} Avenue"
            small = max(9, round(0.75 * sheet.size))
            sheet.print(x, y, address, str(rng.choice(text.SANS)), small)
            y += 1.5 * small
        if rng.random() < 0.4:
            sheet.rule(0.06 * sheet.width, y, 0.88 * sheet.width, int(rng.integers(1, 4)))
    return y + sheet.line * rng.uniform(0.8, 3)


def _paragraphs(
    sheet: _Sheet, left: float, y: float, characters: int, bottom: float, justify: float = 0.0
) -> float:
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


def _signature_block(sheet: _Sheet, x: float, y: float, width: float) -> float:
    """Closing or caption, room to sign, a rule or not, the typed name; returns the y below."""
    rng = sheet.rng
    style = rng.choice(["letter", "by", "rule", "caption"], p=[0.45, 0.2, 0.2, 0.15])
    if style == "letter":
        sheet.print(x, y, str(rng.choice(text.CLOSINGS)))
        y += sheet.line
    baseline = y + sheet.line * rng.uniform(1.2, 2.8)
    start = x
    if style == "by":
        start += (
            sheet.print(x, baseline - sheet.size, str(rng.choice(["By:", "Name:", "Signed", "BY", "X"]))) + 4
        )
    if style != "letter":
        sheet.rule(start, baseline + 2, width, int(rng.integers(1, 3)))
    if rng.random() < 0.93:
        sheet.sign(start + rng.uniform(-0.1, 0.2) * width, baseline, width * rng.uniform(0.5, 1.1))
        if style == "letter" and rng.random() < 0.12 and start + 2 * width < sheet.width:
            # Two people sign one letter, hand beside hand.
            second = start + width * rng.uniform(1.0, 1.25)
            sheet.sign(second, baseline, min(width, 0.98 * sheet.width - second))
    below = baseline + sheet.size * rng.uniform(0.25, 0.9)
    if style == "caption":
        sheet.print(
            x,
            below,
            str(rng.choice(["Signature", "(Signature)", "SIGNATURE OF LESSOR", "Authorized Signature"])),
            size=max(9, round(0.75 * sheet.size)),
        )
    elif rng.random() < 0.9:
        sheet.print(x, below, text.person(rng))
        if rng.random() < 0.7:
            below += sheet.line
            sheet.print(x, below, str(rng.choice(text.TITLES)))
    below += 1.2 * sheet.line
    if style != "letter" and rng.random() < 0.6:
        label = sheet.print(x, below, str(rng.choice(["Date:", "Dated", "DATE"])))
        sheet.rule(x + label + 4, below + sheet.size + 2, 0.5 * width)
        if rng.random() < 0.75:
            sheet.handwrite_date(
                x + label + 4 + 0.25 * width, below + 0.4 * sheet.size, sheet.size * rng.uniform(1.0, 1.7)
            )
        below += 1.4 * sheet.line
    return below


def _letter(sheet: _Sheet) -> None:
    rng = sheet.rng
    left, characters = _margins(sheet)
    y = _letterhead(sheet)
    sheet.print(left if rng.random() < 0.5 else 0.55 * sheet.width, y, text.date(rng))
    y += sheet.line * rng.uniform(1.5, 3)
    address = [text.person(rng), str(rng.choice(text.COMPANIES)), f"{rng.integers(10, 999)} Main Street"]
    y = sheet.print_lines(left, y, address[: int(rng.integers(1, 4))]) + sheet.line
    sheet.print(left, y, f"Dear {text.person(rng)}:")
    y = _paragraphs(sheet, left, y + 1.6 * sheet.line, characters, sheet.height * rng.uniform(0.4, 0.72), 0.4)
    x = left if rng.random() < 0.45 else sheet.width * rng.uniform(0.45, 0.58)
    y = _signature_block(sheet, x, y + 0.3 * sheet.line, sheet.width * rng.uniform(0.18, 0.36))
    if rng.random() < 0.5:
        copies = ["cc:  " + text.person(rng)] + [
            "     " + text.person(rng) for _ in range(int(rng.integers(0, 5)))
        ]
        sheet.print_lines(left, y + sheet.line, copies)


def _memo(sheet: _Sheet) -> None:
    rng = sheet.rng
    left, characters = _margins(sheet)
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
            sheet.initial(
                x + length + 2 * sheet.size, y + 0.4 * sheet.size, sheet.size * rng.uniform(1.6, 2.6)
            )
        y += 1.5 * sheet.line
    sheet.rule(left, y, sheet.width - 2 * left)
    y = _paragraphs(sheet, left, y + sheet.line, characters, sheet.height * rng.uniform(0.5, 0.85))
    if rng.random() < 0.4 and y < 0.85 * sheet.height:
        _signature_block(sheet, 0.5 * sheet.width, y, sheet.width * rng.uniform(0.18, 0.3))


def _contract(sheet: _Sheet) -> None:
    rng = sheet.rng
    left, characters = _margins(sheet)
    y = sheet.height * 0.05
    sheet.print(
        0.3 * sheet.width,
        y,
        str(rng.choice(["AGREEMENT", "LEASE AMENDMENT", "TERMS AND CONDITIONS"])),
        str(rng.choice(text.BOLD)),
    )
    y = _paragraphs(sheet, left, y + 2 * sheet.line, characters, sheet.height * rng.uniform(0.3, 0.62))
    _redact_lines(sheet, left, 0.1 * sheet.height, y)
    sheet.print(left, y, "IN WITNESS WHEREOF the parties have subscribed their names below.")
    y += 1.5 * sheet.line
    columns = int(rng.integers(1, 3))
    width = (sheet.width - 2 * left) / columns - 2 * sheet.size
    lowest = y
    for _ in range(int(rng.integers(1, 3))):
        for column in range(columns):
            x = left + column * (width + 2 * sheet.size)
            lowest = max(lowest, _signature_block(sheet, x, y, min(width * 0.75, 0.36 * sheet.width)))
        y = lowest + sheet.line
        if y > 0.85 * sheet.height:
            break
    if rng.random() < 0.5:
        _footer_initials(sheet)


def _lease_page(sheet: _Sheet) -> None:
    rng = sheet.rng
    left, characters = _margins(sheet)
    sheet.size = max(9, round(0.85 * sheet.size))
    characters = int(characters / 0.85)
    if rng.random() < 0.5:
        _table(sheet, left, sheet.height * rng.uniform(0.3, 0.6))
    y = _paragraphs(sheet, left, sheet.height * 0.05, characters, 0.86 * sheet.height)
    _redact_lines(sheet, left, 0.06 * sheet.height, y - 2 * sheet.line)
    _footer_initials(sheet)


def _footer_initials(sheet: _Sheet) -> None:
    rng = sheet.rng
    y = sheet.height * rng.uniform(0.92, 0.96)
    x = sheet.width * rng.uniform(0.3, 0.5)
    captions = (("LESSOR:", "GOVERNMENT:"), ("Initials:", "Initials:"), ("Tenant", "Landlord"))[
        int(rng.integers(3))
    ]
    for caption in captions:
        x += sheet.print(x, y, caption, size=max(9, round(0.8 * sheet.size))) + 4
        sheet.rule(x, y + sheet.size, 4.5 * sheet.size)
        if rng.random() < 0.88:
            sheet.initial(
                x + 2.2 * sheet.size,
                y + rng.normal(0.2, 0.3) * sheet.size,
                sheet.size * rng.uniform(1.5, 2.8),
            )
        x += 6.5 * sheet.size


def _redact_lines(sheet: _Sheet, left: float, top: float, bottom: float) -> None:
    rng = sheet.rng
    if rng.random() < 0.5 or bottom - top < 3 * sheet.line:
        return
    for _ in range(int(rng.integers(1, 7))):
        width = sheet.size * float(np.exp(rng.uniform(0.7, 3.0)))
        height = sheet.line * (0.95 if rng.random() < 0.85 else rng.uniform(1.5, 4))
        y = top + sheet.line * int(rng.integers(0, max(1, int((bottom - top - height) / sheet.line))))
        sheet.redact(
            min(left + rng.uniform(0, 0.7) * sheet.width, 0.97 * sheet.width - width), y, width, height
        )


def _form(sheet: _Sheet) -> None:
    rng = sheet.rng
    left, _ = _margins(sheet)
    y = _letterhead(sheet)
    right = sheet.width - left
    while y < 0.75 * sheet.height:
        if rng.random() < 0.15:
            y = _table(sheet, left, y)
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
                _note(sheet, x + 6 * sheet.size, y + 1.4 * sheet.line, 8 * sheet.size, 1.1 * sheet.size)
            elif draw < 0.58:
                sheet.handwrite_date(x + 5 * sheet.size, y + 1.4 * sheet.line, 1.2 * sheet.size)
            elif draw < 0.68:
                sheet.sign(x + sheet.size, y + 1.7 * sheet.line, min(12 * sheet.size, 0.8 * (split - left)))
        y += 2.2 * sheet.line
    if rng.random() < 0.6:
        _signature_block(sheet, left, y + sheet.line, 0.3 * sheet.width)


def _cheque(sheet: _Sheet) -> None:
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
    sheet.print(0.04 * width, 0.33 * height, "PAY TO THE ORDER OF", size=max(9, round(0.7 * sheet.size)))
    sheet.rule(0.2 * width, 0.38 * height, 0.5 * width)
    _note(sheet, 0.42 * width, 0.33 * height, 0.35 * width, 0.07 * height)
    _note(sheet, 0.83 * width, 0.34 * height, 0.12 * width, 0.06 * height)
    _note(sheet, 0.35 * width, 0.5 * height, 0.5 * width, 0.07 * height)
    sheet.rule(0.04 * width, 0.55 * height, 0.8 * width)
    sheet.rule(0.58 * width, 0.84 * height, 0.36 * width)
    sheet.sign(0.6 * width, 0.83 * height, width * rng.uniform(0.2, 0.36))
    sheet.print(
        0.05 * width, 0.92 * height, " ".join(str(n) for n in rng.integers(0, 999999, 3)), "cmtt10.ttf"
    )


def _handwritten_letter(sheet: _Sheet) -> None:
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
        drawn = writer.write(" ".join(words), rng)
        slope = rng.normal(0, 0.1) * line
        sheet.write(drawn, writer.hand, (left + length / 2, y + slope, length, 2 * tall), None, pen)
        y += line
        if y > 0.85 * height:
            break
    if rng.random() < 0.85:
        extent = width * rng.uniform(0.15, 0.35)
        box = (width * rng.uniform(0.3, 0.75), y + 0.6 * line, extent, rng.uniform(1.1, 2.2) * tall)
        sheet.write(writer.signature(rng), writer.hand, box, SIGNATURE, pen)


def _certificate(sheet: _Sheet) -> None:
    """A framed deed or certificate on safety paper: large type, a seal, several who sign."""
    rng = sheet.rng
    width, height = sheet.width, sheet.height
    if rng.random() < 0.8:
        sheet.tint()
    _frame(sheet)
    y = height * rng.uniform(0.1, 0.16)
    for size in (2.6, 1.3, 1.9):
        words = str(rng.choice(["CERTIFICATE", *text.COMPANIES])).upper() if size > 1.5 else text.person(rng)
        face, points = str(rng.choice(text.BOLD + text.ITALIC)), round(size * sheet.size)
        sheet.print((width - text.font(face, points).getlength(words)) / 2, y, words, face, points)
        y += 1.6 * points
    left, characters = _margins(sheet)
    y = _paragraphs(sheet, left, y + sheet.line, characters, height * rng.uniform(0.4, 0.68))
    if rng.random() < 0.6:
        _seal(sheet, width * rng.uniform(0.15, 0.7), height * rng.uniform(0.66, 0.8))
    columns = int(rng.integers(1, 4))
    room = (width - 2 * left) / columns
    for column in range(columns):
        x = left + column * room
        baseline = min(y + sheet.line * rng.uniform(2.5, 4), 0.9 * height)
        sheet.rule(x, baseline, 0.85 * room)
        if rng.random() < 0.9:
            sheet.sign(x + rng.uniform(0, 0.15) * room, baseline, room * rng.uniform(0.55, 0.9))
        caption = str(rng.choice([*text.TITLES, text.person(rng)]))
        sheet.print(x + 0.1 * room, baseline + 4, caption, size=max(9, round(0.8 * sheet.size)))


def _frame(sheet: _Sheet) -> None:
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


def _seal(sheet: _Sheet, x: float, y: float) -> None:
    """A notary's or company's round seal: rings, teeth and a name."""
    rng = sheet.rng
    radius = round(sheet.width * rng.uniform(0.05, 0.09))
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


def _plain(sheet: _Sheet) -> None:
    """A page that nobody signed."""
    left, characters = _margins(sheet)
    y = _letterhead(sheet) if sheet.rng.random() < 0.5 else 0.05 * sheet.height
    y = _paragraphs(sheet, left, y, characters, sheet.height * sheet.rng.uniform(0.3, 0.9))
    if y < 0.7 * sheet.height and sheet.rng.random() < 0.5:
        _table(sheet, left, y)


def _table(sheet: _Sheet, left: float, y: float) -> float:
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
                size=max(9, round(0.85 * sheet.size)),
            )
    if lined:
        for column in range(columns + 1):
            x = round(left + column * width / columns)
            sheet.paper[round(y) : round(y + rows * height), x : x + 1] = 30
    return y + (rows + 1) * height


def _logo(sheet: _Sheet, x: float, y: float, size: float) -> None:
    rng = sheet.rng
    centre, radius = (round(x + size / 2), round(y + size / 2)), max(4, round(size / 2))
    grey = (int(rng.integers(0, 120)),) * 3
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.circle(sheet.paper, centre, radius, grey, int(rng.choice([-1, 1, 2])), cv2.LINE_AA)
        elif kind == 1:
            points = np.array(centre) + rng.integers(-radius, radius + 1, (int(rng.integers(3, 8)), 2))
            cv2.polylines(
                sheet.paper, [points.astype(np.int32)], True, grey, int(rng.integers(1, 3)), cv2.LINE_AA
            )
        else:
            cv2.ellipse(sheet.paper, centre, (radius, max(2, radius // 2)), 0, 0, 360, grey, 2, cv2.LINE_AA)
        radius = max(3, int(radius * 0.6))


def _note(sheet: _Sheet, x: float, y: float, width: float, height: float) -> None:
    """Handwriting that is no signature: words without capitals or flourish, or figures."""
    rng, writer = sheet.rng, sheet.writer()
    if rng.random() < 0.4:
        words = (
            str(rng.integers(10, 10**6))
            if rng.random() < 0.7
            else f"{rng.integers(1, 99)}.{rng.integers(10, 99)}"
        )
    else:
        letters = [
            "".join("a" for _ in range(int(rng.integers(2, 8)))) for _ in range(int(rng.integers(2, 7)))
        ]
        words = " ".join(letters)
    sheet.write(writer.write(words, rng), writer.hand, (x, y, width, height), None)


def _distract(sheet: _Sheet) -> None:
    """Marks that are not signatures, most of them near where nothing else stands."""
    rng, width, height = sheet.rng, sheet.width, sheet.height
    if rng.random() < 0.25:
        top = height * rng.uniform(0.02, 0.95)
        for line in range(int(rng.integers(1, 5))):
            x, length = width * rng.uniform(0.15, 0.85), width * rng.uniform(0.1, 0.4)
            _note(sheet, x, top + 1.6 * line * sheet.size, length, sheet.size * rng.uniform(1.2, 2.2))
    if rng.random() < 0.2:
        _stamp(sheet)
    if rng.random() < 0.15:  # a circled number, a tick, a long crossing line
        centre = (round(width * rng.uniform(0.1, 0.9)), round(height * rng.uniform(0.05, 0.95)))
        axes = (round(sheet.size * rng.uniform(1, 2)), round(sheet.size * rng.uniform(0.8, 1.8)))
        cv2.ellipse(
            sheet.paper, centre, axes, float(rng.uniform(0, 90)), 15, 370, (30, 30, 30), 2, cv2.LINE_AA
        )
        sheet.write(
            sheet.writer().write(str(rng.integers(1, 99)), rng),
            sheet.writer().hand,
            (*centre, 1.4 * sheet.size, sheet.size),
            None,
        )
    if rng.random() < 0.12:
        ends = [(round(width * rng.uniform(0, 1)), round(height * rng.uniform(0, 1))) for _ in range(2)]
        cv2.line(sheet.paper, ends[0], ends[1], (40, 40, 40), int(rng.integers(1, 3)), cv2.LINE_AA)
    if rng.random() < 0.45:
        _bates_number(sheet)
    if rng.random() < 0.1:
        time = f"{rng.integers(10, 24)}:{rng.integers(10, 59)} P.{rng.integers(1, 9)}"
        words = f"FROM {rng.choice(text.COMPANIES)} {text.date(rng)} {time}"
        sheet.print(0.05 * width, 2, words, "DejaVuSansMono.ttf", max(9, round(0.8 * sheet.size)))


def _bates_number(sheet: _Sheet) -> None:
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


def _stamp(sheet: _Sheet) -> None:
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
    if rng.random() < 0.7:
        draw.rectangle([1, 1, length - 2, stamp.height - 2], outline=255, width=2)
    for number, line in enumerate(words[: int(rng.integers(1, 3))]):
        draw.text((size, size * (0.4 + 1.4 * number)), line, font=face, fill=255)
    turned = stamp.rotate(float(rng.normal(0, 12)), expand=True, resample=Image.Resampling.BILINEAR)
    coverage = np.asarray(turned, np.float32) / 255
    patches = cv2.resize(rng.uniform(0.3, 1.3, (6, 10)).astype(np.float32), coverage.shape[::-1])
    x, y = rng.uniform(0.02, 0.7) * sheet.width, rng.uniform(0.02, 0.9) * sheet.height
    sheet.ink(coverage * np.clip(patches, 0, 1), x, y, None)


# What pages there are: layout -> (composer, share).
_LAYOUTS = {
    "letter": (_letter, 0.33),
    "memo": (_memo, 0.09),
    "contract": (_contract, 0.17),
    "lease": (_lease_page, 0.1),
    "form": (_form, 0.11),
    "cheque": (_cheque, 0.05),
    "certificate": (_certificate, 0.05),
    "handwritten": (_handwritten_letter, 0.05),
    "plain": (_plain, 0.05),
}
