"""Takes lines, print, stamps and dirt off a signature crop, with ONNX Runtime alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from signver.errors import SignVerError
from signver.images import Picture, as_rgb
from signver.model_file import open_model

if TYPE_CHECKING:
    import onnxruntime

# Side of the network's square, in pixels.
SIDE = 224
# Crops in one call of a model with a free batch: the network's activations of more would fill the memory.
_BATCH = 8


class Cleaner:
    """A cleaner in ONNX form.

        cleaner = Cleaner()
        cleaner.load("cleaner.onnx")
        ink = cleaner.clean("crop.png")

    The session is made once and may be used from several threads.
    """

    def __init__(self, threads: int = 0):
        """Args: threads: cores that one call may use; 0 lets ONNX Runtime take all."""
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self._batch = 1

    def load(self, path: str | os.PathLike[str], *, sha256: str | None = None) -> Cleaner:
        """Reads a model exported by `python -m export onnx`.

        Args:
          path: the ONNX file.
          sha256: what the file must have, hexadecimal; None takes any.

        Raises:
          SignVerError: the file is missing, damaged, changed, or no cleaner.
        """
        session, _ = open_model(path, "cleaner", self._threads, sha256)
        inputs = session.get_inputs()
        if [value.name for value in inputs] != ["input"]:
            raise SignVerError(f"{os.fspath(path)}: its input is not called 'input'; export the model anew.")
        self._session, self._batch = session, 1 if inputs[0].shape[0] == 1 else _BATCH
        return self

    def clean(self, image: Picture | Sequence[Picture]) -> Any:
        """The ink of a crop, of several, or of a batch that is fitted already.

        Args:
          image: a path, a Pillow image or uint8 pixels [h, w] or [h, w, 3] of one crop; or a list of them,
            or uint8 [n, h, w, 3]; or, as SignVer passes them, float32 [n, 224, 224, 3] in 0..1, dark ink
            on white.

        Returns:
          For one crop uint8 [h, w], dark ink on white, the longer side 224 pixels; for several a list of
          them; for a batch of floats float32 [n, 224, 224, 3].

        Raises:
          SignVerError: no model is loaded, or an image cannot be used.
        """
        if isinstance(image, np.ndarray) and image.dtype.kind == "f":
            return self._clean_batch(image)
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return self._clean_crops([as_rgb(crop) for crop in image])
        return self._clean_crops([as_rgb(image)])[0]  # type: ignore[arg-type]

    def _clean_crops(self, crops: Sequence[Image.Image]) -> list[np.ndarray]:
        cleaned = []
        for start in range(0, len(crops), self._batch):
            fitted = [fit_crop(crop) for crop in crops[start : start + self._batch]]
            squares = np.stack([np.asarray(square) for square, _ in fitted])
            answers = self._run(squares.astype(np.float32) / np.float32(255))
            for answer, (_, (top, left, bottom, right)) in zip(answers, fitted, strict=True):
                grey = np.clip(np.rint(answer[top:bottom, left:right, 0] * 255), 0, 255)
                cleaned.append(grey.astype(np.uint8))
        return cleaned

    def _clean_batch(self, images: np.ndarray) -> np.ndarray:
        if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
            raise SignVerError(
                f"image array: a batch of floats is [n, {SIDE}, {SIDE}, 3], found {list(images.shape)}."
            )
        if not np.isfinite(images).all() or images.min(initial=0) < 0 or images.max(initial=0) > 1:
            raise SignVerError("image array: floats must lie in 0..1; divide grey levels by 255.")
        starts = range(0, len(images), self._batch)
        answers = [self._run(images[start : start + self._batch].astype(np.float32)) for start in starts]
        return np.concatenate(answers) if answers else np.empty((0, SIDE, SIDE, 3), np.float32)

    def _run(self, squares: np.ndarray) -> np.ndarray:
        if self._session is None:
            raise SignVerError("no model loaded; call load(path) first.")
        return self._session.run(["output"], {"input": squares})[0]


def fit_crop(image: Image.Image) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Fits a crop into the network's square: aspect ratio kept, centred, white around.

    Returns:
      The square, and where the crop lies in it: top, left, bottom, right.
    """
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BICUBIC
    square = Image.new("RGB", (SIDE, SIDE), "white")
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    square.paste(image.resize((width, height), method), (left, top))
    return square, (top, left, top + height, left + width)
