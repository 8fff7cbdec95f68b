"""Pictures of answers, written to a folder."""

from __future__ import annotations

import io
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from signver.documents import document_pages
from signver.errors import SignVerError
from signver.files import write_whole
from signver.images import as_rgb
from signver.results import Document, Hit, Mark
from signver.visualization import draw_marks, fitting_font

if TYPE_CHECKING:
    from signver.pipeline import Pipeline

# By class of mark; others are drawn in the last.
COLORS = {"signature": "#c62828", "initials": "#6a1b9a", "date": "#1565c0", "redaction": "#2e7d32"}
_OTHER = "#ef6c00"
_CAPTION = 28
_OF_PAGES = (".pdf", ".tif", ".tiff")


class Pictures:
    """Writes pictures under names that no other has; does nothing without a folder.

    Pictures of an earlier run are replaced, files that are read never. May be used from several threads: two
    files of one name in different folders are told apart here, in their order, and not by who comes first.

    Args:
      folder: made where need be; None for no pictures.
      files: all that pictures will be made of.
      also_read: other files that must stay as they are.
      numbered: names end in a number, or there may be no picture: nothing can be said in advance.

    Raises:
      SignVerError: a picture would replace one of these files.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        files: Sequence[str] = (),
        also_read: Sequence[str] = (),
        numbered: bool = False,
    ):
        self._folder = folder
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._stems: dict[str, str] = {}
        self._read = {_place(file) for file in (*files, *also_read)}
        taken: set[str] = set()
        for file in files:
            self._stems[file] = _free(pathlib.Path(file).stem, taken)
            # Of several pages the names are numbered too; `save` looks at each.
            if folder is not None and not numbered and pathlib.Path(file).suffix.lower() not in _OF_PAGES:
                self._target(folder, self._stems[file])

    def stem(self, file: str) -> str:
        """What a file's pictures are called."""
        return self._stems.get(file, pathlib.Path(file).stem)

    def save(self, pixels: np.ndarray | Image.Image, name: str) -> str:
        """Writes a PNG whole or not at all; returns its path.

        Raises:
          SignVerError: the folder cannot be written, or holds a file of this name that is read.
        """
        assert self._folder is not None
        with self._lock:
            free = _free(pathlib.Path(name).stem, self._taken)
        target = self._target(self._folder, free)
        stream = io.BytesIO()
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, "PNG")
        write_whole(target, stream.getvalue())
        return str(target)

    def _target(self, folder: pathlib.Path, stem: str) -> pathlib.Path:
        target = folder / f"{stem}.png"
        if _place(target) in self._read:
            raise SignVerError(
                f"{target}: a picture of the answer would replace this file; name another --output folder."
            )
        return target

    def of_document(self, document: Document) -> dict[str, Any]:
        """Each page with its marks: `picture`, or `pictures` for several pages; empty without a folder."""
        if self._folder is None:
            return {}
        return self._of_pages(document.file, [list(page.marks) for page in document.pages])

    def of_hits(self, file: str, hits: Sequence[Hit]) -> dict[str, Any]:
        """The pages with hits, as `of_document`."""
        if self._folder is None or not hits:
            return {}
        last = max(hit.page for hit in hits)
        marks = [[hit.mark for hit in hits if hit.page == page] for page in range(1, last + 1)]
        return self._of_pages(file, marks)

    def of_ink(
        self, pipeline: Pipeline, signature: Any, file: str, clean: bool, caption: str
    ) -> dict[str, Any]:
        """A signature as it was compared, with words below: `picture`; empty without a folder."""
        if self._folder is None:
            return {}
        ink = pipeline.ink(signature, clean=clean)
        return {"picture": self.save(with_caption(ink, caption), f"{self.stem(file)}.png")}

    def _of_pages(self, file: str, marks: Sequence[Sequence[Mark]]) -> dict[str, Any]:
        stem, saved = self.stem(file), []
        pages = zip(document_pages(file), marks, strict=False)
        for number, (page, found) in enumerate(pages, start=1):
            if found or len(marks) == 1:
                name = f"{stem}.png" if len(marks) == 1 else f"{stem}-{number}.png"
                saved.append(self.save(draw_marks(page, found, COLORS, _OTHER), name))
        return {"picture": saved[0]} if len(marks) == 1 else {"pictures": saved}


def _place(file: str | pathlib.Path) -> str:
    return os.path.normcase(os.path.realpath(file))


def _free(stem: str, taken: set[str]) -> str:
    """The first of stem, stem_2, stem_3 that is not taken; now it is.

    Case makes no difference, as it makes none in the folders of Windows and macOS.
    """
    free, number = stem, 1
    while free.casefold() in taken:
        number += 1
        free = f"{stem}_{number}"
    taken.add(free.casefold())
    return free


def with_caption(picture: Any, words: str) -> Image.Image:
    """A small picture of a signature, with a line of text below."""
    ink = as_rgb(picture).copy()
    ink.thumbnail((448, 448))
    sheet = Image.new("RGB", (max(ink.width, 224), ink.height + _CAPTION), "white")
    sheet.paste(ink, ((sheet.width - ink.width) // 2, 0))
    ImageDraw.Draw(sheet).text((4, ink.height + 6), words, fill="#424242", font=fitting_font(16))
    return sheet
