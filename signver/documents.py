"""The pages of whatever a document is: a picture, a TIFF of several pages, a PDF."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
        yield from _tiff_pages(image, name, max_pages)
    else:
        yield decode(image, name)


def _tiff_pages(image: Image.Image, name: str, max_pages: int) -> Iterator[Image.Image]:
    if _seek(image, max_pages, name):
        raise SignVerError(f"{name}: more than {max_pages} pages.")
    number = 0
    while _seek(image, number, name):
        number += 1
        yield decode(image, f"{name}, page {number}")


def _seek(image: Image.Image, frame: int, name: str) -> bool:
    """Goes to a page, counted from 0; False where there is none."""
    try:
        image.seek(frame)
    except EOFError:
        return False
    except Exception as error:  # a damaged directory makes Pillow raise anything
        raise SignVerError(f"{name}: page {frame + 1} is damaged ({type(error).__name__}).") from error
    return True
