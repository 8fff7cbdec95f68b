"""The command line on real exports: JSON, pictures, folders and patterns, exit codes."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from signver import SignVerError, command, get_image_crops, visualize_boxes


def model(path, kind, inputs, outputs, nodes, initializers, **metadata):
    graph = helper.make_graph(nodes, kind, inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entries = {"signver.format": "1", "signver.model": kind} | metadata
    helper.set_model_props(made, entries)
    onnx.checker.check_model(made)
    onnx.save(made, str(path))
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A real ONNX file with the detector's contract, which always finds the same three marks."""
    answers = {
        "detection_boxes": np.array([[[0.1, 0.2, 0.3, 0.6], [0.5, 0.1, 0.7, 0.4], [0, 0, 1, 1]]], np.float32),
        "detection_scores": np.array([[0.9, 0.6, 0.1]], np.float32),
        "detection_classes": np.array([[1, 2, 1]], np.int32),
        "num_detections": np.array([3], np.int32),
    }
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    constants = [onnx.numpy_helper.from_array(value, f"{name}_value") for name, value in answers.items()]
    return model(
        tmp_path_factory.mktemp("models") / "detector.onnx",
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        [helper.make_tensor_value_info(n, kinds[v.dtype], list(v.shape)) for n, v in answers.items()],
        [helper.make_node("Identity", [f"{name}_value"], [name]) for name in answers],
        constants,
        **{
            "signver.classes": '{"1": "signature", "2": "date"}',
            "signver.input_size": "[64, 64]",
            "signver.score_threshold": "0.3",
        },
    )


@pytest.fixture(scope="module")
def cleaner(tmp_path_factory):
    """A real ONNX file with the cleaner's contract, which halves the darkness."""
    shape = [1, 224, 224, 3]
    return model(
        tmp_path_factory.mktemp("models") / "cleaner.onnx",
        "cleaner",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [
            helper.make_node("Mul", ["input", "half"], ["halved"]),
            helper.make_node("Add", ["halved", "half"], ["output"]),
        ],
        [onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )


@pytest.fixture
def pages(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (200, 100), (40 * number,) * 3).save(folder / f"page{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "signver.command", *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_detect_says_what_is_on_each_page(detector, pages, tmp_path):
    code, out, _ = run("detect", pages, f"--detector={detector}", "--json", f"--output={tmp_path / 'marked'}")
    assert code == 0
    found = json.loads(out)
    assert [entry["file"] for entry in found["files"]] == [str(pages / f"page{n}.png") for n in range(3)]
    first = found["files"][0]
    assert [(mark["class"], mark["score"]) for mark in first["marks"]] == [("signature", 0.9), ("date", 0.6)]
    assert first["marks"][0]["box"] == [0.1, 0.2, 0.3, 0.6]
    marked = np.asarray(Image.open(first["picture"]))
    assert marked.shape == (100, 200, 3)
    assert (marked != np.asarray(Image.open(first["file"]))).any()


def test_the_threshold_is_the_callers(detector, pages):
    _, out, _ = run("detect", pages / "page0.png", f"--detector={detector}", "--threshold=0.7")
    assert out.count("signature 0.90") == 1
    assert "date" not in out


def test_clean_takes_crops_or_finds_them_first(detector, cleaner, pages, tmp_path):
    output = tmp_path / "clean"
    code, _, _ = run("clean", f"{pages}/*.png", f"--cleaner={cleaner}", f"--output={output}")
    assert code == 0
    assert sorted(path.name for path in output.iterdir()) == ["page0.png", "page1.png", "page2.png"]
    image = np.asarray(Image.open(output / "page0.png"))
    assert image.shape == (112, 224)
    assert set(image.ravel()) <= {127, 128}
    code, out, _ = run(
        "clean",
        pages / "page1.png",
        f"--cleaner={cleaner}",
        f"--detector={detector}",
        f"--output={output}/found",
    )
    assert code == 0
    # The date is no signature, the third mark scores too little.
    assert [path.name for path in (output / "found").iterdir()] == ["page1-1.png"]
    assert "page1-1.png" in out


def test_a_damaged_file_is_said_and_the_others_are_done(detector, pages):
    (pages / "broken.png").write_bytes((pages / "page0.png").read_bytes()[:60])
    code, out, err = run("detect", pages, f"--detector={detector}")
    assert code == 1
    assert "broken.png" in err
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "nowhere.png", "--detector={detector}"], "nowhere.png: no such file"),
        (["detect", "{pages}", "--detector={pages}/page0.png"], "not a model"),
        (["detect", "{pages}", "--detector={cleaner}"], "no signver detector"),
        (["detect", "{pages}", "--detector={detector}", "--threshold=2"], "not between 0 and 1"),
        (["detect", "{pages}"], "--detector"),
    ],
)
def test_mistakes_exit_with_2(detector, cleaner, pages, arguments, message):
    places = {"detector": detector, "cleaner": cleaner, "pages": pages}
    code, _, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_files_are_named_once(pages):
    names = [str(pages), f"{pages}/page1.png", f"{pages}/*.png"]
    assert len(list(command.find_files(names))) == 3


def test_crops_stay_on_the_page_and_hold_a_pixel():
    page = np.arange(100 * 200 * 3, dtype=np.uint8).reshape(100, 200, 3)
    boxes = np.array([[0.1, 0.2, 0.3, 0.6], [0.5, 0.5, 0.5, 0.5], [-1, -1, 2, 2], [0.9, 0.9, 1, 1]])
    crops = get_image_crops(page, boxes, np.array([0.9, 0.9, 0.9, 0.1]))
    assert [crop.shape for crop in crops] == [(20, 80, 3), (1, 1, 3), (100, 200, 3)]
    assert np.array_equal(crops[0], page[10:30, 40:120])
    assert len(get_image_crops(page, boxes)) == 4
    wider = get_image_crops(page, boxes[:1], margin=0.5)[0]
    assert wider.shape == (40, 160, 3)


def test_boxes_that_make_no_sense_are_refused():
    page = np.zeros((10, 10), np.uint8)
    with pytest.raises(SignVerError, match="1 boxes and 2 scores"):
        get_image_crops(page, np.array([[0, 0, 1, 1]]), np.array([0.5, 0.5]))
    with pytest.raises(SignVerError, match="no number"):
        visualize_boxes(page, np.array([[0, 0, np.nan, 1]]))
    with pytest.raises(SignVerError, match="color 'nocolour'"):
        visualize_boxes(page, np.array([[0, 0, 1, 1]]), color="nocolour")
    assert visualize_boxes(page, np.empty((0, 4))).shape == (10, 10, 3)
