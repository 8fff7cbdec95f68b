"""Printed text for synthetic pages: fonts that come with matplotlib, words and names of our own list."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
from PIL import ImageFont

# Free fonts inside the matplotlib package (DejaVu, STIX, Computer Modern); nothing is fetched.
TYPEWRITER = ("DejaVuSansMono.ttf", "cmtt10.ttf", "DejaVuSansMono-Bold.ttf")
SERIF = ("STIXGeneral.ttf", "DejaVuSerif.ttf", "STIXGeneralBol.ttf", "cmr10.ttf")
SANS = ("DejaVuSans.ttf", "cmss10.ttf", "DejaVuSans-Bold.ttf")
BOLD = ("STIXGeneralBol.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSans-Bold.ttf", "cmb10.ttf")
ITALIC = ("STIXGeneralItalic.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSans-Oblique.ttf", "cmmi10.ttf")

WORDS = tuple(
    """the of to and a in that for is with as on by this be are or not at from shall your our we any which
    it has have been will you all under such other may if no its was their these upon each please date
    company agreement letter matter program report market research project account office payment lease
    building property tenant owner party parties notice section terms service services delivery price order
    amount total balance department manager director president committee meeting review request information
    copy attached enclosed following further regarding period month quarter annual budget plan proposal
    product sales customer quality sample test results study data analysis design schedule contract approval
    authority signature witness accepted agreed hereby therefore provided including without limitation
    forward discuss telephone conversation opportunity appreciate assistance questions contact confirm
    receive received return complete continue support develop public national state county city street
    avenue suite floor north south east west general special standard additional current previous several
    number material laboratory filter paper advertising promotion brand package display retail store
    insurance liability damages repair maintenance utilities parking square feet space rent annum
    monthly commencement termination renewal option option rights interest principal bank deposit""".split()
)
FIRST_NAMES = tuple(
    """Anna Peter Maria John Ruth Carl Helen Frank Alice George Laura Henry Nora Paul Irene Walter Clara Hugo
    Martha Louis Edith Oscar Judith Ralph Vera Simon Paula Victor Ellen Arthur""".split()
)
LAST_NAMES = tuple(
    """Adler Brandt Carver Dawson Ellery Fenwick Garrow Holden Iverson Jarvis Keller Larkin Merrow Norwood
    Osgood Parrish Quincy Radley Selwyn Thorne Upton Vance Weller Yardley Zeller Ashby Bolton Crewe""".split()
)
COMPANIES = tuple(
    """Northfield Paper|Harbor & Lane|Meridian Trading|Castle Brothers|Union Freight|Grand Lake Milling
    |Pinewood Estates|Atlas Instruments|Summit Leasing|Orchard Products|Valley Gas|Keystone Supply""".replace(
        "\n", ""
    ).split("|")
)
TITLES = (
    "Manager",
    "Vice President",
    "Director of Sales",
    "Secretary",
    "Contracting Officer",
    "Treasurer",
    "Owner",
)
CLOSINGS = (
    "Sincerely,",
    "Very truly yours,",
    "Yours truly,",
    "With kind regards,",
    "Respectfully,",
    "Cordially,",
)
# What people jot on letters that pass their desk; {n} becomes a number, {d} a date, {i} initials.
JOTTINGS = tuple(
    """Thanks|Fax|OK|OK {i}|Copy|Copies to|Mail|Rec'd {d}|Pd {n} {d}|# {n}|# {n} {i}|File|White|Rush|See me
    |Total {n}|Call {i}|Sent {d}|FYI|Attn {i}|Noted|Done {d}|Please file|Budget {n}|Return to {i}|Approved|No
    |Void|{n} copies|Ask {i}|Hold|Original|Draft {n}|Per {i} {d}|Bravo|Urgent|Confidential|Entered {d}|{d}
    |{n}-{n}""".replace("\n    ", "").split("|")
)
MONTHS = "January February March April May June July August September October November December".split()


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A bundled font at a size in pixels."""
    import matplotlib

    return ImageFont.truetype(str(pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def sentence(rng: np.random.Generator, words: int) -> str:
    """Words of business English in random order, capitalised, with a full stop."""
    chosen = [WORDS[i] for i in rng.integers(0, len(WORDS), words)]
    for place in np.nonzero(rng.random(words) < 0.04)[0]:
        chosen[place] = f"{rng.integers(1, 9999):,}"
    return " ".join(chosen).capitalize() + "."


def lines(rng: np.random.Generator, characters: int, count: int) -> list[str]:
    """`count` lines of running text, each at most `characters` wide."""
    found: list[str] = []
    current = ""
    while len(found) < count:
        for word in sentence(rng, int(rng.integers(6, 18))).split():
            if len(current) + len(word) + 1 > characters:
                found.append(current)
                current = word
            else:
                current = f"{current} {word}".strip()
    return found[:count]


def person(rng: np.random.Generator) -> str:
    """A made-up name."""
    middle = f" {chr(65 + int(rng.integers(26)))}." if rng.random() < 0.4 else ""
    return f"{rng.choice(FIRST_NAMES)}{middle} {rng.choice(LAST_NAMES)}"


def signed(rng: np.random.Generator) -> str:
    """A made-up name as people sign it: in full, with initials, or one name alone."""
    first, last = str(rng.choice(FIRST_NAMES)), str(rng.choice(LAST_NAMES))
    middle = chr(65 + int(rng.integers(26)))
    forms = (f"{first} {last}", f"{first} {middle}. {last}", f"{first[0]}. {middle}. {last}", first)
    return forms[int(rng.choice(4, p=[0.4, 0.25, 0.25, 0.1]))]


def date(rng: np.random.Generator) -> str:
    """A printed date."""
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(12)), int(rng.integers(1962, 2022))
    if rng.random() < 0.7:
        return f"{MONTHS[month]} {day}, {year}"
    return f"{month + 1}/{day}/{year % 100:02d}"


def jotting(rng: np.random.Generator) -> str:
    """A word or two that somebody wrote on a page: an instruction, a number, a date."""
    letters = "".join(chr(65 + int(n)) for n in rng.integers(0, 26, 2))
    day = f"{rng.integers(1, 13)}/{rng.integers(1, 29)}/{rng.integers(60, 99)}"
    pattern = str(rng.choice(JOTTINGS))
    return pattern.format(n=rng.integers(1, 10 ** int(rng.integers(2, 6))), d=day, i=letters)
