"""Synthetic pages, crops and signatures to prove, measure and calibrate on; no TensorFlow.

All come from writers that training never draws from, so they are strangers to a model of synthetic data.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from training.cleaner.input import shrink
from training.cleaner.noise import SIDE, Draws, NoiseLevels, make_pair
from training.data import signatures
from training.data.page import Page
from training.data.synthetic.page import synthesize_page

# Numbers of writers from here on are in no set of `synthesize signatures`.
FIRST_WRITER = signatures.MOST_WRITERS


def pages(count: int, seed: int) -> Iterator[Page]:
    """Pages with their true boxes."""
    yield from (synthesize_page(seed, index, evaluation=True) for index in range(count))


def crop_pairs(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Noisy crops and their ink alone, uint8 [224, 224] each, one writer each."""
    drawn = (
        signatures.synthesize(seed, FIRST_WRITER + number, 0, signatures.GENUINE) for number in range(count)
    )
    return pairs_of(drawn, seed)


def pairs_of(pages: Iterable[Page], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `crop_pairs`, of pages of a signature set."""
    for number, ink in enumerate(signatures.inked(pages)):
        noisy, clean = np.empty((2, SIDE, SIDE), np.uint8)
        make_pair(shrink(ink), NoiseLevels(), Draws(seed, number), noisy, clean)
        yield noisy, clean


def drawn_of(pages: Iterable[Page]) -> list[tuple[np.ndarray, int, bool]]:
    """Pages of a signature set as (picture, writer, forged); writers are numbered as they come."""
    writers: dict[str, int] = {}
    return [
        (
            np.asarray(Image.open(io.BytesIO(page.image)).convert("L")),
            writers.setdefault(page.document, len(writers)),
            any(box.label == signatures.FORGED for box in page.boxes),
        )
        for page in pages
    ]


def signature(seed: int, writer: int, number: int, label: int = signatures.GENUINE) -> np.ndarray:
    """One signature, uint8 [h, w], dark ink on white; forgeries have numbers of their own."""
    page = signatures.synthesize(seed, FIRST_WRITER + writer, number, label)
    return np.asarray(Image.open(io.BytesIO(page.image)).convert("L"))
