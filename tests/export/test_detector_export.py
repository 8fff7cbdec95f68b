"""A detector trained here goes to SavedModel and ONNX, is proved equal, and a planted error is found."""

import json
import pathlib

import commands
import numpy as np
import onnx
import pytest
import tensorflow as tf

from export import onnx_model, saved_model, validate
from signver import Detector
from training import runner

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def loaded(detector_run):
    return runner.load_model(detector_run)


@pytest.fixture(scope="session")
def onnx_file(loaded, tmp_path_factory):
    # Scores are low at 256², which the detector did not learn at; so is the threshold that the file suggests.
    target = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    return onnx_model.convert_detector(loaded, target, score_threshold=0.1)


@pytest.fixture(scope="session")
def pages():
    return validate.synthetic_pages(6, seed=5)


def test_the_onnx_file_says_what_it_is(onnx_file, loaded):
    model = onnx.load(str(onnx_file))
    assert model.opset_import[0].version == 17
    assert model.ir_version == 8
    values = [*model.graph.input, *model.graph.output]
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    assert dims["image"] == [1, "height", "width", 3]
    assert dims["detection_boxes"] == [1, 100, 4]
    assert not any("unk" in str(size) for sizes in dims.values() for size in sizes)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["signver.classes"]) == {
        "1": "signature",
        "2": "initials",
        "3": "redaction",
        "4": "date",
    }
    assert json.loads(metadata["signver.input_size"]) == [256, 256]
    assert {"signver.nms", "signver.preprocessing", "signver.score_threshold"} <= metadata.keys()
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    weights = onnx_model.weight_bytes(loaded.model)
    assert onnx_file.stat().st_size <= 1.1 * weights
    assert sum(node.op_type == "NonMaxSuppression" for node in model.graph.node) == 1


def test_the_same_checkpoint_gives_the_same_file(onnx_file, detector_run, tmp_path):
    # Keras and the converter count names through a process; a model built again gets other ones.
    again = onnx_model.convert_detector(
        runner.load_model(detector_run), tmp_path / "again.onnx", score_threshold=0.1
    )
    assert again.read_bytes() == onnx_file.read_bytes()


def test_onnx_equals_the_trained_model_on_pages_with_detections(loaded, onnx_file, pages):
    report = validate.validate_detector(loaded, onnx_file, pages)
    assert report.passed, report.failures
    assert report.detections >= 10
    assert 0 < report.raw_logits < 1e-3


def test_a_dynamic_batch_gives_what_single_pages_give(loaded, pages, tmp_path):
    import onnxruntime

    path = onnx_model.convert_detector(loaded, tmp_path / "batch.onnx", dynamic_batch=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch = np.stack([np.asarray(page.resize((300, 380))) for page in pages[:3]])
    together = session.run(["detection_boxes", "num_detections"], {"image": batch})
    for number in range(3):
        alone = session.run(["detection_boxes", "num_detections"], {"image": batch[number : number + 1]})
        count = alone[1][0]
        assert together[1][number] == count
        assert np.allclose(together[0][number, :count], alone[0][0, :count], atol=1e-5)


def _perturb(path, target, layer=0, factor=1.1):
    """The same file with one weight changed, the largest of one convolution."""
    model = onnx.load(str(path))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    tensor = constants[convolutions[layer].input[1]]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= factor
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(target))
    return target


@pytest.mark.parametrize("layer", [0, -1], ids=["first", "last"])
def test_one_changed_weight_is_found(loaded, onnx_file, pages, tmp_path, layer):
    bad = _perturb(onnx_file, tmp_path / "bad.onnx", layer)
    report = validate.validate_detector(loaded, bad, pages[:2], minimum_detections=0)
    assert not report.passed
    assert any("raw" in failure for failure in report.failures)


def test_empty_outputs_prove_nothing(loaded, onnx_file):
    from PIL import Image

    blank = [Image.new("RGB", (300, 400), "white")]
    report = validate.validate_detector(loaded, onnx_file, blank, minimum_detections=10_000)
    assert not report.passed
    assert "proves nothing" in report.failures[0]


def test_a_box_clipped_to_the_edge_is_itself():
    edge, elsewhere = np.array([0.2, 1.0, 0.3, 1.0]), np.array([0.4, 1.0, 0.5, 1.0])
    assert validate.iou(edge, edge + 1e-7 * np.array([0, 0, 1, 0])) == 1
    assert validate.iou(edge, elsewhere) == 0
    assert validate.iou(edge, np.array([0.2, 0.5, 0.3, 1.0])) == 0


