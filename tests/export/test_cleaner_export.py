"""A cleaner goes to SavedModel and ONNX by the contract, is proved equal, and a planted error is found."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image

from export import __main__ as main
from export import onnx_model, saved_model, validate_cleaner
from signver import Cleaner, SignVerError
from training import runner
from training.cleaner import model as networks
from training.errors import UserError


@pytest.fixture(scope="session")
def loaded(cleaner_run):
    return runner.load_model(cleaner_run)


@pytest.fixture(scope="session")
def onnx_file(loaded, tmp_path_factory):
    return onnx_model.convert_cleaner(loaded, tmp_path_factory.mktemp("onnx") / "cleaner.onnx")


@pytest.fixture(scope="session")
def crops():
    return validate_cleaner.synthetic_crops(16, 3)


def shape(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_the_file_keeps_the_contract(onnx_file):
    graph = onnx.load(str(onnx_file))
    (image,), (answer,) = graph.graph.input, graph.graph.output
    assert (image.name, answer.name) == ("input", "output")
    assert shape(image) == shape(answer) == [1, 224, 224, 3]
    assert image.type.tensor_type.elem_type == answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert (graph.opset_import[0].version, graph.ir_version) == (17, 8)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata["signver.model"] == "cleaner"
    assert json.loads(metadata["signver.input_size"]) == [224, 224]


def test_the_same_checkpoint_gives_the_same_bytes(loaded, onnx_file, tmp_path):
    again = onnx_model.convert_cleaner(loaded, tmp_path / "again.onnx")
    assert again.read_bytes() == onnx_file.read_bytes()


def test_parity_passes(loaded, onnx_file, crops):
    report = validate_cleaner.validate_cleaner(loaded, onnx_file, crops)
    assert report.passed, report.text()
    assert report.with_ink >= 10
    assert report.value < 1e-5


def test_a_planted_error_is_found(loaded, onnx_file, crops, tmp_path):
    graph = onnx.load(str(onnx_file))
    tensor = max(graph.graph.initializer, key=lambda one: np.prod(one.dims))
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights.flat[int(np.abs(weights).argmax())] *= 1.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    onnx.save(graph, str(tmp_path / "wrong.onnx"))
    report = validate_cleaner.validate_cleaner(loaded, tmp_path / "wrong.onnx", crops)
    assert not report.passed


def test_blank_answers_prove_nothing(loaded, onnx_file):
    blank = [Image.new("RGB", (300, 120), "white")] * 12
    report = validate_cleaner.validate_cleaner(loaded, onnx_file, blank)
    assert not report.passed
    assert "hold ink" in report.failures[0]


def test_a_free_batch_takes_any_number(loaded, tmp_path):
    path = onnx_model.convert_cleaner(loaded, tmp_path / "free.onnx", dynamic_batch=True)
    assert shape(onnx.load(str(path)).graph.input[0]) == ["batch", 224, 224, 3]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).random((3, 224, 224, 3), np.float32)
    together = session.run(["output"], {"input": batch})[0]
    alone = np.concatenate([session.run(["output"], {"input": image[None]})[0] for image in batch])
    assert np.abs(together - alone).max() < 1e-5


def test_the_saved_model_loads_with_tensorflow_alone(loaded, onnx_file, crops, tmp_path):
    folder = saved_model.save_cleaner(loaded, tmp_path / "saved")
    script = (
        "import sys, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(folder)!r})\n"
        "answer = model.signatures['serving_default'](input=tf.ones([2, 224, 224, 3]))['output']\n"
        "assert answer.shape == (2, 224, 224, 3) and 'training' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    report = validate_cleaner.validate_saved_model(folder, onnx_file, crops)
    assert report.passed, report.text()


def test_somebody_elses_saved_model_is_put_right(tmp_path, crops):
    """The seed's script saves its Keras model with names like input_1 and conv2d_6 and a free batch."""
    tf.keras.utils.set_random_seed(3)
    seed = networks.autoencoder()
    foreign = tf.keras.Sequential(
        [tf.keras.layers.InputLayer((224, 224, 3), name="input_1"), *seed.layers[1:]]
    )
    foreign.save(tmp_path / "foreign", save_format="tf")
    path = tmp_path / "cleaner.onnx"
    arguments = ["onnx", f"--saved_model={tmp_path / 'foreign'}", f"--output={path}"]
    assert main._convert(main.parse_arguments(arguments)) == 0
    graph = onnx.load(str(path))
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["input", "output"]
    assert shape(graph.graph.input[0]) == [1, 224, 224, 3]
    report = validate_cleaner.validate_saved_model(tmp_path / "foreign", path, crops[:3], minimum=0)
    assert report.value < validate_cleaner.VALUE_LIMIT
    assert Cleaner().load(path).clean(crops[0]).shape


