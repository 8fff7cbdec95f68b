"""What a pipeline answers; `as_dict` of each gives plain values for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

# What a page is asked, and the class of mark that answers it.
QUESTIONS = {
    "signed": "signature",
    "initialled": "initials",
    "dated": "date",
    "redacted": "redaction",
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A writer whom a signature may be of.

    Attributes:
      identity: the enrolled name.
      similarity: to the writer's references together (`signver.index.Template`); with one, its cosine.
      genuine: whether it reaches the threshold.
      probability: of being genuine, 0..1, where forgeries are as frequent as genuine ones; None where the
        extractor has no calibration.
    """

    identity: str
    similarity: float
    genuine: bool
    probability: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Verification(Candidate):
    """Whether a signature is of the writer that it claims to be.

    Attributes:
      threshold: similarity from which on it counts as genuine.
      references: enrolled signatures that it was compared with.
    """

    threshold: float
    references: int


@dataclasses.dataclass(frozen=True)
class Identification:
    """Whose a signature is.

    Attributes:
      identity: the most similar writer, if genuine; None: of nobody enrolled.
      candidates: best first.
    """

    identity: str | None
    candidates: tuple[Candidate, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"identity": self.identity, "candidates": [each.as_dict() for each in self.candidates]}


@dataclasses.dataclass(frozen=True)
class Mark:
    """Something found on a page.

    Attributes:
      kind: class name: signature, initials, redaction, date.
      score: 0..1.
      box: fractions of the page, (ymin, xmin, ymax, xmax), y down.
      writer: whose the signature is, where that was asked; None too where its ink was too little to say.
    """

    kind: str
    score: float
    box: tuple[float, float, float, float]
    writer: Identification | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `writer` only where it is known."""
        values: dict[str, Any] = {
            "class": self.kind,
            "score": round(self.score, 4),
            "box": [round(side, 5) for side in self.box],
        }
        return values | ({"writer": self.writer.as_dict()} if self.writer else {})


@dataclasses.dataclass(frozen=True)
class Page:
    """One page of a document.

    Attributes:
      number: from 1 on.
      width, height: in pixels, as it was read or drawn.
      marks: best first.
      signed, initialled, dated, redacted: whether such a mark was found; None where the detector does not
        know that class, which is no "no".
    """

    number: int
    width: int
    height: int
    marks: tuple[Mark, ...]
    signed: bool | None
    initialled: bool | None
    dated: bool | None
    redacted: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {"page": self.number, "width": self.width, "height": self.height}
        return values | _answers(self) | {"marks": [mark.as_dict() for mark in self.marks]}


@dataclasses.dataclass(frozen=True)
class Document:
    """All pages of a document.

    Attributes:
      file: its path, or "document".
      pages: in their order.
    """

    file: str
    pages: tuple[Page, ...]

    @property
    def signed(self) -> bool | None:
        """Whether a page is signed; None where the detector does not know signatures."""
        return self._any("signed")

    @property
    def initialled(self) -> bool | None:
        """Whether a page is initialled; None as for `signed`."""
        return self._any("initialled")

    @property
    def dated(self) -> bool | None:
        """Whether a page is dated; None as for `signed`."""
        return self._any("dated")

    @property
    def redacted(self) -> bool | None:
        """Whether a page is redacted; None as for `signed`."""
        return self._any("redacted")

    def _any(self, question: str) -> bool | None:
        answers = [getattr(page, question) for page in self.pages]
        return None if None in answers else any(answers)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"file": self.file} | _answers(self) | {"pages": [page.as_dict() for page in self.pages]}


@dataclasses.dataclass(frozen=True)
class Hit:
    """A signature in a document that is like the one searched for.

    Attributes:
      file: the document's path, or "document".
      page: from 1 on.
      mark: where.
      similarity, genuine, probability: as in `Candidate`.
    """

    file: str
    page: int
    mark: Mark
    similarity: float
    genuine: bool
    probability: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {"file": self.file, "page": self.page} | self.mark.as_dict()
        return values | {
            "similarity": self.similarity,
            "genuine": self.genuine,
            "probability": self.probability,
        }


def _answers(of: Page | Document) -> dict[str, bool | None]:
    return {question: getattr(of, question) for question in QUESTIONS}
