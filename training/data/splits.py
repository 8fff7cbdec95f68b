"""Splits that keep the pages of one document, and equal images, on one side."""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

# Exports of annotation tools append their own hash to a name: `letter_jpg.rf.0123abcd.jpg`.
_EXPORT_SUFFIX = re.compile(r"_(?:jpe?g|png|tiff?)\.rf\.[0-9a-f]+$", re.IGNORECASE)
# `-page02_2`, `_1`, `-Z-03`: what tells the pages of a document apart.
_PAGE_SUFFIX = re.compile(r"(?:[-_ ]?page[-_ ]?\d+(?:_\d+)?|[-_]\d{1,3})+$", re.IGNORECASE)
# Folders that divide or hold a set, and name neither a document nor a writer.
NEUTRAL_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
    + ("data", "images", "image", "imgs", "pages", "scans", "signatures")
)


class OfDocument(Protocol):
    """Anything that knows its document: a page, or a page that is not read yet."""

    @property
    def document(self) -> str:
        """Id of the document."""


Item = TypeVar("Item", bound=OfDocument)


def document_of(name: str, pattern: str | None = None) -> str:
    """Id of the document that a page's file belongs to.

    Args:
      name: file name of the page, with its folders where they are known.
      pattern: regular expression whose first group is the id; by default the name without the
        suffixes that number pages, in its folder; a name that is nothing but a page's number counts as
        a page of the document that its folder is.
    """
    stem = pathlib.PurePath(name).stem
    if pattern:
        found = re.search(pattern, name)
        return found[1] if found and found.groups() and found[1] else stem
    stem = _EXPORT_SUFFIX.sub("", stem)
    base = _PAGE_SUFFIX.sub("", stem)
    folders = [part for part in pathlib.PurePath(name).parent.parts if part.lower() not in NEUTRAL_FOLDERS]
    if not folders:
        return base or stem
    page_alone = not base or (base.isdecimal() and len(base) <= 3)
    return "/".join(folders if page_alone else [*folders, base])


def join_equal(images: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Documents that hold an equal image, each with the one document that stands for all of them.

    Args:
      images: (document, digest of an image) pairs; documents without an equal image are left out.
    """
    parents: dict[str, str] = {}
    owners: dict[str, str] = {}

    def root(document: str) -> str:
        while parents.get(document, document) != document:
            document = parents[document]
        return document

    for document, digest in images:
        first, second = sorted((root(owners.setdefault(digest, document)), root(document)))
        if first != second:
            parents[second] = parents[first] = first
    return {document: root(document) for document in parents}


def by_document(
    pages: Iterable[Item], evaluation_share: float, seed: int, same: Mapping[str, str] | None = None
) -> dict[str, list[Item]]:
    """Divides pages into train and eval; a document goes to one side, decided by (seed, its id) alone.

    Adding documents later moves none of the earlier ones, unless the evaluation side would be empty:
    then the document that comes first in the drawn order goes there.

    Args:
      pages: pages, or what stands for them until they are read.
      evaluation_share: of the documents, 0..1.
      seed: decides which documents.
      same: documents to keep together, see `join_equal`.
    """
    same = same or {}
    splits: dict[str, list[Item]] = {"train": [], "eval": []}
    groups: dict[str, list[Item]] = {}
    for page in pages:
        groups.setdefault(same.get(page.document, page.document), []).append(page)
    draws = {document: _draw(seed, document) for document in groups}
    held_out = {document for document, draw in draws.items() if draw < evaluation_share}
    if not held_out and len(groups) > 1 and evaluation_share > 0:
        held_out = {min(draws, key=draws.__getitem__)}
    for document, members in groups.items():
        splits["eval" if document in held_out else "train"] += members
    return splits


def separate(
    splits: Mapping[str, Iterable[Item]], same: Mapping[str, str] | None = None
) -> tuple[dict[str, list[Item]], int]:
    """Moves pages of a document that stands in several splits to the first of them.

    Returns:
      The splits, and how many pages were moved.
    """
    same = same or {}
    owners: dict[str, str] = {}
    found: dict[str, list[Item]] = {split: [] for split in splits}
    moved = 0
    for split, pages in splits.items():
        for page in pages:
            owner = owners.setdefault(same.get(page.document, page.document), split)
            found[owner].append(page)
            moved += owner != split
    return found, moved


def _draw(seed: int, document: str) -> float:
    digest = hashlib.sha256(f"{seed}/{document}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
