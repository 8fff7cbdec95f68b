"""Proof that an extractor's ONNX file computes what the trained model computes.

Real or synthetic signatures go through the SDK's numpy preprocessing into the ONNX file and through the
training's TensorFlow preprocessing into the model. Embeddings that are all alike prove nothing: enough
signatures must be far from the first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from export.validate import beyond, largest_difference, relative_difference, serve, table
from signver import MetricExtractor, SignVerError
from signver.preprocessing import HEIGHT, WIDTH
from training.errors import UserError
from training.runner import LoadedModel

# Largest difference of any coordinate of an embedding of length 1, and of the cosine of any two embeddings.
VALUE_LIMIT = 1e-4
COSINE_LIMIT = 1e-5
# Random pixels: root mean square of the difference over the spread of the answer.
RELATIVE_LIMIT = 5e-5
# A signature counts where its cosine with the first differs from 1 by this much.
APART = 0.05

# float32 [n, 192, 384, 1] to float32 [n, d].
Trained = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class Report:
    """What a validation found.

    Attributes:
      signatures: compared signatures.
      apart: those whose embedding is far from the first one's.
      value: largest difference of a coordinate.
      cosine: largest difference of a cosine between two signatures.
      relative: root mean square of the difference on random pixels, over the answer's spread.
      failures: what makes it fail, one sentence each; empty when it passes.
    """

    signatures: int = 0
    apart: int = 0
    value: float = 0.0
    cosine: float = 0.0
    relative: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped."""
        return not self.failures

    def _checks(self) -> list[tuple[str, float, float]]:
        return [
            ("coordinate of an embedding", self.value, VALUE_LIMIT),
            ("cosine of two signatures", self.cosine, COSINE_LIMIT),
            ("random pixels, relative RMS", self.relative, RELATIVE_LIMIT),
        ]

    def judge(self, minimum: int) -> None:
        """Fills `failures`."""
        if self.apart < minimum:
            self.failures.append(
                f"only {self.apart} of {self.signatures} embeddings differ from the first, {minimum} are "
                "needed: train longer or give more signatures; equal ones are equal whatever the weights."
            )
        self.failures += beyond(self._checks())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the limits beside the figures."""
        limits = {"value": VALUE_LIMIT, "cosine": COSINE_LIMIT, "relative": RELATIVE_LIMIT}
        return {**dataclasses.asdict(self), "passed": self.passed, "limits": limits}

    def text(self) -> str:
        """The report as a table."""
        heading = f"{self.signatures} signatures compared, {self.apart} apart from the first"
        return table(heading, self._checks(), self.failures)


def validate_extractor(
    loaded: LoadedModel,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int = 10,
    seed: int = 0,
) -> Report:
    """Compares a trained extractor with its ONNX file.

    Args:
      loaded: the trained model.
      onnx_file: what `python -m export onnx` wrote.
      images: RGB signatures; pictures without ink are left out.
      minimum: fewer signatures apart from the first fail.
      seed: of the random pixels.

    Raises:
      UserError: no signature, or a file that is no extractor.
    """
    return compare(
        lambda pixels: loaded.model(pixels, training=False).numpy(), onnx_file, images, minimum, seed
    )


def validate_saved_model(
    saved_model: str | os.PathLike[str],
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int = 10,
    seed: int = 0,
) -> Report:
    """As `validate_extractor`, against a SavedModel.

    Raises:
      UserError: no signature, or a folder or file that is no extractor.
    """
    return compare(serve(saved_model), onnx_file, images, minimum, seed)


def validate_siamese(
    loaded: LoadedModel,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int = 10,
    seed: int = 0,
) -> Report:
    """As `validate_extractor`, for a trained Siamese verifier: each signature is paired with the one before.

    Both preprocessings take part, the SDK's in numpy and the training's. Embeddings and logit count together.

    Raises:
      UserError: fewer than two signatures, or a file that is no such verifier.
    """
    from signver import siamese as sdk
    from training.extractor.siamese import EMBEDDING, prepare

    session = open_session(onnx_file, "siamese")
    pixels = []
    for image in images:
        try:
            pixels.append((sdk.prepare(image), prepare(np.asarray(image.convert("L")))))
        except SignVerError:
            continue
    if len(pixels) < 2:
        raise UserError("validate: fewer than two signatures to compare on; give --pages or --synthetic.")

    def ours(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        first, second, logit = session.run(["output0", "output1", "output2"], {"input0": one, "input1": two})
        return np.concatenate([first[0], second[0], logit[0]])

    def theirs(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        batch = np.stack([one, two])[..., np.newaxis].astype(np.float32) / 255
        found = loaded.model(batch, training=False).numpy()
        logit = found[0, EMBEDDING] + found[1, EMBEDDING + 1]
        return np.concatenate([found[0, :EMBEDDING], found[1, :EMBEDDING], [logit]])

    pairs = [(pixels[n], pixels[n - 1]) for n in range(len(pixels))]
    found = np.stack([ours(one[0], two[0]) for one, two in pairs]).astype(np.float64)
    expected = np.stack([theirs(one[1], two[1]) for one, two in pairs]).astype(np.float64)
    report = Report(signatures=len(pixels))
    report.value = largest_difference(found, expected)
    cosines = [_cosine(v[:, :EMBEDDING], v[:, EMBEDDING : 2 * EMBEDDING]) for v in (found, expected)]
    report.cosine = largest_difference(*cosines)
    unit = expected[:, :EMBEDDING]
    report.apart = int((_cosine(unit, unit[:1]) < 1 - APART).sum())
    noise = np.random.default_rng(seed).integers(0, 256, (2, *sdk.INPUT), np.uint8)
    report.relative = relative_difference(ours(*noise), theirs(*noise))
    report.judge(minimum)
    return report


def open_session(onnx_file: str | os.PathLike[str], kind: str) -> onnxruntime.InferenceSession:
    """A session of a file of this kind.

    Raises:
      UserError: the file is missing, damaged or of another kind.
    """
    from signver.model_file import open_model

    try:
        return open_model(onnx_file, kind)[0]
    except SignVerError as error:
        raise UserError(f"--onnx {error}") from error


def compare(
    trained: Trained,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int,
    seed: int,
) -> Report:
    """The comparisons of this module's docstring; arguments as in `validate_extractor`."""
    from training.extractor.preprocessing import normalise

    try:
        sdk = MetricExtractor().load(onnx_file)
    except SignVerError as error:
        raise UserError(f"--onnx {error}") from error
    found, expected = [], []
    for image in images:
        try:
            found.append(sdk.extract(image))
        except SignVerError:
            continue
        pixels = normalise(np.asarray(image.convert("L"))).numpy()
        expected.append(trained(pixels[np.newaxis, ..., np.newaxis])[0])
    if not found:
        raise UserError(
            "validate: no signature to compare on; give --pages with single signatures or --synthetic."
        )
    ours, theirs = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
    report = Report(signatures=len(ours))
    report.value = largest_difference(ours, theirs)
    report.cosine = largest_difference(ours @ ours.T, theirs @ theirs.T)
    report.apart = int((theirs @ theirs[0] < 1 - APART).sum())
    session = onnxruntime.InferenceSession(os.fspath(onnx_file), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(seed).random((1, HEIGHT, WIDTH, 1), np.float32)
    report.relative = relative_difference(session.run(["embedding"], {"image": noise})[0], trained(noise))
    report.judge(minimum)
    return report


def synthetic_signatures(count: int, seed: int) -> list[Image.Image]:
    """Signatures of as many synthetic writers."""
    from export import samples

    return [Image.fromarray(samples.signature(seed, n, 0)).convert("RGB") for n in range(count)]


def _cosine(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(1) / np.maximum(lengths, 1e-12)