def test_equal_scores_in_another_order_still_match():
    boxes = np.array([[0.1, 0.1, 0.2, 0.3], [0.5, 0.5, 0.6, 0.9], [0.5, 0.5, 0.6, 0.9]], np.float32)
    scores, classes = np.array([0.5, 0.5, 0.4], np.float32), np.array([1, 1, 2])
    order = [2, 1, 0]
    pairs, lonely = validate.match((boxes, scores, classes), (boxes[order], scores[order], classes[order]))
    assert sorted(pairs) == [(0, 2), (1, 1), (2, 0)]
    assert lonely == 0
    _, lonely = validate.match((boxes, scores, classes), (boxes[:2], scores[:2], np.array([1, 3])))
    assert lonely == 3  # two of the three expected, and the one of class 3


def _detections(*rows):
    """Squares of side 1 by (left edge, score, class), all in one row."""
    boxes = np.array([[0, left, 1, left + 1] for left, _, _ in rows], np.float32)
    return (
        boxes,
        np.array([score for _, score, _ in rows], np.float32),
        np.array([label for *_, label in rows]),
    )


# A square that is a third of its side away overlaps by one half.
@pytest.mark.parametrize(
    ("expected", "found", "rounded"),
    [
        ([(0, 0.9, 1)], [(0, 0.9, 1), (1 / 3, 0.5, 1)], 1),
        ([(0, 0.9, 1)], [(0, 0.9, 1), (0.3, 0.5, 1)], 0),  # overlaps by 0.54: suppression has failed
        ([(0, 0.9, 1)], [(0, 0.9, 1), (0.4, 0.5, 1)], 0),  # by 0.43: it went too far
        ([(0, 0.9, 1)], [(0, 0.9, 1), (1 / 3, 0.5, 2)], 0),  # classes do not suppress each other
        ([(0, 0.9, 1), (1 / 3, 0.95, 2)], [(0, 0.9, 1)], 0),
        ([(0, 0.9, 1)], [(0.2, 0.9, 1)], 0),  # the same box, moved
        # The second came by chance and put out what stands alone on the other side.
        ([(0, 0.9, 1), (0.5, 0.4, 1)], [(0, 0.9, 1), (1 / 3, 0.5, 1)], 2),
        ([(0, 0.9, 1), (0.9, 0.4, 1)], [(0, 0.9, 1), (1 / 3, 0.5, 1)], 1),
    ],
)
def test_what_falls_either_way_on_another_runtime_is_told_from_a_mistake(expected, found, rounded):
    sides = _detections(*expected), _detections(*found)
    for one, other in (sides, sides[::-1]):
        pairs, lonely = validate.match(one, other)
        assert lonely >= rounded
        assert validate.settled_by_rounding(one, other, pairs, 0.5) == rounded
        assert validate.settled_by_rounding(one, other, pairs, float("nan")) == 0


