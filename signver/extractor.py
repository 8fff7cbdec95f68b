"""Signatures to embeddings whose cosine tells genuine from forged, with ONNX Runtime alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from signver.errors import SignVerError
from signver.images import Picture, from_floats
from signver.model_file import open_model
from signver.preprocessing import HEIGHT, WIDTH, normalise_signature

if TYPE_CHECKING:
    import onnxruntime

# Signatures in one call: 32 keep both cores busy, more only take memory.
_BATCH = 32


class Calibration(NamedTuple):
    """Turns a cosine into the probability of "genuine", forgeries and genuine ones being equally frequent.

    1 / (1 + exp(-(slope x cosine + offset))), fitted on the validation writers of the training.
    """

    slope: float
    offset: float

    def probability(self, cosine: float) -> float:
        """0..1."""
        return 1 / (1 + math.exp(-min(max(self.slope * cosine + self.offset, -500.0), 500.0)))


class MetricExtractor:
    """An extractor in ONNX form.

        extractor = MetricExtractor()
        extractor.load("extractor.onnx")
        first, second = extractor.extract(["one.png", "two.png"])
        same = Matcher(extractor.threshold, consistency=extractor.consistency).verify(first, second)

    The session is made once and may be used from several threads.

    Attributes:
      threshold: cosine similarity from which on two signatures count as of one writer: the equal error
        rate on the validation writers of the training.
      calibration: what makes a probability of a cosine; None where the file has none.
      consistency: mean cosine of two genuine signatures of a writer, there too; None where the file has none.
      input_size: height and width that the network takes, of the file.
      identity: SHA-256 of the file: embeddings are comparable only if they have this in common.
    """

    def __init__(self, threads: int = 0):
        """Args: threads: cores that one call may use; 0 lets ONNX Runtime take all."""
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self.threshold = float("nan")
        self.calibration: Calibration | None = None
        self.consistency: float | None = None
        self.input_size: tuple[int, int] = (HEIGHT, WIDTH)
        self._enlarge_below = 0
        self.identity = ""

    def load(self, path: str | os.PathLike[str], *, sha256: str | None = None) -> MetricExtractor:
        """Reads a model exported by `python -m export onnx`.

        Args:
          path: the ONNX file.
          sha256: what the file must have, hexadecimal; None takes any.

        Raises:
          SignVerError: the file is missing, damaged, changed, or no extractor.
        """
        session, metadata = open_model(path, "extractor", self._threads, sha256)
        try:
            self.threshold = float(metadata["signver.threshold"])
        except (KeyError, ValueError) as error:
            raise SignVerError(f"{os.fspath(path)}: its metadata hold no signver.threshold.") from error
        self.calibration = _calibration(os.fspath(path), metadata)
        self.consistency = _consistency(os.fspath(path), metadata)
        self.input_size, self._enlarge_below = _preparation(os.fspath(path), metadata)
        if sha256 is None:
            with open(path, "rb") as stream:
                sha256 = hashlib.sha256(stream.read()).hexdigest()
        self.identity = sha256
        self._session = session
        return self

    @property
    def length(self) -> int:
        """How many values an embedding has.

        Raises:
          SignVerError: no model is loaded.
        """
        if self._session is None:
            raise SignVerError("no model loaded; call load(path) first.")
        return int(self._session.get_outputs()[0].shape[1])

    def extract(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Embeddings of one signature or several; clean them first where there is more than ink.

        Args:
          images: a path, a Pillow image or uint8 pixels [h, w] or [h, w, 3] of one signature; or a list of
            them, or an array [n, h, w, 3]. Arrays of floats hold 0..1, as SignVer passes them.

        Returns:
          float32 [d] of length 1 for one signature, [n, d] for several.

        Raises:
          SignVerError: no model is loaded, or an image cannot be read or holds no signature.
        """
        several = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)
        pictures: list[Any] = list(images) if several else [images]  # type: ignore[arg-type]
        found = self.embed([self.normalise(picture) for picture in pictures])
        return found if several else found[0]

    def normalise(self, picture: Picture) -> np.ndarray:
        """What the network sees of a signature: float32 of `input_size`, 1 where all is ink.

        Args:
          picture: one, as for `extract`.

        Raises:
          SignVerError: the picture cannot be read or holds no signature.
        """
        if isinstance(picture, np.ndarray) and picture.dtype.kind == "f":
            picture = from_floats(picture)
        return normalise_signature(picture, self.input_size, self._enlarge_below)

    def embed(self, normalised: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings of signatures that are normalised already.

        Args:
          normalised: float32 of `input_size` each, of `normalise`.

        Returns:
          float32 [n, d], each of length 1.

        Raises:
          SignVerError: no model is loaded.
        """
        found = np.empty((len(normalised), self.length), np.float32)
        for start in range(0, len(normalised), _BATCH):
            pixels = np.stack(normalised[start : start + _BATCH])[..., np.newaxis]
            assert self._session is not None
            found[start : start + len(pixels)] = self._session.run(["embedding"], {"image": pixels})[0]
        return found


def _preparation(path: str, metadata: dict[str, str]) -> tuple[tuple[int, int], int]:
    """Height and width of the input, and what longer side asks for enlarging: in older files none."""
    try:
        height, width = json.loads(metadata["signver.input_size"])
        enlarge_below = int(metadata.get("signver.enlarge_below", 0))
        if min(height, width) > 0:
            return (int(height), int(width)), enlarge_below
        message = f"signver.input_size is {height}x{width}"
    except (KeyError, ValueError, TypeError) as error:
        message = repr(error)
    raise SignVerError(f"{path}: damaged metadata ({message}); export the model anew.")


def _consistency(path: str, metadata: dict[str, str]) -> float | None:
    text = metadata.get("signver.consistency")
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not -1.0 <= found <= 1.0:
        raise SignVerError(f"{path}: damaged metadata (signver.consistency is no cosine).")
    return found


def _calibration(path: str, metadata: dict[str, str]) -> Calibration | None:
    text = metadata.get("signver.calibration")
    if text is None:
        return None
    try:
        found = json.loads(text)
        calibration = Calibration(float(found["slope"]), float(found["offset"]))
    except (KeyError, ValueError, TypeError) as error:
        raise SignVerError(
            f"{path}: damaged metadata (signver.calibration); export the model anew."
        ) from error
    if not all(map(math.isfinite, calibration)):
        raise SignVerError(f"{path}: damaged metadata (signver.calibration is no number).")
    return calibration
