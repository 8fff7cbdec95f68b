"""Any picture that a caller may hold, as RGB pixels; damaged, oversized and unknown ones are refused."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Mapping
from typing import Any, Union

import numpy as np
from PIL import Image, ImageFile, ImageOps

from signver.errors import SignVerError
from signver.fax import COMPRESSIONS, incomplete

Picture = Union[str, "os.PathLike[str]", bytes, Image.Image, np.ndarray]
# What scanners, telephones and faxes write, by how such a file begins. Pillow reads forty more, some through
# external programs.
FORMATS = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "WEBP": (b"RIFF",),
    "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
}
# A2 at 400 dpi has 62 million pixels; as RGB this many take 400 MB.
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024 * 1024
# Each scan of a progressive JPEG is a pass over all pixels; usual files have ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 1_500_000_000
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262
_STRICT = threading.Lock()


def as_rgb(picture: Picture) -> Image.Image:
    """Opens, turns upright (EXIF) and converts a picture to 8-bit RGB; transparency becomes white.

    Of a file with several pictures, the first. An image that is 8-bit RGB already is returned, not copied.

    Args:
      picture: a path, the bytes of a file, a Pillow image, or uint8 pixels of shape [h, w], [h, w, 1],
        [h, w, 3], [h, w, 4] or the same with a leading 1. What converts to such an array (a TensorFlow
        tensor) is taken too.

    Raises:
      SignVerError: no such file, not an image, damaged, cut short, too large, or an array of another kind.
    """
    if isinstance(picture, Image.Image):
        return decode(picture, "image")
    if isinstance(picture, str | os.PathLike):
        name, data = os.fspath(picture), read_file(picture)
        return decode(open_image(data, name), name, data)
    if isinstance(picture, bytes | bytearray):
        return decode(open_image(bytes(picture), "image"), "image", bytes(picture))
    return _from_array(np.asarray(picture))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The whole of a file.

    Raises:
      SignVerError: no such file, a folder, a device, a pipe, empty, too large or not readable.
    """
    name = os.fspath(path)
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise SignVerError(f"{name}: not a regular file.")
        if not 0 < status.st_size <= MAX_BYTES:
            size = "is empty" if not status.st_size else f"has more than {MAX_BYTES:,} bytes"
            raise SignVerError(f"{name}: the file {size}.")
        with open(name, "rb") as stream:
            return stream.read(status.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, SignVerError):
            raise
        raise SignVerError(f"{name}: cannot read this file ({_reason(error)}).") from error


def open_image(data: bytes, name: str) -> Image.Image:
    """A Pillow image whose header was read and found sane; its pixels are not decoded yet.

    Args:
      data: a file's bytes.
      name: for messages.

    Raises:
      SignVerError: not an image of `FORMATS`, a damaged header or checksum, or too many pixels.
    """
    kind = next((kind for kind, starts in FORMATS.items() if data.startswith(starts)), None)
    if kind is None:
        raise SignVerError(f"{name}: no image of these: {', '.join(FORMATS)}.")
    try:
        image = _open(data, kind)
        check_size(image, name)
        if kind == "PNG":
            # Decoding skips the checksums of the pixel data, and stops where it has enough of them.
            image.verify()
            image = _open(data, kind)
        elif kind == "JPEG":
            scans = _scans(data)
            if scans > _MAX_SCANS or scans * image.width * image.height > _MAX_SCANNED_PIXELS:
                raise SignVerError(f"{name}: {scans} scans of {image.width}x{image.height} pixels.")
    except SignVerError:
        raise
    except Exception as error:  # a damaged header makes Pillow's readers raise anything
        raise SignVerError(f"{name}: cannot read this image ({_reason(error)}).") from error
    return image


def _open(data: bytes, kind: str) -> Image.Image:
    # Pillow loads these two late, and then all forty readers with them.
    if kind == "TIFF":
        from PIL import TiffImagePlugin  # noqa: F401
    elif kind == "WEBP":
        from PIL import WebPImagePlugin  # noqa: F401
    return Image.open(io.BytesIO(data), formats=[kind])


def _scans(data: bytes) -> int:
    """Scans of a JPEG up to its end; telephones append films to their pictures."""
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) is not None:
        # What lies between is the pixels' bits, padding, restarts, or garbage that libjpeg skips too.
        marker, place = data[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        if marker >= 0xC0:  # below that a marker stands alone, or is garbage
            place += int.from_bytes(data[place : place + 2], "big")
    return scans


def check_size(image: Image.Image, name: str) -> None:
    """Refuses what would not fit in memory, before it is decoded.

    Raises:
      SignVerError: more than `MAX_PIXELS`.
    """
    if image.width * image.height > MAX_PIXELS:
        raise SignVerError(f"{name}: {image.width}x{image.height} pixels are more than {MAX_PIXELS:,}.")


def decode(image: Image.Image, name: str, data: bytes = b"") -> Image.Image:
    """The current picture of an opened image, upright, in 8-bit RGB.

    Args:
      image: as `open_image` gave it.
      name: for messages.
      data: the file's bytes, where there is a file.

    Raises:
      SignVerError: damaged, cut short, too large or of a kind that has no grey levels or colours.
    """
    check_size(image, name)
    try:
        _load(image)
        if data and image.info.get("compression") in COMPRESSIONS and incomplete(image, data):
            raise ValueError("rows of this fax are missing")
        # Without an orientation `exif_transpose` would copy the picture.
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return _to_rgb((turned and ImageOps.exif_transpose(image)) or image, getattr(image, "tag_v2", {}))
    except Exception as error:  # as in `open_image`
        raise SignVerError(f"{name}: cannot read this image ({_reason(error)}).") from error


def _load(image: Image.Image) -> None:
    """Decodes the pixels, all of them, even in a program that told Pillow to pad what is missing."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        image.load()
        return
    with _STRICT:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


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


def _to_rgb(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Args: image: upright; tags: of the TIFF that it came from."""
    if image.mode.startswith("I") or image.mode == "F":  # 12-bit, 16-bit and float scans
        grey = _eight_bits(np.asarray(image), 4095 if tags.get(_BITS) == (12,) else 65535)
        # Pillow turns bilevel and 8-bit pictures round where white is zero, but no deeper ones.
        white_is_zero = image.mode.startswith("I") and tags.get(_PHOTOMETRIC) == 0
        return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        alpha = image.convert("RGBA")
        paper = Image.new("RGBA", alpha.size, "white")
        return Image.alpha_composite(paper, alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: np.ndarray, top: int) -> np.ndarray:
    """Grey levels 0..255 or 0..top as uint8; floats hold 0..1, 0..255 or 0..65535."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("a grey level is no number")
        full = next(level for level in (1.0, 255.0, 65535.0, np.inf) if values.max() <= level)
        return np.clip(values * np.float32(255.0 / min(full, 65535.0)), 0, 255).astype(np.uint8)
    values = np.clip(values, 0, top).astype(np.uint32)
    return (values * 255 // top if top < 65535 or values.max() > 255 else values).astype(np.uint8)


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
    return decode(Image.fromarray(pixels), "image array")


def from_floats(pixels: Any) -> np.ndarray:
    """Grey levels 0..1, as SignVer passes them, as uint8; any shape.

    Raises:
      SignVerError: values outside 0..1.
    """
    values = np.asarray(pixels)
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1:
        raise SignVerError("image array: floats must lie in 0..1; divide grey levels by 255.")
    return np.rint(values * 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    """One line of what went wrong; addresses of objects say nothing to a user."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [""])[0] or type(error).__name__