def test_another_overlap_for_suppression_is_no_rounding(loaded, onnx_file, pages, tmp_path):
    model = onnx.load(str(onnx_file))
    (node,) = [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    (weight,) = [weight for weight in model.graph.initializer if weight.name == node.input[3]]
    lower = onnx.numpy_helper.to_array(weight) - np.float32(0.1)
    weight.CopyFrom(onnx.numpy_helper.from_array(lower, weight.name))
    onnx.save(model, str(tmp_path / "other.onnx"))
    report = validate.validate_detector(loaded, tmp_path / "other.onnx", pages, minimum_detections=2)
    assert report.unmatched > 0
    assert not report.passed


def test_the_saved_model_serves_alone(loaded, onnx_file, pages, tmp_path):
    saved_model.save(loaded, tmp_path / "saved")
    served = tf.saved_model.load(str(tmp_path / "saved"))
    page = pages[0].resize((300, 380))  # under twice the model's size the SDK leaves a page as it is
    pixels = np.asarray(page)[np.newaxis]
    outputs = served.signatures["serving_default"](image=tf.constant(pixels))
    count = int(outputs["num_detections"][0])
    found = Detector().load(onnx_file).detect(page)
    assert count == len(found.scores) > 0
    assert np.allclose(outputs["detection_scores"][0, :count], found.scores, atol=1e-4)
    called = served(tf.constant(pixels))
    assert np.array_equal(called["detection_boxes"], outputs["detection_boxes"])
    report = validate.validate_saved_model(tmp_path / "saved", onnx_file, pages[:2], minimum_detections=2)
    assert report.passed, report.failures
    bad = _perturb(onnx_file, tmp_path / "bad.onnx")
    assert not validate.validate_saved_model(tmp_path / "saved", bad, pages[:2], minimum_detections=2).passed


def test_the_commands_exit_with_the_verdict(detector_run, onnx_file, tmp_path):
    def run(*arguments):
        return commands.run("export", *arguments, code=None)

    bad = _perturb(onnx_file, tmp_path / "bad.onnx")
    options = [f"--model_dir={detector_run}", "--synthetic=4"]
    assert run("validate", *options, f"--onnx={onnx_file}").returncode == 0
    done = run("validate", *options, f"--onnx={bad}", f"--output={tmp_path / 'report.json'}")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False
    missing = run("onnx", f"--model_dir={tmp_path / 'none'}", "--output=x.onnx")
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


def _another_class(outputs):
    return {"detection_classes": outputs["detection_classes"] % 4 + 1}


def _shifted(outputs):
    return {"detection_boxes": outputs["detection_boxes"] + 0.0007}


def _rescored(outputs):
    return {"detection_scores": outputs["detection_scores"] * 0.99}


@pytest.mark.parametrize(
    ("plant", "figure"),
    [
        (_another_class, "other_class"),
        (_shifted, "box_pixels"),
        (_rescored, "score"),
        (lambda outputs: {"raw_logits": outputs["raw_logits"] * np.nan}, "raw_logits"),
        (lambda outputs: {"detection_boxes": outputs["detection_boxes"][..., [1, 0, 3, 2]]}, "unmatched"),
    ],
    ids=["class", "box", "score", "nan", "order"],
)
def test_each_planted_difference_is_found_and_named(loaded, onnx_file, pages, plant, figure):
    module = saved_model.DetectorModule(loaded)

    def trained(pixels):
        outputs = {name: value.numpy() for name, value in module.__call__(pixels).items()}
        return outputs | plant(outputs)

    report = validate.compare(trained, onnx_file, pages[:2], minimum_detections=0, seed=0)
    assert not report.passed
    assert getattr(report, figure) > validate.Report().as_dict()["limits"][figure]


def test_the_document_tells_every_name_and_its_example_runs(onnx_file, pages, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "sdk.md").read_text()
    model = onnx.load(str(onnx_file))
    names = [entry.key for entry in model.metadata_props]
    names += [value.name for value in [*model.graph.input, *model.graph.output]]
    assert [name for name in names if f"`{name}`" not in text] == []
    example = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detector.onnx").write_bytes(onnx_file.read_bytes())
    pages[0].save(tmp_path / "letter.png")
    exec(compile(example, "docs/sdk.md", "exec"), {})
    detector = Detector().load(onnx_file)
    found = detector.detect(pages[0])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (found.scores >= detector.score_threshold).sum() > 0


def test_every_row_of_the_table_names_functions_that_exist():
    from export import __main__ as command
    from training import config
    from training.errors import UserError

    assert command.EXPORTS.keys() <= config.EXPERIMENTS.keys()
    for experiment, row in command.EXPORTS.items():
        assert row.keys() == {"saved_model", "weights", "onnx", "validate", "samples"}
        assert all(callable(command._function(experiment, name)) for name in row)
    with pytest.raises(UserError, match="no export of resnet"):
        command._function("resnet", "onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model_dir=x", "--onnx=none.onnx", "--synthetic=1"], "none.onnx: no such file"),
        (["--model_dir=x", f"--onnx={__file__}"], "nothing to compare on"),
        (["--model_dir=x", "--saved_model=y", f"--onnx={__file__}"], "not allowed with"),
        (["--model_dir=x", f"--onnx={__file__}", "--pages=gone.png"], "gone.png"),
        (["--saved_model=gone", f"--onnx={__file__}", "--synthetic=1"], "no saved_model.pb"),
    ],
)
def test_mistakes_in_a_validation_cost_two_lines(arguments, words):
    done = commands.run("export", "validate", *arguments, code=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
