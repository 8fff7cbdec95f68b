"""Pages of TIFF and PDF documents; damaged, encrypted and endless ones are refused."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from signver import SignVerError
from signver.documents import document_pages


def sheet(number, size=(200, 300)):
    page = Image.new("RGB", size, "white")
    ImageDraw.Draw(page).rectangle([10, 10 + 20 * number, 60, 25 + 20 * number], fill="black")
    return page


def saved(kind, count=3, **options):
    stream = io.BytesIO()
    sheets = [sheet(number) for number in range(count)]
    sheets[0].save(stream, kind, save_all=True, append_images=sheets[1:], **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}])
def test_a_tiff_gives_all_its_pages_or_an_error(options):
    data = saved("TIFF", **options)
    expected = [np.asarray(sheet(number)) for number in range(3)]
    ends = {*range(8, len(data), max(1, len(data) // 60)), *(end - 4 for end in directory_ends(data))}
    refused = 0
    for end in [*ends, len(data)]:
        try:
            pages = list(document_pages(data[:end]))
        except SignVerError:
            refused += 1
        else:
            # What is missing then is padding behind the last page.
            assert end > len(data) - 64
            for page, one in zip(pages, expected, strict=True):
                np.testing.assert_array_equal(np.asarray(page), one)
    assert len(ends) - 4 <= refused < len(ends) + 1


def directory_ends(data):
    """Where each directory of a small TIFF ends, its pointer to the next one included."""
    at = int.from_bytes(data[4:8], "little")
    while at:
        end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little") + 4
        yield end
        at = int.from_bytes(data[end - 4 : end], "little")


def test_a_tiff_that_runs_in_circles_is_refused():
    data = bytearray(saved("TIFF", 2))
    *_, last = directory_ends(data)
    data[last - 4 : last] = data[4:8]
    with pytest.raises(SignVerError, match="damaged after 2"):
        list(document_pages(bytes(data)))


def test_pictures_of_one_page_are_one_page():
    assert len(list(document_pages(sheet(0)))) == 1
    assert len(list(document_pages(np.asarray(sheet(0))))) == 1
    assert len(list(document_pages(saved("GIF")))) == 1
    assert [page.size for page in document_pages(saved("WEBP"))] == [(200, 300)]


class TestPdf:
    @pytest.fixture(autouse=True)
    def _library(self):
        pytest.importorskip("pypdfium2", reason="pip install 'signver-harness[pdf]'")

    def test_pages_are_drawn_at_200_dots_an_inch(self):
        pages = list(document_pages(saved("PDF", resolution=100.0)))
        assert [page.size for page in pages] == [(400, 600)] * 3
        for number, page in enumerate(pages):
            pixels = np.asarray(page)
            assert pixels[2 * (17 + 20 * number), 2 * 30].max() < 40
            assert pixels[2 * (17 + 20 * ((number + 1) % 3)), 2 * 30].min() > 215

    def test_too_many_pages_are_refused_before_any_is_drawn(self):
        with pytest.raises(SignVerError, match="3 pages; expected 1 to 2"):
            next(document_pages(saved("PDF"), max_pages=2))

    def test_what_is_filled_into_a_form_is_drawn(self):
        draw = "0 0 80 40 re f"
        form = f"<< /Type /XObject /Subtype /Form /BBox [0 0 80 40] /Length {len(draw)} >>"
        form += f"\nstream\n{draw}\nendstream"
        field = (
            "<< /Type /Annot /Subtype /Widget /FT /Sig /T (Signature1) /F 4 /Rect [10 20 90 60] /P 3 0 R "
            "/AP << /N 5 0 R >> >>"
        )
        data = minimal_pdf(
            "/MediaBox [0 0 100 100] /Annots [4 0 R]", field, form, catalog="/AcroForm << /Fields [4 0 R] >>"
        )
        (page,) = document_pages(data)
        dark = np.argwhere(np.asarray(page.convert("L")) < 128) / page.width * 100
        np.testing.assert_allclose([dark.min(axis=0), dark.max(axis=0)], [[40, 10], [80, 90]], atol=1)

    def test_a_page_of_a_square_mile_is_drawn_small(self):
        data = minimal_pdf("/MediaBox [0 0 4000000 5000000]")
        (page,) = document_pages(data)
        assert page.width * page.height <= 25_100_000
        assert page.height > page.width

    @pytest.mark.parametrize("box", ["[0 0 100000000 0.001]", "[0 0 0 0]", "[0 0 nan 5]"])
    def test_a_page_without_a_sensible_size_is_refused_or_drawn_as_paper(self, box):
        try:
            (page,) = document_pages(minimal_pdf(f"/MediaBox {box}"))
        except SignVerError:
            return
        # PDFium takes a sheet of US Letter where a size makes no sense.
        assert 0 < page.width * page.height <= 25_100_000

    def test_an_encrypted_document_is_said_to_be(self):
        encrypted = minimal_pdf("/MediaBox [0 0 100 100]", trailer=ENCRYPTED)
        with pytest.raises(SignVerError, match="encrypted; save it without a password"):
            list(document_pages(encrypted))

    def test_cut_and_damaged_documents_are_refused_or_whole(self):
        data = saved("PDF")
        refused = 0
        for end in range(8, len(data), max(1, len(data) // 60)):
            try:
                # PDFium finds the pages of a file whose table of contents alone is lost.
                assert len(list(document_pages(data[:end]))) == 3
            except SignVerError:
                refused += 1
        assert refused > 40
        with pytest.raises(SignVerError, match="cannot read this PDF"):
            list(document_pages(b"%PDF-1.7 and nothing else"))

    def test_without_the_library_it_says_what_to_install(self, monkeypatch):
        original = builtins.__import__

        def missing(name, *arguments, **options):
            if name == "pypdfium2":
                raise ImportError(name)
            return original(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(SignVerError, match=r"pip install 'signver-harness\[pdf\]'"):
            list(document_pages(saved("PDF")))


ENCRYPTED = (
    "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + "61" * 32 + "> /U <" + "62" * 32 + "> >> "
    "/ID [<" + "63" * 16 + "> <" + "63" * 16 + ">]"
)


def minimal_pdf(page, *more, trailer="", catalog=""):
    """A document of one page; more objects count from 4."""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R {page} >>",
        *more,
    ]
    text, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    text += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    text += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    text += f"startxref\n{text.index('xref')}\n%%EOF\n"
    return text.encode()
