"""How clean is clean: figures on grey levels, computed in numpy, for models and baselines alike.

All images are uint8 [h, w], dark ink on white. PSNR is taken from the mean squared error of all images
together, so an image without a fault makes no infinity.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping

import cv2
import numpy as np

# A pixel is ink from here on down: darker than white paper by a quarter of the range.
INK_LEVEL = 192


@dataclasses.dataclass
class Totals:
    """Sums over images; totals of several ranks add up.

    Attributes:
      images: their number.
      squared: sum over images of the mean squared error, in squared grey levels.
      ssim: sum of the structural similarities.
      precision, recall, f1: sums over images with ink.
      inked: number of those.
    """

    images: int = 0
    squared: float = 0.0
    ssim: float = 0.0
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    inked: int = 0

    def add(self, found: np.ndarray, clean: np.ndarray) -> None:
        """Counts one image against what it should be."""
        self.images += 1
        self.squared += float(np.mean((found.astype(np.float32) - clean) ** 2))
        self.ssim += ssim(found, clean)
        truth, answer = clean < INK_LEVEL, found < INK_LEVEL
        if truth.any():
            both = int((truth & answer).sum())
            precision, recall = both / max(int(answer.sum()), 1), both / int(truth.sum())
            self.inked += 1
            self.precision += precision
            self.recall += recall
            self.f1 += 2 * precision * recall / max(precision + recall, 1e-9)

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Totals)))

    def figures(self) -> dict[str, float]:
        """`psnr` (dB), `rmse` (grey levels), `ssim`, `ink_precision`, `ink_recall`, `ink_f1`."""
        images, inked = max(self.images, 1), max(self.inked, 1)
        mean = self.squared / images
        return {
            "psnr": 10 * math.log10(255**2 / max(mean, 1e-6)),
            "rmse": math.sqrt(mean),
            "ssim": self.ssim / images,
            "ink_precision": self.precision / inked,
            "ink_recall": self.recall / inked,
            "ink_f1": self.f1 / inked,
        }


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity, 11×11 Gaussian window of sigma 1.5, valid area (Wang et al. 2004)."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)

    def smooth(image: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(image, cv2.CV_32F, window, window)[5:-5, 5:-5]

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (var_a + var_b + c2)))


def summarise(totals: Mapping[str, Totals]) -> dict[str, float]:
    """Figures of the noisy pairs, and with the suffix `_untouched` of the crops that were clean."""
    found = dict(totals["noisy"].figures())
    if totals["untouched"].images:
        found |= {f"{name}_untouched": value for name, value in totals["untouched"].figures().items()}
    return found


def measure(answers: Iterable[tuple[np.ndarray, np.ndarray, bool]]) -> dict[str, float]:
    """Figures of (found, clean, untouched) images."""
    totals: dict[str, Totals] = collections.defaultdict(Totals)
    for found, clean, untouched in answers:
        totals["untouched" if untouched else "noisy"].add(found, clean)
    return summarise(totals)
