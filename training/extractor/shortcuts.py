"""Trivial cues that may tell genuine from forged without any look at the hand: a warning, not a method.

Where one of them does well, the set leaks: the two kinds came from different pens, papers or scanners.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from training.data import leaks
from training.extractor.input import SignatureSet
from training.extractor.metrics import Scores


def raw_cues(input_path: str) -> dict[str, np.ndarray]:
    """`leaks.PICTURE` cues of each record, float64 [n], in file order."""
    rows = [list(leaks.picture_cues(image)) for image in _images(input_path)]
    return {name: np.array([row[number] for row in rows]) for number, name in enumerate(leaks.PICTURE)}


def normalised_cues(signatures: SignatureSet) -> dict[str, np.ndarray]:
    """Ink share and stroke width of each signature as the network sees it, float64 [n] each."""
    shares, widths = [], []
    for image in signatures.images:
        ink = (image > 127).astype(np.uint8)
        edge = cv2.morphologyEx(ink, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8), borderValue=0)
        shares.append(image.mean() / 255)
        # A stroke of width w and length l has area w·l and, for the 3×3 gradient, about 4·l edge pixels.
        widths.append(4 * ink.sum() / max(1, int(edge.sum())))
    return {"ink share": np.array(shares), "stroke width": np.array(widths)}


def cue_scores(cue: np.ndarray, writers: np.ndarray, forged: np.ndarray) -> list[Scores]:
    """Pairs scored by how little the cue differs, as `metrics.pair_scores` scores them by embeddings."""
    found = []
    for writer in np.unique(writers):
        own = cue[(writers == writer) & ~forged]
        if len(own) < 2:
            continue
        first, second = np.triu_indices(len(own), 1)
        skilled = cue[(writers == writer) & forged]
        others = cue[(writers != writer) & ~forged]
        found.append(
            Scores(
                int(writer),
                -np.abs(own[first] - own[second]),
                -np.abs(own[:, np.newaxis] - skilled).ravel(),
                -np.abs(own[:, np.newaxis] - others).ravel(),
            )
        )
    return found


def _images(input_path: str) -> Iterator[np.ndarray]:
    from training.data import tfrecord

    for page in tfrecord.read_pages(input_path):
        with Image.open(io.BytesIO(page.image)) as image:
            yield np.asarray(image.convert("L"))