def test_a_saved_model_that_is_no_cleaner_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None, 8], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.f.get_concrete_function())
    with pytest.raises(UserError, match="a cleaner takes and gives float32"):
        onnx_model.convert_saved_model(tmp_path / "other", tmp_path / "x.onnx")
    with pytest.raises(UserError, match=r"no saved_model\.pb"):
        onnx_model.convert_saved_model(tmp_path, tmp_path / "x.onnx")


def test_the_sdk_takes_any_picture_and_signvers_batches(onnx_file, crops, tmp_path):
    cleaner = Cleaner(threads=1).load(onnx_file)
    wide = crops[0].resize((600, 150))
    wide.save(tmp_path / "crop.png")
    from_file, from_array = cleaner.clean(tmp_path / "crop.png"), cleaner.clean(np.asarray(wide))
    assert from_file.shape == (56, 224)
    assert from_file.dtype == np.uint8
    assert np.array_equal(from_file, from_array)
    batch = np.stack([np.asarray(crop, np.float32) / 255 for crop in crops[:3]])
    answer = cleaner.clean(batch)
    assert answer.shape == (3, 224, 224, 3)
    assert 0 <= answer.min() <= answer.max() <= 1
    assert np.abs(answer[1, ..., 0] * 255 - cleaner.clean(crops[1])).max() <= 0.51


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 100, 100, 3), np.float32), "a batch of floats is"),
        (np.full((1, 224, 224, 3), 255.0), "must lie in 0..1"),
        (np.full((1, 224, 224, 3), np.nan), "must lie in 0..1"),
        (np.zeros((0, 5, 3), np.uint8), "expected"),
        ("missing.png", "cannot read"),
    ],
)
def test_pictures_that_cannot_be_cleaned_are_said(onnx_file, image, message):
    with pytest.raises(SignVerError, match=message):
        Cleaner().load(onnx_file).clean(image)


def test_a_detector_is_no_cleaner_and_nothing_loaded_is_said(onnx_file, tmp_path):
    graph = onnx.load(str(onnx_file))
    next(entry for entry in graph.metadata_props if entry.key == "signver.model").value = "detector"
    onnx.save(graph, str(tmp_path / "detector.onnx"))
    with pytest.raises(SignVerError, match="no signver cleaner"):
        Cleaner().load(tmp_path / "detector.onnx")
    with pytest.raises(SignVerError, match="no model loaded"):
        Cleaner().clean(Image.new("RGB", (20, 20)))


def test_real_crops_are_equal_to_the_contract(loaded, onnx_file, shared_data):
    from training.data.formats import read_yolo

    files, _ = read_yolo(shared_data / "tobacco800-signatures", ["signature"])
    crops = []
    for file in files[:40]:
        page = Image.open(file.path).convert("RGB")
        for box in file.boxes:
            sides = (
                box.xmin * page.width,
                box.ymin * page.height,
                box.xmax * page.width,
                box.ymax * page.height,
            )
            crops.append(page.crop(tuple(int(side) for side in sides)))
    report = validate_cleaner.validate_cleaner(loaded, onnx_file, crops, minimum=10)
    assert report.passed, report.text()
