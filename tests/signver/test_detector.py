"""The SDK takes any picture, and says what it cannot take; it needs no TensorFlow."""

import io
import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from signver import Detector, SignVerError
from signver.images import as_rgb, reduce_page


def test_importing_the_sdk_imports_no_framework():
    code = (
        "import sys, signver; "
        "heavy = ('tensorflow', 'training', 'export', 'onnx', 'cv2', 'matplotlib'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16", "LA"])
def test_every_mode_becomes_rgb_with_white_behind(tmp_path, mode):
    image = Image.new("L", (30, 20), 255)
    image.paste(0, (5, 5, 10, 10))
    if mode == "I;16":
        image = Image.fromarray((np.asarray(image).astype(np.uint16)) * 257)
    elif mode in ("RGBA", "LA"):
        alpha = image.point(lambda value: 255 - value)
        image = Image.merge(mode, [Image.new("L", (30, 20), 0)] * (len(mode) - 1) + [alpha])
    else:
        image = image.convert(mode)
    image.save(tmp_path / "page.tif")
    pixels = np.asarray(as_rgb(tmp_path / "page.tif"))
    assert pixels.shape == (20, 30, 3)
    assert pixels[0, 0].min() > 240
    assert pixels[7, 7].max() < 40


@pytest.mark.parametrize("most", [1, 255, 65535])
def test_float_scans_are_read_by_their_range(tmp_path, most):
    values = np.full((20, 30), most, np.float32)
    values[5:10, 5:10] = 0
    values[15:, :] = 0.5 * most
    for picture in (Image.fromarray(values), tmp_path / "page.tif"):
        if isinstance(picture, Image.Image):
            picture.save(tmp_path / "page.tif")
        pixels = np.asarray(as_rgb(picture))[..., 0].astype(int)
        assert (pixels[0, 0], pixels[7, 7]) == (255, 0)
        assert abs(pixels[17, 3] - 127) <= 1


@pytest.mark.parametrize(("bits", "white_is_zero"), [(12, False), (16, False), (16, True)])
def test_deep_tiffs_are_read_by_their_tags(bits, white_is_zero):
    top = 2**bits - 1
    values = np.full((20, 30), top)
    values[5:10, 5:10] = 0
    values[15:, :] = top // 2
    data = deep_tiff(top - values if white_is_zero else values, bits, 0 if white_is_zero else 1)
    pixels = np.asarray(as_rgb(data))[..., 0].astype(int)
    assert (pixels[0, 0], pixels[7, 7]) == (255, 0)
    assert abs(pixels[17, 3] - 127) <= 1


def deep_tiff(values, bits, photometric):
    """An uncompressed grey TIFF of 12 or 16 bits a pixel, in one strip."""
    if bits == 16:
        strip = values.astype("<u2").tobytes()
    else:
        first, second = values.reshape(-1, 2).T
        strip = (
            np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
            .astype(np.uint8)
            .tobytes()
        )
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(strip))
    return head + strip + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_film_behind_a_photo_does_not_matter(options):
    stream = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    Image.fromarray(grey).save(stream, "JPEG", **options)
    film = np.random.default_rng(1).bytes(12_000_000)
    assert film.count(b"\xff\xda") > 100
    found = as_rgb(stream.getvalue() + film)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(as_rgb(stream.getvalue())))


def test_arrays_and_turned_photos(tmp_path):
    grey = np.arange(600, dtype=np.uint8).reshape(20, 30)
    for array in (
        grey,
        grey[..., None],
        np.repeat(grey[..., None], 3, 2),
        np.repeat(grey[None, ..., None], 3, 3),
    ):
        assert np.array_equal(np.asarray(as_rgb(array))[..., 0], grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "turned.jpg", exif=exif)
    assert as_rgb(tmp_path / "turned.jpg").size == (20, 30)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros(9, np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(SignVerError, match="image array"):
        as_rgb(array)


def test_damaged_files_are_refused(tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    for name, data in {"cut": content[:60], "text": b"no image", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SignVerError, match=name):
            as_rgb(tmp_path / name)
    with pytest.raises(SignVerError, match="nowhere"):
        as_rgb(tmp_path / "nowhere")


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    huge = Image.new("1", (20_000, 20_000))
    huge.save(tmp_path / "bomb.png")
    with pytest.raises(SignVerError, match=r"pixels|bomb"):
        as_rgb(tmp_path / "bomb.png")


def test_models_that_are_none_are_refused(tmp_path):
    with pytest.raises(SignVerError, match="no such file"):
        Detector().load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(SignVerError, match="not a model"):
        Detector().load(tmp_path / "text.onnx")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "other.onnx",
    )
    with pytest.raises(SignVerError, match=r"signver\.model=detector"):
        Detector().load(tmp_path / "other.onnx")


def test_detecting_without_a_model_is_refused():
    with pytest.raises(SignVerError, match="no model loaded"):
        Detector().detect(np.zeros((10, 10), np.uint8))


def _stamped(path, **changes):
    """A model of one node with a detector's metadata, some of them changed; None leaves a key out."""
    metadata = {
        "signver.format": "1",
        "signver.model": "detector",
        "signver.classes": '{"1": "signature"}',
        "signver.input_size": "[64, 96]",
        "signver.score_threshold": "0.3",
    }
    metadata |= {f"signver.{key}": value for key, value in changes.items()}
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: text for key, text in metadata.items() if text is not None})
    onnx.save(model, path)
    return path


def test_metadata_say_classes_size_and_threshold(tmp_path):
    detector = Detector(threads=1).load(_stamped(tmp_path / "d.onnx"))
    assert detector.class_names == {1: "signature"}
    assert detector.input_size == (64, 96)
    assert detector.score_threshold == 0.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "2"}, "format 2"),
        ({"format": None}, "format None"),
        ({"classes": None}, "signver.classes"),
        ({"classes": "{"}, "damaged metadata"),
        ({"classes": "[1]"}, "damaged metadata"),
        ({"input_size": "640"}, "damaged metadata"),
        ({"input_size": "[1, 2, 3]"}, "damaged metadata"),
        ({"score_threshold": "high"}, "damaged metadata"),
    ],
)
def test_files_of_another_format_or_with_damaged_metadata_are_refused(tmp_path, changes, words):
    with pytest.raises(SignVerError, match=words):
        Detector().load(_stamped(tmp_path / "d.onnx", **changes))


@pytest.mark.parametrize(
    ("size", "reduced"),
    [((96, 64), (96, 64)), ((383, 64), (383, 64)), ((384, 64), (192, 32)), ((90, 577), (23, 145))],
)
def test_only_pages_far_larger_than_the_model_are_averaged(size, reduced):
    assert reduce_page(Image.new("L", size), (64, 96)).size == reduced


def test_a_thin_stroke_survives_the_reduction():
    page = np.full((640, 960), 255, np.uint8)
    page[301] = 0
    reduced = np.asarray(reduce_page(Image.fromarray(page), (64, 96)))
    assert reduced.shape == (128, 192)
    assert reduced.min() == 204
