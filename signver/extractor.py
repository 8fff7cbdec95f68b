"""Signatures to embeddings whose cosine tells genuine from forged, with ONNX Runtime alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from signver.errors import SignVerError
from signver.images import Picture
from signver.model_file import open_model
from signver.preprocessing import normalise_signature


class MetricExtractor:
    """An extractor in ONNX form.

        extractor = MetricExtractor()
        extractor.load("extractor.onnx")
        first, second = extractor.extract(["one.png", "two.png"])
        same = Matcher(extractor.threshold).verify(first, second)

    The session is made once and may be used from several threads.

    Attributes:
      threshold: cosine similarity from which on two signatures count as of one writer: the equal error
        rate on the validation writers of the training.
    """

    def __init__(self, threads: int = 0):
        """Args: threads: cores that one call may use; 0 lets ONNX Runtime take all."""
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self.threshold = float("nan")

    def load(self, path: str | os.PathLike[str]) -> MetricExtractor:
        """Reads a model exported by `python -m export onnx`.

        Raises:
          SignVerError: the file is missing, damaged, or no extractor.
        """
        session, metadata = open_model(path, "extractor", self._threads)
        try:
            self.threshold = float(metadata["signver.threshold"])
        except (KeyError, ValueError) as error:
            raise SignVerError(f"{os.fspath(path)}: its metadata hold no signver.threshold.") from error
        self._session = session
        return self

    def extract(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Embeddings of one signature or several; clean them first where there is more than ink.

        Args:
          images: a path, a Pillow image or uint8 pixels of one signature; or a list of them.

        Returns:
          float32 [d] of length 1 for one signature, [n, d] for a list.

        Raises:
          SignVerError: no model is loaded, or an image cannot be read or holds no signature.
        """
        if self._session is None:
            raise SignVerError("no model loaded; call load(path) first.")
        several = isinstance(images, list | tuple)
        pictures: list[Any] = list(images) if several else [images]  # type: ignore[arg-type]
        if not pictures:
            return np.empty((0, self._session.get_outputs()[0].shape[1]), np.float32)
        pixels = np.stack([normalise_signature(picture) for picture in pictures])[..., np.newaxis]
        found = self._session.run(["embedding"], {"image": pixels})[0]
        return found if several else found[0]
