"""The PyTorch Siamese verifier in ONNX form, with the preprocessing that it was trained with, in numpy.

Two signatures of 150×220 pixels, ink bright on black, go in; two embeddings and the logit of "forged" come
out. `python -m export siamese` makes the file; the .NET SDK of the same contract loads it too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from signver.errors import SignVerError
from signver.images import Picture, as_rgb
from signver.matcher import Matcher
from signver.model_file import open_model
from signver.preprocessing import otsu

if TYPE_CHECKING:
    import onnxruntime

# Rows and columns: of the sheet that a signature is centred on, of the sheet made smaller, of the network.
CANVAS = (952, 1360)
RESIZED = (256, 256)
INPUT = (150, 220)
_BLUR = 2.0
# What decides where nothing was measured.
_THRESHOLD = 0.5
# The largest picture, in pixels; the preprocessing keeps the scanner's resolution.
_MOST_PIXELS = 50_000_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the network says of two signatures.

    Attributes:
      cosine: similarity of the embeddings; high is genuine.
      forged: probability that one is forged, the sigmoid of the network's logit.
      genuine: the decision by the cosine.
    """

    cosine: float
    forged: float
    genuine: bool


class SiameseVerifier:
    """The verifier that `python -m export siamese` converted.

        verifier = SiameseVerifier().load("verifier.onnx")
        print(verifier.compare("reference.png", "questioned.png").genuine)

    The session may be used from several threads.

    Args:
      threshold: cosine similarity from which on two signatures count as of one writer; None takes what was
        measured in training where the file says it, and 0.5, as the .NET SDK does, where not.
      threads: cores that one call may use; 0 lets ONNX Runtime take all.
    """

    def __init__(self, threshold: float | None = None, threads: int = 0):
        self._threshold = threshold
        self._matcher = Matcher(_THRESHOLD if threshold is None else threshold)
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None

    def load(self, path: str | os.PathLike[str]) -> SiameseVerifier:
        """Reads the model.

        Raises:
          SignVerError: the file is missing, damaged, or of another kind.
        """
        session, metadata = open_model(path, "siamese", self._threads)
        if self._threshold is None:
            self._matcher = Matcher(_measured(os.fspath(path), metadata))
        self._session = session
        return self

    @property
    def threshold(self) -> float:
        """The cosine that decides."""
        return self._matcher.threshold

    def compare(self, first: Picture, second: Picture) -> Comparison:
        """Compares two signatures, dark ink on light paper.

        Raises:
          SignVerError: no model is loaded, or a picture cannot be read or holds no signature.
        """
        if self._session is None:
            raise SignVerError("no model loaded; call load(path) first.")
        inputs = {"input0": prepare(first), "input1": prepare(second)}
        one, two, logit = self._session.run(["output0", "output1", "output2"], inputs)
        cosine = self._matcher.cosine_similarity(one[0], two[0])
        # No overflow for a logit of any size.
        forged = float(np.exp(-np.logaddexp(0.0, -float(logit[0, 0]))))
        return Comparison(cosine, forged, cosine >= self._matcher.threshold)


def _measured(path: str, metadata: Mapping[str, str]) -> float:
    try:
        threshold = float(metadata.get("signver.threshold", _THRESHOLD))
    except ValueError:
        threshold = math.nan
    if not -1 <= threshold <= 1:
        raise SignVerError(f"{path}: its signver.threshold is no cosine; export the model anew.")
    return threshold


def prepare(picture: Picture) -> np.ndarray:
    """A signature as the network takes it: uint8 [150, 220], ink bright on black.

    The steps of sigver (Hafemann et al. 2017, "Learning features for offline handwritten signature
    verification using deep convolutional neural networks"): find the ink in a blurred copy, centre it by its
    mass on a sheet of 952×1360, whiten the paper, invert, reduce to 256×256 and cut out the middle.

    Args:
      picture: a path, a Pillow image or uint8 pixels; dark ink on light paper.

    Raises:
      SignVerError: the picture cannot be read, is too large, or holds no signature.
    """
    grey = np.asarray(as_rgb(picture).convert("L"))
    if grey.size > _MOST_PIXELS:
        raise SignVerError(f"a signature of {grey.shape[1]}x{grey.shape[0]} pixels; cut it out of its page.")
    threshold = otsu(grey)
    placed, top, left = centre(grey, threshold)
    ink = 255 - np.where(placed > threshold, np.uint8(255), placed)
    return _reduced(ink, top, left)


