"""Small models that really find, clean and compare: ONNX graphs of a few nodes, run by ONNX Runtime."""

import dataclasses
import io
import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from signver import Pipeline
from signver.cleaner import Cleaner
from signver.detector import Detector
from signver.extractor import MetricExtractor
from training.data import signatures

CLASSES = '{"1": "signature", "2": "initials", "3": "redaction", "4": "date"}'
LENGTH = 32


@dataclasses.dataclass(frozen=True)
class Models:
    """Where the three ONNX files lie."""

    detector: pathlib.Path
    cleaner: pathlib.Path
    extractor: pathlib.Path

    def options(self, *kinds):
        """The command line's options that name them."""
        return [f"--{kind}={getattr(self, kind)}" for kind in kinds or ("detector", "cleaner", "extractor")]


def write(path, kind, inputs, outputs, nodes, constants, **metadata):
    """An ONNX file; constants are arrays by name, nodes (operator, inputs, outputs, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(operator, ins, outs, **attributes) for operator, ins, outs, attributes in nodes],
        kind,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"signver.format": "1", "signver.model": kind} | metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def write_detector(path):
    """Finds the rectangle around all ink of a page: one signature, or nothing on a blank page."""
    nodes = [("Cast", ["image"], ["values"], {"to": TensorProto.FLOAT})]
    nodes += [("Less", ["values", "dark"], ["below"], {}), ("Cast", ["below"], ["ink"], {"to": 1})]
    sides = []
    for axis, name in ((1, "y"), (2, "x")):
        others = [1, 2, 3]
        others.remove(axis)
        nodes += [
            ("ReduceMax", ["ink"], [f"{name}_ink"], {"axes": others, "keepdims": 0}),
            ("ArgMax", [f"{name}_ink"], [f"{name}_first"], {"axis": 1, "keepdims": 1}),
            (
                "ArgMax",
                [f"{name}_ink"],
                [f"{name}_last"],
                {"axis": 1, "keepdims": 1, "select_last_index": 1},
            ),
            ("Add", [f"{name}_last", "one"], [f"{name}_end"], {}),
            ("Shape", ["image"], [f"{name}_size"], {"start": axis, "end": axis + 1}),
        ]
        for side, index in (("min", "first"), ("max", "end")):
            nodes += [
                ("Cast", [f"{name}_{index}"], [f"{name}_{index}_f"], {"to": 1}),
                ("Cast", [f"{name}_size"], [f"{name}_size_{index}"], {"to": 1}),
                ("Div", [f"{name}_{index}_f", f"{name}_size_{index}"], [f"{name}{side}"], {}),
            ]
    sides = ["ymin", "xmin", "ymax", "xmax"]
    nodes += [
        ("Concat", sides, ["flat"], {"axis": 1}),
        ("Unsqueeze", ["flat", "axis1"], ["detection_boxes"], {}),
        ("ReduceMax", ["ink"], ["any"], {"axes": [1, 2, 3], "keepdims": 0}),
        ("Unsqueeze", ["any", "axis1"], ["any2"], {}),
        ("Mul", ["any2", "score"], ["detection_scores"], {}),
        ("Cast", ["any"], ["num_detections"], {"to": TensorProto.INT32}),
        ("Identity", ["label"], ["detection_classes"], {}),
    ]
    constants = {
        "dark": np.float32(128),
        "one": np.array([1], np.int64),
        "axis1": np.array([1], np.int64),
        "score": np.float32(0.9),
        "label": np.array([[1]], np.int32),
    }
    outputs = [
        ("detection_boxes", TensorProto.FLOAT, [1, 1, 4]),
        ("detection_scores", TensorProto.FLOAT, [1, 1]),
        ("detection_classes", TensorProto.INT32, [1, 1]),
        ("num_detections", TensorProto.INT32, [1]),
    ]
    inputs = [("image", TensorProto.UINT8, [1, "height", "width", 3])]
    metadata = {
        "signver.classes": CLASSES,
        "signver.input_size": "[256, 256]",
        "signver.score_threshold": "0.3",
    }
    return write(path, "detector", inputs, outputs, nodes, constants, **metadata)


def write_cleaner(path, batch=1):
    """Takes grey lines off: what is lighter than a level becomes white."""
    shape = [batch, 224, 224, 3]
    nodes = [
        ("Less", ["input", "level"], ["ink"], {}),
        ("Where", ["ink", "input", "white"], ["output"], {}),
    ]
    constants = {"level": np.float32(0.6), "white": np.float32(1)}
    values = ("input", TensorProto.FLOAT, shape), ("output", TensorProto.FLOAT, shape)
    return write(path, "cleaner", values[:1], values[1:], nodes, constants)


def write_extractor(path, seed=0, **metadata):
    """Ink averaged in blocks of 8 x 8, less its mean, thrown by random weights, made of length 1."""
    weights = np.random.default_rng(seed).normal(size=(12 * 24, LENGTH)).astype(np.float32)
    nodes = [
        ("Reshape", ["image", "blocks"], ["parts"], {}),
        ("ReduceMean", ["parts"], ["averages"], {"axes": [2, 4], "keepdims": 0}),
        ("Flatten", ["averages"], ["flat"], {}),
        ("ReduceMean", ["flat"], ["mean"], {"axes": [1], "keepdims": 1}),
        ("Sub", ["flat", "mean"], ["centred"], {}),
        ("MatMul", ["centred", "weights"], ["thrown"], {}),
        ("LpNormalization", ["thrown"], ["embedding"], {"axis": 1, "p": 2}),
    ]
    constants = {"blocks": np.array([-1, 12, 8, 24, 8], np.int64), "weights": weights}
    inputs = [("image", TensorProto.FLOAT, ["batch", 96, 192, 1])]
    outputs = [("embedding", TensorProto.FLOAT, ["batch", LENGTH])]
    entries = {
        "signver.threshold": "0.7",
        # Not the size of today's extractor: the SDK takes what the file asks for.
        "signver.input_size": "[96, 192]",
        "signver.embedding": str(LENGTH),
        "signver.calibration": '{"slope": 20.0, "offset": -14.0}',
        "signver.consistency": "0.9",
    }
    return write(path, "extractor", inputs, outputs, nodes, constants, **(entries | metadata))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return Models(
        write_detector(folder / "detector.onnx"),
        write_cleaner(folder / "cleaner.onnx"),
        write_extractor(folder / "extractor.onnx"),
    )


@pytest.fixture
def pipeline(models):
    """Of the three small models, nobody enrolled."""
    return Pipeline(
        detector=lambda: Detector(1).load(models.detector),
        cleaner=lambda: Cleaner(1).load(models.cleaner),
        extractor=lambda: MetricExtractor(1).load(models.extractor),
    )


def signature(writer, number=0):
    """A synthetic signature, RGB, of a writer who repeats it well: the test's extractor learned nothing."""
    page = signatures.synthesize(9, writer, 0, signatures.GENUINE)
    picture = Image.open(io.BytesIO(page.image)).convert("RGB")
    return picture.rotate(0.7 * number, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def page_with(picture, size=(1000, 1300), place=(500, 900)):
    """A white page with a signature on it, a little smaller than it came."""
    page = Image.new("RGB", size, "white")
    picture = picture.copy()
    picture.thumbnail((400, 200))
    page.paste(picture, place)
    return page


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Files `W-N.png` of writers 0 to 3, signatures 0 to 3."""
    folder = tmp_path_factory.mktemp("signatures")
    for writer in range(4):
        for number in range(4):
            signature(writer, number).save(folder / f"{writer}-{number}.png")
    return folder
