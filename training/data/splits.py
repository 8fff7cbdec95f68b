"""Splits that keep the pages of one document on one side."""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Iterable

from training.data.page import Page

# Exports of annotation tools append their own hash to a name: `letter_jpg.rf.0123abcd.jpg`.
_EXPORT_SUFFIX = re.compile(r"_(?:jpe?g|png|tiff?)\.rf\.[0-9a-f]+$", re.IGNORECASE)
# `-page02_2`, `_1`, `-Z-03`: what tells the pages of a document apart.
_PAGE_SUFFIX = re.compile(r"(?:[-_ ]?page[-_ ]?\d+(?:_\d+)?|[-_]\d{1,3})+$", re.IGNORECASE)


def document_of(name: str, pattern: str | None = None) -> str:
    """Id of the document that a page's file belongs to.

    Args:
      name: file name of the page.
      pattern: regular expression whose first group is the id; by default the name without the
        suffixes that number pages.
    """
    stem = pathlib.PurePath(name).stem
    if pattern:
        found = re.search(pattern, name)
        return found[1] if found and found.groups() else stem
    stem = _EXPORT_SUFFIX.sub("", stem)
    return _PAGE_SUFFIX.sub("", stem) or stem


def by_document(pages: Iterable[Page], evaluation_share: float, seed: int) -> dict[str, list[Page]]:
    """Divides pages into train and eval; a document goes to one side, decided by (seed, its id) alone.

    Adding documents later moves none of the earlier ones, unless the evaluation side would be empty:
    then the document that comes first in the drawn order goes there.
    """
    splits: dict[str, list[Page]] = {"train": [], "eval": []}
    groups: dict[str, list[Page]] = {}
    for page in pages:
        groups.setdefault(page.document, []).append(page)
    draws = {document: _draw(seed, document) for document in groups}
    held_out = {document for document, draw in draws.items() if draw < evaluation_share}
    if not held_out and len(groups) > 1 and evaluation_share > 0:
        held_out = {min(draws, key=draws.__getitem__)}
    for document, members in groups.items():
        splits["eval" if document in held_out else "train"] += members
    return splits


def _draw(seed: int, document: str) -> float:
    digest = hashlib.sha256(f"{seed}/{document}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
