"""Decides from embeddings whether two signatures are of one writer."""

from __future__ import annotations

import numpy as np

from signver.errors import SignVerError


class Matcher:
    """Compares embeddings by their cosine.

    Args:
      threshold: cosine similarity from which on two signatures count as of one writer; take
        `MetricExtractor.threshold`.
    """

    def __init__(self, threshold: float = 0.5):
        if not -1.0 <= threshold <= 1.0:
            raise SignVerError(f"threshold {threshold}: a cosine lies between -1 and 1.")
        self.threshold = threshold

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
