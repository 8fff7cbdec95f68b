"""Decides from embeddings whether two signatures are of one writer, and whose a signature is."""

from __future__ import annotations

import os

import numpy as np

from signver.errors import SignVerError
from signver.index import SignatureIndex


class Matcher:
    """Compares embeddings by their cosine.

    Args:
      threshold: cosine similarity from which on two signatures count as of one writer; take
        `MetricExtractor.threshold`.
      index: enrolled writers, for `identify`; empty by default.
    """

    def __init__(self, threshold: float = 0.5, index: SignatureIndex | None = None):
        if not -1.0 <= threshold <= 1.0:
            raise SignVerError(f"threshold {threshold}: a cosine lies between -1 and 1.")
        self.threshold = threshold
        self.index = SignatureIndex() if index is None else index

    def cosine_similarity(self, first: np.ndarray, second: np.ndarray) -> float:
        """1 for equal directions, 0 for unrelated ones.

        Args:
          first, second: embeddings, float [d], or [k, d] for several references of one writer, whose mean
            counts.

        Raises:
          SignVerError: embeddings of different or no length, or values that are not finite.
        """
        one, two = _unit(first), _unit(second)
        if one.shape != two.shape:
            raise SignVerError(f"embeddings of {one.size} and {two.size} values: take them from one model.")
        return float(one @ two)

    def cosine_distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """1 minus the cosine similarity, as SignVer's matcher gives it."""
        return 1.0 - self.cosine_similarity(first, second)

    def verify(self, first: np.ndarray, second: np.ndarray, threshold: float | None = None) -> bool:
        """Whether two signatures, or a signature and several references, are of one writer.

        Args:
          first, second: as for `cosine_similarity`.
          threshold: largest cosine distance, as SignVer's matcher takes it, instead of the similarity that
            this matcher was made with.
        """
        least = self.threshold if threshold is None else 1.0 - threshold
        return self.cosine_similarity(first, second) >= least

    def enroll(self, identity: str, embeddings: np.ndarray) -> int:
        """Adds signatures of a writer to the index; returns how many it has of that writer.

        Args:
          identity: the writer's name.
          embeddings: float [d] or [k, d].

        Raises:
          SignVerError: as `SignatureIndex.add`.
        """
        return self.index.add(identity, embeddings)

    def identify(
        self, query: np.ndarray, index: SignatureIndex | None = None, count: int = 5
    ) -> list[tuple[str, float]]:
        """The writers most like a signature: name and cosine similarity, best first.

        The best is the writer only if it reaches the threshold; all others are listed too.

        Args:
          query: an embedding, float [d] or [1, d].
          index: instead of this matcher's own.
          count: how many at most.

        Raises:
          SignVerError: as `SignatureIndex.search`.
        """
        return (self.index if index is None else index).search(query, count)

    def save_index(self, save_path: str | os.PathLike[str]) -> None:
        """Writes the index to a file.

        Raises:
          SignVerError: the file cannot be written.
        """
        self.index.save(save_path)

    def load_index(self, model_path: str | os.PathLike[str]) -> None:
        """Reads the index from a file, in place of the one at hand.

        Raises:
          SignVerError: missing, damaged, or made by another model than the one at hand.
        """
        self.index = SignatureIndex.load(model_path, self.index.model)


def _unit(embedding: np.ndarray) -> np.ndarray:
    values = np.asarray(embedding, np.float64)
    if values.ndim not in (1, 2) or values.size == 0 or not np.isfinite(values).all():
        raise SignVerError(f"embedding: expected finite values [d] or [k, d], found {values.shape}.")
    if values.ndim == 2:
        values = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)).mean(axis=0)
    length = np.linalg.norm(values)
    if length < 1e-12:
        raise SignVerError("embedding: all values are 0.")
    return values / length
