"""Any picture that a caller may hold, as RGB pixels."""

from __future__ import annotations

import os
from typing import Union

import numpy as np
from PIL import Image, ImageOps

from signver.errors import SignVerError

Picture = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]
# Pillow's own guard warns at 89 million pixels; an A0 page at 400 dpi has 245 million.
MAX_PIXELS = 250_000_000


def as_rgb(picture: Picture) -> Image.Image:
    """Opens, turns upright (EXIF) and converts a picture to 8-bit RGB; transparency becomes white.

    Args:
      picture: a path, a Pillow image, or uint8 pixels of shape [h, w], [h, w, 1], [h, w, 3], [h, w, 4]
        or the same with a leading 1.

    Raises:
      SignVerError: no such file, not an image, damaged, too large, or an array of another kind.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    name = "image"
    try:
        if isinstance(picture, str | os.PathLike):
            name = os.fspath(picture)
            picture = Image.open(picture)
        if picture.width * picture.height > MAX_PIXELS:
            raise SignVerError(
                f"{name}: {picture.width}x{picture.height} pixels are more than {MAX_PIXELS:,}."
            )
        picture.load()
        upright = ImageOps.exif_transpose(picture) or picture
    except SignVerError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SignVerError(f"{name}: cannot read this image ({error}).") from error
    if upright.mode.startswith("I") or upright.mode == "F":  # 16-bit and float scans
        values = np.asarray(upright, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
    if "A" in upright.getbands() or "transparency" in upright.info:
        alpha = upright.convert("RGBA")
        paper = Image.new("RGBA", alpha.size, "white")
        return Image.alpha_composite(paper, alpha).convert("RGB")
    return upright.convert("RGB")


def reduce_page(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Averages whole blocks of pixels of a page far larger than the model looks at.

    The model's own resize takes four neighbours; from far above it would skip thin strokes.

    Args:
      image: the page.
      size: height and width of the model's input, in pixels.

    Returns:
      The page with n x n pixels made one, n = floor(max(height / size[0], width / size[1]) / 2); the
      page itself where n is under 2.
    """
    factor = int(max(image.height / size[0], image.width / size[1]) / 2)
    return image.reduce(factor) if factor >= 2 else image


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8:
        raise SignVerError(f"image array: expected uint8 pixels 0..255, found {pixels.dtype}.")
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise SignVerError(
            f"image array: expected [height, width] or [height, width, 3], found {list(pixels.shape)}."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise SignVerError(f"image array: {pixels.shape} is more than {MAX_PIXELS:,} pixels.")
    return as_rgb(Image.fromarray(pixels))
