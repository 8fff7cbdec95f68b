"""Rows that a fax lacks are noticed, whatever the memory held before; whole faxes pass."""

import io

import numpy as np
import pytest
from conftest import page_with, signature
from PIL import Image

from signver import SignVerError
from signver.documents import document_pages
from signver.fax import incomplete
from signver.images import as_rgb


def fax(compression, rows=None, pages=1):
    page = page_with(signature(0), size=(430, 301), place=(10, 100)).convert("1")
    stream = io.BytesIO()
    options = {"tiffinfo": {278: rows}} if rows else {}
    more = {"save_all": True, "append_images": [page] * (pages - 1)} if pages > 1 else {}
    page.save(stream, "TIFF", compression=compression, **options, **more)
    return stream.getvalue(), np.asarray(page.convert("L"))


@pytest.mark.parametrize("rows", [None, 301, 64, 7, 1])
@pytest.mark.parametrize("compression", ["group4", "group3", "tiff_ccitt"])
def test_whole_faxes_are_read(compression, rows):
    data, expected = fax(compression, rows)
    assert not incomplete(Image.open(io.BytesIO(data)), data)
    np.testing.assert_array_equal(np.asarray(as_rgb(data))[..., 0], expected)


def test_every_page_of_a_fax_is_looked_at():
    data, expected = fax("group4", pages=3)
    pages = [np.asarray(page)[..., 0] for page in document_pages(data)]
    assert len(pages) == 3
    for page in pages:
        np.testing.assert_array_equal(page, expected)


def test_bits_in_the_other_order_are_read():
    page = page_with(signature(0), size=(430, 301), place=(10, 100)).convert("1")
    stream = io.BytesIO()
    page.save(stream, "TIFF", compression="group4", tiffinfo={266: 2})
    assert Image.open(io.BytesIO(stream.getvalue())).tag_v2[266] == 2
    np.testing.assert_array_equal(
        np.asarray(as_rgb(stream.getvalue()))[..., 0], np.asarray(page.convert("L"))
    )


# The last two or three rows of a strip can be lost unseen, see `incomplete`.
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(("compression", "rows"), [("group4", None), ("group4", 64), ("group3", None)])
def test_missing_rows_are_noticed(compression, rows, share):
    data, _ = fax(compression, rows)
    image = Image.open(io.BytesIO(data))
    size, at = max(zip(image.tag_v2[279], image.tag_v2[273], strict=True))
    # The end-of-block mark, then nothing: a strip that says that it is done.
    keep = max(2, int(size * share))
    ended = data[at : at + keep] + b"\x00\x10\x01" * 2
    ended = (ended + bytes(size))[:size]
    damaged = data[:at] + ended + data[at + size :]
    with pytest.raises(SignVerError, match=r"rows of this fax are missing|cannot read this image"):
        as_rgb(damaged)