def centre(grey: np.ndarray, threshold: int) -> tuple[np.ndarray, int, int]:
    """The ink's rectangle and where it lies on the sheet.

    Args:
      grey: uint8 [h, w].
      threshold: Otsu's, see `preprocessing.otsu`.

    Returns:
      uint8 [rows, columns] at most `CANVAS`, and its first row and column on the sheet.

    Raises:
      SignVerError: no pixel is dark enough.
    """
    rows, columns = np.nonzero(blurred(grey, _BLUR) <= threshold)
    # The last row and column are left out, as there.
    if not rows.size or rows.min() == rows.max() or columns.min() == columns.max():
        raise SignVerError("no signature: no ink is left after a blur of 2 pixels.")
    part = grey[rows.min() : rows.max(), columns.min() : columns.max()]
    starts = []
    for axis, (found, most) in enumerate(zip((rows, columns), CANVAS, strict=True)):
        size = part.shape[axis]
        if size > most:
            begin = (size - most) // 2
            part = part[begin : begin + most] if axis == 0 else part[:, begin : begin + most]
            starts.append(0)
        else:
            start = most // 2 - int(found.mean() - found.min())
            starts.append(max(0, min(start, most - size)))
    return part, starts[0], starts[1]


def blurred(grey: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, float64 of the same shape; the border's pixels go on outside."""
    weights = _gaussian(sigma)
    reach = len(weights) // 2
    values = grey.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        size = values.shape[axis]
        values = sum(
            weight * (padded[k : k + size] if axis == 0 else padded[:, k : k + size])
            for k, weight in enumerate(weights)
        )
    return values


def _reduced(ink: np.ndarray, top: int, left: int) -> np.ndarray:
    """The middle of the sheet, smaller; only the ink's own rows and columns take part: all else is 0."""
    ratio = min(CANVAS[0] / RESIZED[0], CANVAS[1] / RESIZED[1])
    whole = [round(side / ratio) for side in CANVAS]
    matrices = []
    for axis, (start, size) in enumerate(zip((top, left), ink.shape, strict=True)):
        # Cut to the middle twice, as there: to 256, then to the network's size.
        outer = round((whole[axis] - RESIZED[axis]) / 2)
        first = outer + (RESIZED[axis] - INPUT[axis]) // 2
        matrix = _shrinking(CANVAS[axis], whole[axis])[first : first + INPUT[axis]]
        matrices.append(matrix[:, start : start + size])
    small = matrices[0] @ ink.astype(np.float64) @ matrices[1].T
    # Values of an even area come out a hair below the whole number, which the cut to 8 bits would lower by 1.
    return np.clip(small + 1e-9, 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _shrinking(source: int, target: int) -> np.ndarray:
    """Blur against aliasing, then linear interpolation, as one float64 [target, source] matrix."""
    factor = source / target
    weights = _gaussian(max(0.0, (factor - 1) / 2))
    reach = len(weights) // 2
    blur = np.zeros((source, source))
    for k, weight in enumerate(weights):
        blur += weight * np.eye(source, k=k - reach)
    place = (np.arange(target) + 0.5) * factor - 0.5
    low = np.floor(place).astype(int)
    sample = np.zeros((target, source))
    for index, weight in ((low, low + 1 - place), (low + 1, place - low)):
        inside = (index >= 0) & (index < source)
        sample[np.flatnonzero(inside), index[inside]] += weight[inside]
    return sample @ blur


def _gaussian(sigma: float) -> np.ndarray:
    """Weights out to four sigma; their sum is 1."""
    reach = int(4 * sigma + 0.5)
    if reach == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()
