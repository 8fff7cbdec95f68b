"""What a scanner, a copier and an export do to a page; geometry moves the ink's points along."""

from __future__ import annotations

import cv2
import numpy as np


def skew(
    page: np.ndarray, points: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rotates by up to about two degrees and shifts a little.

    Args:
      page: uint8 [h, w, 3].
      points: for each object, float [n, 2] x, y in pixels.
    """
    height, width = page.shape[:2]
    angle = float(np.clip(rng.normal(0, 0.7), -2.5, 2.5))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix[:, 2] += rng.normal(0, 0.006, 2) * (width, height)
    border = int(rng.choice([255, 255, 255, 0]))
    turned = cv2.warpAffine(
        page,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(border,) * 3,
    )
    return turned, [moved @ matrix[:, :2].T + matrix[:, 2] for moved in points]


def edges(page: np.ndarray, rng: np.random.Generator) -> None:
    """Black copier edges, punched holes and staple marks, in place."""
    height, width = page.shape[:2]
    for side in range(4):
        if rng.random() < 0.18:
            depth = int(rng.uniform(0.004, 0.03) * (width if side % 2 else height))
            profile = np.clip(
                depth + np.cumsum(rng.normal(0, 0.25, max(height, width))), 0, 3 * depth
            ).astype(int)
            _darken_side(page, side, profile)
    if rng.random() < 0.25:
        x, radius = width * float(rng.choice([0.03, 0.06, 0.97])), int(rng.uniform(0.006, 0.012) * height)
        spots = [(x, y * height) for y in (0.14, 0.5, 0.86)[: int(rng.integers(2, 4))]]
        if rng.random() < 0.3:  # two holes at the top
            spots = [(0.36 * width, 0.025 * height), (0.66 * width, 0.025 * height)]
        shade = int(rng.choice([25, 25, 190]))
        for centre in spots:
            jittered = tuple(int(value + rng.normal(0, 2)) for value in centre)
            cv2.circle(page, jittered, radius, (shade,) * 3, -1, cv2.LINE_AA)


def _darken_side(page: np.ndarray, side: int, profile: np.ndarray) -> None:
    height, width = page.shape[:2]
    across = np.arange(width if side % 2 else height)
    along = profile[: height if side % 2 else width]
    mask = across[None] < along[:, None] if side % 2 else across[:, None] < along[None]
    if side == 2:
        mask = mask[::-1]
    if side == 3:
        mask = mask[:, ::-1]
    page[mask] = 15


def speckle(page: np.ndarray, rng: np.random.Generator) -> None:
    """Dust and toner: dark dots of one to three pixels, in place."""
    height, width = page.shape[:2]
    count = int(np.exp(rng.uniform(0, 6.5)))
    ys, xs = rng.integers(0, height - 3, count), rng.integers(0, width - 3, count)
    sizes = rng.choice([1, 1, 1, 2, 3], count)
    for y, x, size in zip(ys, xs, sizes, strict=True):
        page[y : y + size, x : x + size] = rng.integers(0, 120)


def light(page: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light and paper grain: a smooth gain over the page, plus noise."""
    height, width = page.shape[:2]
    field = rng.normal(0, 1, (4, 3)).astype(np.float32)
    gain = 1 - rng.uniform(0, 0.12) * np.abs(
        cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    )
    paper = rng.uniform(0.85, 1.0)
    grain = rng.normal(0, rng.uniform(0, 5), (height, width)).astype(np.float32)
    return np.clip(page * (gain * paper)[..., None] + grain[..., None], 0, 255).astype(np.uint8)


def bilevel(page: np.ndarray, rng: np.random.Generator, faintest: float = 1.0) -> np.ndarray:
    """A black-and-white fax or archive scan, made at 150 to 240 dots an inch and reduced again.

    Noise before the threshold breaks thin strokes and roughens edges, as old scanners do. The level suits
    the paper, and keeps ink that hides a share `faintest` of it: a box must not mark what is gone.
    """
    height, width = page.shape[:2]
    factor = rng.uniform(1650, 2600) / max(height, width)
    grey = cv2.cvtColor(page, cv2.COLOR_RGB2GRAY)
    large = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    noise = np.empty(large.shape, np.int8)
    cv2.setRNGSeed(int(rng.integers(1 << 31)))
    cv2.randn(noise, 0, float(rng.uniform(2, 22)))
    shaken = cv2.add(large, noise, dtype=cv2.CV_16S)
    paper = float(np.percentile(grey[::7, ::7], 80))
    level = max(paper / 255 * rng.uniform(90, 200), paper * (1 - 0.6 * faintest))
    black = np.where(shaken > level, 255, 0).astype(np.uint8)
    reduced = cv2.resize(black, (width, height), interpolation=cv2.INTER_AREA)
    return np.repeat(reduced[..., None], 3, axis=2)


def dither(page: np.ndarray, rng: np.random.Generator) -> None:
    """Black grains in clouds or along the edges, where a threshold met grey paper; in place."""
    height, width = page.shape[:2]
    field = rng.normal(0, 1, (int(rng.integers(2, 9)), int(rng.integers(2, 9)))).astype(np.float32)
    density = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:  # the middle of the page stays readable
        across = np.abs(np.linspace(-1, 1, width, dtype=np.float32))
        density = density + 2.5 * across[None] - 1.5
    share = np.clip(density * rng.uniform(0.05, 0.2), 0, rng.uniform(0.1, 0.35)).astype(np.float32)
    # Grains of one or two pixels of the scan.
    coarse = rng.random((height * 2 // 3, width * 2 // 3), dtype=np.float32)
    grains = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    page[grains < share] = 0


def show_through(page: np.ndarray, rng: np.random.Generator) -> None:
    """The sheet's other side, mirrored and faint, in place: another text shines through thin paper."""
    mirrored = np.roll(page[:, ::-1], rng.integers(-80, 80, 2), axis=(0, 1))
    faint = 255 - (255 - mirrored.astype(np.float32)) * rng.uniform(0.1, 0.45)
    np.minimum(page, faint.astype(np.uint8), out=page)


def mount(
    page: np.ndarray, points: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The sheet on a larger scanner bed or copied onto a larger sheet: smaller, shifted, turned, edged.

    Args as `skew`.
    """
    height, width = page.shape[:2]
    scale = rng.uniform(0.62, 0.97)
    turn = float(rng.normal(0, 1.2) if rng.random() < 0.85 else rng.normal(0, 7))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
    matrix[:, 2] += rng.uniform(-0.5, 0.5, 2) * (1 - scale) * (width, height)
    matrix[0] *= rng.uniform(0.85, 1.0)  # sheets of another shape
    bed = int(rng.choice([0, 0, 20, 255, 255]))
    if bed == 255 or rng.random() < 0.3:
        edge = [int(value) for value in rng.integers(1, 5, 4)]
        page[: edge[0]], page[-edge[1] :] = 30, 30
        page[:, : edge[2]], page[:, -edge[3] :] = 30, 30
    moved = cv2.warpAffine(
        *(page, matrix, (width, height)),
        flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(bed,) * 3,
    )
    return moved, [corners @ matrix[:, :2].T + matrix[:, 2] for corners in points]


def blur(page: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lens or a resampling out of focus."""
    return cv2.GaussianBlur(page, (0, 0), float(rng.uniform(0.3, 0.9)))
