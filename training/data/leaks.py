"""Trivial cues that may tell genuine from forged without a look at the hand.

Where one of them does well, the two kinds came from different paper, pens, scanners or programs, and whatever
learns from the set may learn that instead. 0.5 tells nothing, 1 everything.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image
from scipy import stats

from training.data import formats

# Cues of the picture, in the order of `picture_cues`.
PICTURE = ("ink grey", "paper grey", "dark share", "aspect")
# From here on a cue is called a leak.
LEAK = 0.75


def picture_cues(grey: np.ndarray) -> tuple[float, float, float, float]:
    """`PICTURE` cues of one signature, uint8 [h, w]."""
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ink = grey <= threshold
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    height, width = (np.ptp(places) + 1 if places.size else 1 for places in (rows, columns))
    return (
        float(grey[ink].mean()) if ink.any() else 0.0,
        float(grey[~ink].mean()) if (~ink).any() else 255.0,
        float(ink.mean()),
        float(width / height),
    )


def separation(cue: Sequence[float] | np.ndarray, forged: Sequence[bool] | np.ndarray) -> float:
    """AUC of a cue for "forged", whichever way it points; 0.5 where a kind is absent."""
    values, labels = np.asarray(cue, np.float64), np.asarray(forged, bool)
    if labels.all() or not labels.any():
        return 0.5
    ranks = stats.mannwhitneyu(values[labels], values[~labels]).statistic
    auc = float(ranks / (labels.sum() * (~labels).sum()))
    return max(auc, 1 - auc)


def of_files(paths: Sequence[pathlib.Path], forged: Sequence[bool]) -> dict[str, float]:
    """AUC of every cue over files as they were published, file mode and size among them.

    A mode is no number; its share of forgeries stands for it. Files that are no images are left out.
    """
    rows, modes, labels = [], [], []
    for path, label in zip(paths, forged, strict=True):
        try:
            with Image.open(path) as image:
                cues = picture_cues(np.asarray(image.convert("L")))
                modes.append(image.mode)
        except formats.UNREADABLE:
            continue
        rows.append((*cues, float(path.stat().st_size)))
        labels.append(label)
    found = {
        name: separation([row[n] for row in rows], labels) for n, name in enumerate((*PICTURE, "file size"))
    }
    shares = {
        mode: float(np.mean([label for other, label in zip(modes, labels, strict=True) if other == mode]))
        for mode in set(modes)
    }
    found["file mode"] = separation([shares[mode] for mode in modes], labels)
    return found


def sentence(found: Mapping[str, float]) -> str:
    """All cues in one line, strongest first."""
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:.2f}" for name, value in ordered)
