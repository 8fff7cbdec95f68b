"""Finds signatures, initials, redactions and dates on a page, with ONNX Runtime alone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from signver.errors import SignVerError
from signver.images import Picture, as_rgb, reduce_page
from signver.model_file import open_model

if TYPE_CHECKING:
    import onnxruntime


class Detections(NamedTuple):
    """What `Detector.detect` returns; unpacks as SignVer's own does.

    Attributes:
      boxes: float32 [n, 4], fractions of the page, [ymin, xmin, ymax, xmax], y down.
      scores: float32 [n], 0..1, falling.
      classes: int64 [n], labels from 1 on; names in `Detector.class_names`.
      detections: the same by the names of the model's outputs.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    detections: dict[str, np.ndarray]


class Detector:
    """A detector in ONNX form.

        detector = Detector()
        detector.load("detector.onnx")
        boxes, scores, classes, _ = detector.detect("letter.png")

    The session is made once and may be used from several threads.
    """

    def __init__(self, threads: int = 0):
        """Args: threads: cores that one call may use; 0 lets ONNX Runtime take all."""
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self.class_names: dict[int, str] = {}
        self.input_size: tuple[int, int] = (0, 0)
        self.score_threshold = 0.0

    def load(self, path: str | os.PathLike[str], *, sha256: str | None = None) -> Detector:
        """Reads a model exported by `python -m export onnx`.

        Args:
          path: the ONNX file.
          sha256: what the file must have, hexadecimal; None takes any.

        Raises:
          SignVerError: the file is missing, damaged, changed, or no detector.
        """
        session, metadata = open_model(path, "detector", self._threads, sha256)
        self._read_metadata(os.fspath(path), metadata)
        self._session = session
        return self

    def _read_metadata(self, path: str, metadata: dict[str, str]) -> None:
        try:
            names = json.loads(metadata["signver.classes"])
            height, width = json.loads(metadata["signver.input_size"])
            self.class_names = {int(label): str(name) for label, name in names.items()}
            self.input_size = (int(height), int(width))
            self.score_threshold = float(metadata["signver.score_threshold"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise SignVerError(f"{path}: damaged metadata ({error!r}); export the model anew.") from error

    def detect(self, image: Picture) -> Detections:
        """Everything found on one page, best first; filter by score as the use asks.

        Args:
          image: a path, a Pillow image, or uint8 pixels [h, w], [h, w, 3] or [1, h, w, 3].

        Raises:
          SignVerError: no model is loaded, or the image cannot be used.
        """
        if self._session is None:
            raise SignVerError("no model loaded; call load(path) first.")
        pixels = np.asarray(reduce_page(as_rgb(image), self.input_size), np.uint8)[np.newaxis]
        names = ["detection_boxes", "detection_scores", "detection_classes", "num_detections"]
        boxes, scores, classes, count = self._session.run(names, {"image": pixels})
        found = int(count[0])
        result = (boxes[0, :found], scores[0, :found], classes[0, :found].astype(np.int64))
        return Detections(*result, dict(zip(names, (boxes, scores, classes, count), strict=True)))
