"""Proof that a cleaner's ONNX file computes what the trained model computes.

Real or synthetic crops go through the SDK's own fitting, random pixels straight in; every value of the
answer is compared. An answer that is paper everywhere proves nothing: enough crops must come out with
ink on them.
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
from signver import Cleaner, SignVerError
from signver.cleaner import SIDE, fit_crop
from training.errors import UserError
from training.runner import LoadedModel

# The SDK contract's bound on any value of the answer, 0..1.
VALUE_LIMIT = 1e-4
# Random pixels: root mean square of the difference over the spread of the answer; a sound file: up to 6e-6.
RELATIVE_LIMIT = 5e-5
# A crop counts where at least this share of its pixels comes out darker than half grey.
INK_SHARE = 0.002

# float32 [1, 224, 224, 3] to the same.
Trained = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class Report:
    """What a validation found.

    Attributes:
      crops: compared crops.
      with_ink: those whose answer holds ink.
      value: largest difference of a value on crops, 0..1.
      relative: root mean square of the difference on random pixels, over the answer's spread.
      sdk_grey: largest difference, in grey levels, between the SDK's answer and the model's own.
      failures: what makes it fail, one sentence each; empty when it passes.
    """

    crops: int = 0
    with_ink: int = 0
    value: float = 0.0
    relative: float = 0.0
    sdk_grey: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped."""
        return not self.failures

    def differences(self) -> list[tuple[str, float, float]]:
        """What is measured, how much it differs, and by how much it may."""
        return [
            ("value, 0..1", self.value, VALUE_LIMIT),
            ("random pixels, relative RMS", self.relative, RELATIVE_LIMIT),
            ("SDK, grey levels", self.sdk_grey, 1),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the limits beside the figures."""
        limits = {"value": VALUE_LIMIT, "relative": RELATIVE_LIMIT, "sdk_grey": 1}
        return {**dataclasses.asdict(self), "passed": self.passed, "limits": limits}

    def text(self) -> str:
        """The report as a table."""
        heading = f"{self.crops} crops compared, {self.with_ink} with ink in the answer"
        return table(heading, self.differences(), self.failures)


def validate_cleaner(
    loaded: LoadedModel,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int = 10,
    seed: int = 0,
) -> Report:
    """Compares a trained cleaner with its ONNX file.

    Args:
      loaded: the trained model.
      onnx_file: what `python -m export onnx` wrote.
      images: RGB crops.
      minimum: fewer crops with ink in the answer fail.
      seed: of the random pixels.

    Raises:
      UserError: no crop, or a file that is no cleaner.
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
    """As `validate_cleaner`, against a SavedModel: ours, or one that another script trained.

    Raises:
      UserError: no crop, or a folder or file that is no cleaner.
    """
    return compare(serve(saved_model), onnx_file, images, minimum, seed)


def compare(
    trained: Trained,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum: int,
    seed: int,
) -> Report:
    """The comparisons of this module's docstring; arguments as in `validate_cleaner`."""
    if not images:
        raise UserError("validate: no crops to compare on; give --pages or --synthetic.")
    try:
        sdk = Cleaner().load(onnx_file)
    except SignVerError as error:
        raise UserError(f"--onnx {error}") from error
    session = onnxruntime.InferenceSession(os.fspath(onnx_file), providers=["CPUExecutionProvider"])
    report = Report(crops=len(images))
    noise = np.random.default_rng(seed).random((1, SIDE, SIDE, 3), np.float32)
    report.relative = relative_difference(session.run(["output"], {"input": noise})[0], trained(noise))
    for image in images:
        square, (top, left, bottom, right) = fit_crop(image)
        pixels = np.asarray(square, np.float32)[np.newaxis] / 255
        expected, found = trained(pixels), session.run(["output"], {"input": pixels})[0]
        report.value = max(report.value, largest_difference(found, expected))
        grey = np.clip(np.rint(expected[0, top:bottom, left:right, 0] * 255), 0, 255)
        report.sdk_grey = max(report.sdk_grey, largest_difference(sdk.clean(image).astype(np.float32), grey))
        report.with_ink += bool((expected < 0.5).mean() >= INK_SHARE)
    _judge(report, minimum)
    return report


def synthetic_crops(count: int, seed: int) -> list[Image.Image]:
    """Noisy crops of synthetic writers."""
    from export import samples

    return [Image.fromarray(noisy).convert("RGB") for noisy, _ in samples.crop_pairs(count, seed)]


def _judge(report: Report, minimum: int) -> None:
    if report.with_ink < minimum:
        report.failures.append(
            f"only {report.with_ink} of {report.crops} answers hold ink, {minimum} are needed: train longer "
            "or give more crops; blank answers are equal whatever the weights."
        )
    report.failures += beyond(report.differences())
