"""The pages of whatever a document is: a picture, a TIFF of several pages, a PDF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from PIL import Image

from signver.errors import SignVerError
from signver.images import Picture, as_rgb, decode, open_image, read_file
from signver.pdf import is_pdf, pdf_pages

MAX_PAGES = 1000


def document_name(document: Picture) -> str:
    """The path, or "document" for what came without one."""
    return os.fspath(document) if isinstance(document, str | os.PathLike) else "document"


def document_pages(document: Picture, max_pages: int = MAX_PAGES) -> Iterator[Image.Image]:
    """The pages in turn, upright, RGB; one at a time in memory.

    Of an animation (GIF, WebP) the first picture. Arrays and Pillow images are one page.

    Args:
      document: a path or the bytes of a picture, a TIFF or a PDF; a Pillow image; uint8 pixels.
      max_pages: a document of more is refused.

    Raises:
      SignVerError: what `as_rgb` and `pdf_pages` refuse, on any page, or too many pages.
    """
    name = document_name(document)
    if isinstance(document, str | os.PathLike):
        data = read_file(document)
    elif isinstance(document, bytes | bytearray):
        data = bytes(document)
    else:
        yield as_rgb(document)
        return
    if is_pdf(data):
        yield from pdf_pages(data, name, max_pages)
        return
    image = open_image(data, name)
    if image.format == "TIFF":
        yield from _tiff_pages(image, data, name, max_pages)
    else:
        yield decode(image, name, data)


def _tiff_pages(image: Image.Image, data: bytes, name: str, max_pages: int) -> Iterator[Image.Image]:
    count = _count_directories(data, name, max_pages)
    for number in range(count):
        _seek(image, number, name)
        page = decode(image, f"{name}, page {number + 1}" if count > 1 else name, data)
        # The next page is read into the same object.
        yield page.copy() if page is image and count > 1 else page


def _count_directories(data: bytes, name: str, max_pages: int) -> int:
    """How many pages the directories of a TIFF announce.

    Pillow takes the end of a file for the end of the list, so that a file cut short would lose pages unseen.

    Source: TIFF 6.0, section 2; BigTIFF.
    """
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    entry, number, pointer = (20, 8, 8) if big else (12, 2, 4)
    at, seen = 8 if big else 4, set[int]()
    while len(seen) <= max_pages:
        place = int.from_bytes(data[at : at + pointer], order)
        if len(data) < at + pointer or (place and place in seen):
            raise SignVerError(f"{name}: the list of its pages is cut short or damaged after {len(seen)}.")
        if not place:
            return len(seen)
        seen.add(place)
        at = place + number + entry * int.from_bytes(data[place : place + number], order)
    raise SignVerError(f"{name}: more than {max_pages} pages.")


def _seek(image: Image.Image, frame: int, name: str) -> None:
    """Goes to a page, counted from 0."""
    try:
        image.seek(frame)
    except Exception as error:  # a damaged directory makes Pillow raise anything
        raise SignVerError(f"{name}: page {frame + 1} is damaged ({type(error).__name__}).") from error
