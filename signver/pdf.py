"""Pages of a PDF as pictures, by PDFium; needs `pip install 'signver-harness[pdf]'`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from PIL import Image

from signver.errors import SignVerError

# What scanners are set to; a larger page is drawn with fewer dots, so that it keeps under the pixels.
DOTS_PER_INCH = 200
_MAX_PIXELS = 25_000_000
# PDFium holds global state: one call at a time in a process.
_LOCK = threading.Lock()


def is_pdf(data: bytes) -> bool:
    """Whether a file's bytes begin as a PDF does; up to a kilobyte may come before."""
    return b"%PDF-" in data[:1024]


def pdf_pages(data: bytes, name: str, max_pages: int) -> Iterator[Image.Image]:
    """The pages in turn, RGB, each drawn when it is asked for.

    Args:
      data: the file's bytes.
      name: for messages.
      max_pages: a document of more is refused.

    Raises:
      SignVerError: pypdfium2 is not installed; the document is encrypted, damaged, empty or too long.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise SignVerError(
            f"{name}: PDF pages need pypdfium2; pip install 'signver-harness[pdf]'."
        ) from error
    with _LOCK:
        document = _opened(pypdfium2, data, name)
    try:
        with _LOCK:
            count = len(document)
        if not 0 < count <= max_pages:
            raise SignVerError(f"{name}: {count} pages; expected 1 to {max_pages}.")
        for number in range(count):
            with _LOCK:
                page = _drawn(pypdfium2, document, number, name)
            yield page
    finally:
        with _LOCK:
            document.close()


def _opened(pdfium: Any, data: bytes, name: str) -> Any:
    try:
        document = pdfium.PdfDocument(data)
        # Without it nothing is drawn of form fields: no signature in a signature field, no date filled in.
        document.init_forms()
        return document
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise SignVerError(f"{name}: this PDF is encrypted; save it without a password.") from error
        raise SignVerError(f"{name}: cannot read this PDF ({error}).") from error


def _drawn(pdfium: Any, document: Any, number: int, name: str) -> Image.Image:
    try:
        page = document[number]
        try:
            width, height = page.get_size()
            if not (width > 0 and height > 0):
                raise SignVerError(f"{name}: page {number + 1} has no size.")
            inches = width * height / 72**2
            scale = min(DOTS_PER_INCH, (_MAX_PIXELS / inches) ** 0.5) / 72
            # A page of a hair's width would be drawn with no pixel at all.
            if min(width, height) * scale < 1:
                raise SignVerError(f"{name}: page {number + 1} measures {width:g} x {height:g} points.")
            return page.render(scale=scale).to_pil().convert("RGB")
        finally:
            page.close()
    except (pdfium.PdfiumError, ValueError, MemoryError, OSError) as error:
        if isinstance(error, SignVerError):
            raise
        raise SignVerError(f"{name}: cannot draw page {number + 1} ({error}).") from error
