"""A page and its boxes: what every reader yields and every writer takes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Box:
    """One labelled rectangle; coordinates are fractions of the page, 0..1, y down.

    `label` is the class id; 0 is background and never stands in a `Box`.
    """

    ymin: float
    xmin: float
    ymax: float
    xmax: float
    label: int


@dataclasses.dataclass(frozen=True)
class Page:
    """One encoded page.

    Attributes:
      name: file name of the image, unique in a data set.
      document: id of the document that the page belongs to; a split never divides a document.
      image: the encoded file's bytes, JPEG or PNG.
      height: pixels.
      width: pixels.
      boxes: in the order of the source.
    """

    name: str
    document: str
    image: bytes
    height: int
    width: int
    boxes: tuple[Box, ...]

    @property
    def format(self) -> str:
        """`jpeg` or `png`, by the file's first bytes."""
        return "png" if self.image.startswith(b"\x89PNG") else "jpeg"
