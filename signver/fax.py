"""Faxes (TIFF, CCITT) whose rows are not all there.

libtiff takes a strip that ends early for read, says so on standard error at most, and leaves the missing rows
as the memory was: the pixels would be of whatever was there before, and differ from one reading to the next.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

# TIFF's number of the compression, and Pillow's name.
_NAMES = {2: "tiff_ccitt", 3: "group3", 4: "group4"}
COMPRESSIONS = frozenset({*_NAMES.values(), "tiff_raw_16"})
_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER = 256, 257, 259, 266
_OFFSETS, _ROWS, _COUNTS, _T4_OPTIONS, _TILE = 273, 278, 279, 292, 322
_TWO_DIMENSIONAL = 1
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def incomplete(image: Image.Image, data: bytes) -> bool:
    """Whether rows of the current page are missing.

    Each strip is decoded behind one that is all white and once more behind one that is all black, into the
    same memory: what differs was never written. Where libtiff meets a bad code word within the last two or
    three rows of a strip it fills them itself, and nothing shows.

    Args:
      image: an opened TIFF of one of `COMPRESSIONS`, at the page in question.
      data: its file's bytes.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    compression = tags.get(_COMPRESSION)
    options = tags.get(_T4_OPTIONS, 0) if compression == 3 else 0
    if compression not in _NAMES or _TILE in tags or options & _TWO_DIMENSIONAL:
        return _decoded(data, image.tell()) != _decoded(data, image.tell())
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    rows = min(int(tags.get(_ROWS, height)), height)
    strips = [data[at : at + size] for at, size in zip(tags[_OFFSETS], tags[_COUNTS], strict=True)]
    if len(strips) != -(-height // rows):
        return True
    if tags.get(_FILL_ORDER, 1) == 2:
        strips = [strip.translate(_REVERSED) for strip in strips]
    total = (2 * len(strips) - 1) * rows + height - (len(strips) - 1) * rows
    seen = []
    for color in (0, 1):
        before = _plain_strip(width, rows, color, _NAMES[compression])
        parts = [part for strip in strips for part in (before, strip)]
        with Image.open(io.BytesIO(_tiff(width, total, rows, compression, options, parts))) as together:
            seen.append(np.asarray(together))
    starts = range(rows, total, 2 * rows)
    return any((seen[0][at : at + rows] != seen[1][at : at + rows]).any() for at in starts)


def _decoded(data: bytes, page: int) -> bytes:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.seek(page)
        return image.tobytes()


def _plain_strip(width: int, rows: int, color: int, compression: str) -> bytes:
    stream = io.BytesIO()
    plain = Image.new("1", (width, rows), color)
    plain.save(stream, "TIFF", compression=compression, tiffinfo={_ROWS: rows})
    with Image.open(io.BytesIO(stream.getvalue())) as saved:
        tags = saved.tag_v2
        assert len(tags[_OFFSETS]) == 1
        return stream.getvalue()[tags[_OFFSETS][0] :][: tags[_COUNTS][0]]


def _tiff(width: int, height: int, rows: int, compression: int, options: int, strips: list[bytes]) -> bytes:
    """A bilevel TIFF of these strips. Source: TIFF 6.0, section 2 and 11."""
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    tables = [struct.pack(f"<{len(strips)}I", *values) for values in (offsets, map(len, strips))]
    # One value stands in the entry itself.
    places = [8 + len(body), 8 + len(body) + len(tables[0])]
    values = [struct.unpack("<I", table)[0] for table in tables] if len(strips) == 1 else places
    entries = [(_WIDTH, 1, width), (_HEIGHT, 1, height), (258, 1, 1), (_COMPRESSION, 1, compression)]
    entries += [(262, 1, 0), (_OFFSETS, len(strips), values[0]), (277, 1, 1), (_ROWS, 1, rows)]
    entries += [(_COUNTS, len(strips), values[1])]
    entries += [(_T4_OPTIONS, 1, options)] if compression == 3 else []
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    start = 8 + len(body) + sum(map(len, tables))
    return struct.pack("<2sHI", b"II", 42, start) + body + b"".join(tables) + directory + bytes(4)
