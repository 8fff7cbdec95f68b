"""Damaged pictures and decompression bombs: an error or a defined answer; no crash, no hang, no wrong answer.

"No wrong answer" means here, for a file that still gives one:
- cut short: nothing but bytes behind the last pixel are missing, the answer is the whole file's;
- changed in a format with checksums (PNG): the answer is the undamaged file's;
- changed in another format: the answer is that of the pixels that the file holds, all of them.
"""

import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import page_with, signature, write_cleaner, write_detector, write_extractor
from PIL import Image, ImageFile

from signver import MetricExtractor, Pipeline, SignVerError
from signver.images import MAX_PIXELS, as_rgb

SEED, COUNT = 20261125, 200
# Of the processor, for a file; and by the clock, where others want the processor too.
SECONDS, PATIENCE = 5, 60
FORMATS = {
    "rgb.png": ("RGB", {}),
    "palette.png": ("P", {}),
    "bilevel.png": ("1", {}),
    "baseline.jpg": ("RGB", {"quality": 90}),
    "progressive.jpg": ("L", {"progressive": True}),
    "plain.tif": ("L", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "fax.tif": ("1", {"compression": "group4"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "plain.bmp": ("RGB", {}),
    "palette.gif": ("P", {}),
    "lossy.webp": ("RGB", {}),
    "lossless.webp": ("RGB", {"lossless": True}),
    "plain.ppm": ("RGB", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The models of the child, and the references that it enrolls."""
    models = tmp_path_factory.mktemp("hostile")
    write_detector(models / "detector.onnx")
    write_cleaner(models / "cleaner.onnx")
    write_extractor(models / "extractor.onnx")
    for number in range(2):
        signature(0, number).save(models / f"reference{number}.png")
    return models


def answers(folder, files, megabytes):
    """What the child says of each file; its end by a signal or by the clock fails the test."""
    script = pathlib.Path(__file__).with_name("hostile.py")
    command = [sys.executable, "-W", "ignore", str(script), str(folder), str(files)]
    done = subprocess.run(
        [*command, str(PATIENCE), str(megabytes)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {len(lines)} files: {done.stderr[-3000:]}"
    return {line["file"]: line for line in lines}


def whole_files():
    page = page_with(signature(0, 3), size=(420, 300), place=(10, 150))
    for name, (mode, options) in FORMATS.items():
        stream = io.BytesIO()
        page.convert(mode).save(
            stream, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name[-4:].strip(".")), **options
        )
        yield name, stream.getvalue()


def damaged(data, rng):
    """The kind of damage, and the bytes."""
    kind = ("cut", "flipped", "header", "blanked", "shortened", "repeated")[rng.integers(6)]
    content = bytearray(data)
    place = int(rng.integers(1, len(content)))
    if kind == "cut":
        del content[place:]
    elif kind == "flipped":
        for at in rng.integers(0, len(content), int(rng.integers(1, 20))):
            content[at] ^= 1 << int(rng.integers(8))
    elif kind == "header":
        start = int(rng.integers(4, 60))
        content[start : start + 4] = rng.bytes(4)
    elif kind == "blanked":
        end = min(len(content), place + int(rng.integers(1, 400)))
        content[place:end] = bytes([int(rng.choice([0, 255]))]) * (end - place)
    elif kind == "shortened":
        del content[place : place + int(rng.integers(1, 200))]
    else:
        content[place:place] = content[max(0, place - int(rng.integers(1, 200))) : place]
    return kind, bytes(content)


def test_200_damaged_pictures(folder, tmp_path):
    rng = np.random.default_rng(SEED)
    wholes = dict(whole_files())
    for name, data in wholes.items():
        (tmp_path / f"whole-{name}").write_bytes(data)
    kinds = {}
    for number in range(COUNT):
        name = list(wholes)[number % len(wholes)]
        kind, data = damaged(wholes[name], rng)
        # A file that came out as it was is no damaged one.
        assert data != wholes[name]
        file = f"{number:03d}-{kind}-{name}"
        (tmp_path / file).write_bytes(data)
        kinds[file] = kind, name
    found = answers(folder, tmp_path, megabytes=700)
    assert len(found) == COUNT + len(wholes)
    refused = 0
    for file, (kind, name) in kinds.items():
        line = found[file]
        for question in ("annotate", "verify"):
            said, whole = line[question], found[f"whole-{name}"][question]
            assert "answer" in whole
            if "error" in said:
                refused += 1
                assert file in said["error"], said
                assert "\n" not in said["error"]
            elif kind == "cut" or name.endswith(".png"):
                assert said == whole, f"{file}: an answer, and another one than the whole file's"
        assert line["seconds"] < SECONDS
    # The mutator damages: most files are refused, and not all.
    assert COUNT * 2 * 0.4 < refused < COUNT * 2


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, pixels=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def packed_zeros(megabytes):
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


def saved(kind, size=(64, 64), **options):
    stream = io.BytesIO()
    Image.new("L", size, 255).save(stream, kind, **options)
    return stream.getvalue()


def tiff_of(width, height):
    data = bytearray(saved("TIFF", compression="tiff_deflate"))
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, len(data) - 12, 12):
        tag = int.from_bytes(data[entry : entry + 2], "little")
        if tag in (256, 257, 278):
            data[entry + 2 : entry + 4] = (4).to_bytes(2, "little")
            data[entry + 8 : entry + 12] = (width if tag == 256 else height).to_bytes(4, "little")
    return bytes(data)


def endless_tiff(count):
    """One picture that a list of directories names again and again."""
    data = bytearray(saved("TIFF"))
    start = int.from_bytes(data[4:8], "little")
    size = 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    directory = bytes(data[start : start + size])
    at = len(data)
    data[start + size : start + size + 4] = at.to_bytes(4, "little")
    for _ in range(count):
        at += size + 4
        data += directory + at.to_bytes(4, "little")
    return bytes(data)


def many_scans(count, between=b""):
    """A progressive JPEG that repeats its last scan, with bytes between that decoders skip."""
    data = saved("JPEG", (4000, 4000), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + (between + data[last:-2]) * count + data[-2:]


def bombs():
    rows = packed_zeros(300)
    yield "bilevel.png", png(50_000, 50_000, pixels=rows)
    yield "endless.png", png(2**31 - 1, 2**31 - 1, pixels=rows[:1000])
    yield "just_more.png", png(10_000, MAX_PIXELS // 10_000 + 1, pixels=rows[:1000])
    yield "profile.png", png(8, 8, chunk(b"iCCP", b"bomb\0\0" + rows), pixels=zlib.compress(bytes(16)))
    yield "text.png", png(8, 8, chunk(b"zTXt", b"bomb\0\0" + rows), pixels=zlib.compress(bytes(16)))
    yield (
        "international.png",
        png(8, 8, chunk(b"iTXt", b"bomb\0\1\0\0\0" + rows), pixels=zlib.compress(bytes(16))),
    )
    # Many small texts, each under Pillow's limit for one.
    text = chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(1_000_000)))
    yield "texts.png", png(8, 8, *[text] * 300, pixels=zlib.compress(bytes(16)))
    yield "huge.tif", tiff_of(200_000, 200_000)
    yield "long.tif", endless_tiff(5000)
    yield "huge.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + saved("GIF")[10:]
    yield "huge.bmp", saved("BMP")[:18] + struct.pack("<ii", 100_000, 100_000) + saved("BMP")[26:]
    canvas = (16_383).to_bytes(3, "little") * 2
    webp = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas + saved("WEBP")[12:]
    yield "huge.webp", b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp
    jpeg = saved("JPEG")
    frame = jpeg.index(b"\xff\xc0")
    yield "huge.jpg", jpeg[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 9 :]
    yield "scans.jpg", many_scans(3000)
    yield "scans_between.jpg", many_scans(3000, between=b"garbage\xff\xff\xd0\xff\x01")
    yield "scans_hidden.jpg", many_scans(3000, between=b"\xff\x02\xff\xff")
    yield "huge.ppm", b"P6 99999 99999 255\n" + bytes(1000)


def test_bombs_are_refused_before_they_unfold(folder, tmp_path):
    names = set()
    for name, data in bombs():
        assert len(data) < 3_000_000, name
        (tmp_path / name).write_bytes(data)
        names.add(name)
    found = answers(folder, tmp_path, megabytes=300)
    assert set(found) == names
    peak = min(line["peak"] for line in found.values())
    for name, line in found.items():
        assert "error" in line["annotate"], name
        assert "error" in line["verify"], name
        assert line["seconds"] < SECONDS, name
        # 300 MB of zeros were not unpacked.
        assert line["peak"] - peak < 150 * 2**20, name


def ink(mode="L"):
    return signature(0, 3).convert(mode)


class TestBadSignatures:
    """Each picture that issue 5 names, to the end of the pipeline: an error that says why, or numbers."""

    @pytest.fixture
    def extractor(self, models):
        return MetricExtractor(1).load(models.extractor)

    @pytest.mark.parametrize(
        ("pixels", "words"),
        [
            (np.zeros((0, 0), np.uint8), "image array"),
            (np.zeros((0, 40), np.uint8), "image array"),
            (np.full((80, 200), 0, np.uint8), "no signature"),
            (np.full((80, 200), 255, np.uint8), "no signature"),
            (np.full((80, 200), 128, np.uint8), "no signature"),
            (np.full((1, 1), 0, np.uint8), "no signature"),
            (np.eye(1, 80 * 200, 777, np.uint8).reshape(80, 200) * 255, "no signature"),
            (255 - np.eye(1, 80 * 200, 777, np.uint8).reshape(80, 200) * 255, "no signature"),
        ],
        ids=["empty", "no_rows", "black", "white", "grey", "a_pixel", "a_light_pixel", "a_dark_pixel"],
    )
    def test_no_ink_is_said(self, extractor, models, pixels, words):
        with pytest.raises(SignVerError, match=words):
            extractor.extract(pixels)
        from signver import Cleaner

        pipeline = Pipeline(cleaner=Cleaner(1).load(models.cleaner), extractor=extractor)
        with pytest.raises(SignVerError, match=words):
            pipeline.enroll("ada", pixels)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK", "P", "1", "I", "I;16", "F", "YCbCr"])
    def test_every_mode_gives_the_same_hand(self, extractor, mode):
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(ink()).astype(np.uint16) * 257)
        elif mode == "1":
            picture = ink().point(lambda value: 255 * (value > 160)).convert("1")
        else:
            picture = ink(mode)
        found = extractor.extract(picture)
        assert np.isfinite(found).all()
        assert found @ extractor.extract(ink()) > 0.95

    def test_20_000_pixels_wide(self, extractor):
        wide = ink().resize((20_000, 3_000))
        found = extractor.extract(wide)
        assert found @ extractor.extract(ink().resize((1_000, 150))) > 0.98
        line = Image.new("L", (20_000, 60), 255)
        line.paste(0, (10, 20, 19_990, 40))
        assert np.isfinite(extractor.extract(line)).all()

    def test_floats_that_are_no_numbers(self, extractor):
        values = np.asarray(ink(), np.float32)
        values[3, 3] = np.nan
        with pytest.raises(SignVerError, match="no number"):
            as_rgb(Image.fromarray(values))
        with pytest.raises(SignVerError, match=r"0\.\.1"):
            extractor.extract(np.dstack([values] * 3) / 255)


def test_a_program_that_pads_cut_pictures_changes_nothing(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = dict(whole_files())["baseline.jpg"]
    assert as_rgb(data).size == (420, 300)
    with pytest.raises(SignVerError, match="truncated"):
        as_rgb(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "empty", "missing", "zero byte"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "picture.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = pathlib.Path("/dev/zero")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zero byte":
        path = f"{tmp_path}/a\0b.png"
    with pytest.raises(SignVerError, match=r"picture|/dev/zero|a\x00b"):
        as_rgb(path)


def test_formats_that_run_programs_are_not_opened(tmp_path):
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(SignVerError, match="no image of these: PNG, JPEG"):
        as_rgb(tmp_path / "page.eps")
