"""Decides from embeddings whether two signatures are of one writer, and whose a signature is."""

from __future__ import annotations

import os

import numpy as np

from signver.errors import SignVerError
from signver.index import SignatureIndex, Template, unit_rows


class Matcher:
    """Compares embeddings by their cosine, several references of a writer by how consistent they are too.

    Args:
      threshold: similarity from which on two signatures count as of one writer; take
        `MetricExtractor.threshold`.
      index: enrolled writers, for `identify`; empty by default.
      consistency: usual cosine of two genuine signatures; take `MetricExtractor.consistency`. None compares
        with the mean of several references and nothing else, as SignVer's matcher does.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        index: SignatureIndex | None = None,
        consistency: float | None = None,
    ):
        for name, value in (("threshold", threshold), ("consistency", consistency)):
            if value is not None and not -1.0 <= value <= 1.0:
                raise SignVerError(f"{name} {value}: a cosine lies between -1 and 1.")
        self.threshold = threshold
        self.consistency = consistency
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
        _check_lengths(one.size, two.size)
        return float(one @ two)

    def cosine_distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """1 minus the cosine similarity, as SignVer's matcher gives it."""
        return 1.0 - self.cosine_similarity(first, second)

    def similarity(self, references: np.ndarray, questioned: np.ndarray) -> float:
        """What is held against the threshold: `cosine_similarity` for one reference, see `Template` for more.

        Args:
          references: float [d] or [k, d], of one writer.
          questioned: float [d]. Where it is the one that is several, the two change places.

        Raises:
          SignVerError: as `cosine_similarity`.
        """
        if np.ndim(questioned) == 2 and len(questioned) > 1 == len(np.atleast_2d(references)):
            references, questioned = questioned, references
        rows, query = unit_rows(references), _unit(questioned)
        _check_lengths(rows.shape[1], query.size)
        return Template(rows, self.consistency).similarity(query)

    def verify(self, first: np.ndarray, second: np.ndarray, threshold: float | None = None) -> bool:
        """Whether two signatures, or several references and a signature, are of one writer.

        Args:
          first: reference, float [d], or references [k, d].
          second: questioned signature, float [d].
          threshold: largest distance, 1 minus the similarity, as SignVer's matcher takes it, instead of the
            similarity that this matcher was made with.
        """
        least = self.threshold if threshold is None else 1.0 - threshold
        return self.similarity(first, second) >= least

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
        """The writers most like a signature: name and similarity, best first.

        The best is the writer only if it reaches the threshold; all others are listed too.

        Args:
          query: an embedding, float [d] or [1, d].
          index: instead of this matcher's own.
          count: how many at most.

        Raises:
          SignVerError: as `SignatureIndex.search`.
        """
        return (self.index if index is None else index).search(query, count, self.consistency)

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
        self.index = SignatureIndex.load(model_path, self.index.model, self.index.backend)


def _check_lengths(one: int, two: int) -> None:
    if one != two:
        raise SignVerError(f"embeddings of {one} and {two} values: take them from one model.")


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
