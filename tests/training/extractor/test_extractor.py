"""The extractor end to end: trained, measured, exported, proven equal, and used through the SDK."""

import dataclasses
import json
import shutil

import commands
import cv2
import numpy as np
import pytest
from PIL import Image

from export import onnx_model
from signver import Matcher, MetricExtractor, SignVerError
from training import config, record, runner
from training.data import signatures, tfrecord
from training.errors import UserError
from training.extractor import evaluate, plots
from training.extractor import model as network
from training.extractor.input import SignatureSet

STEPS = 100


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signatures") / "set"
    pages = {
        split: [
            signatures.synthesize(0, writer, number, label)
            for writer in writers
            for label, count in ((signatures.GENUINE, 6), (signatures.FORGED, 3))
            for number in range(count)
        ]
        for split, writers in (("train", range(12)), ("eval", range(12, 18)))
    }
    tfrecord.write_dataset(folder, pages, signatures.CLASSES, shards=1, source="test")
    return folder


def command(*arguments, code=0):
    return commands.run(*arguments, code=code, timeout=300)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("run") / "extractor"
    override = {
        "task": {
            "train_data": {"input_path": f"{data}/train*", "global_batch_size": 24},
            "validation_data": {"input_path": f"{data}/eval*"},
            "model": {"filters": [8, 16, 24, 32], "embedding": 32},
            "genuine": 3,
            "forged": 1,
        },
        "trainer": {"train_steps": STEPS},
        "schedule": {"evaluations": 2, "learning_rate": 0.01, "base_batch": 24},
    }
    command(
        "training.train",
        "--experiment=extractor_metric",
        "--config_file=configs/extractor/smoke.yaml",
        f"--model_dir={model_dir}",
        f"--params_override={json.dumps(override)}",
        "--device=cpu",
    )
    return model_dir


def test_a_checkpoint_of_another_version_s_network_is_said(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    experiment = config.load("extractor_metric", [str(trained / "params.yaml")])
    experiment.trainer.train_steps += 1
    monkeypatch.setattr(network, "_APART", ((0, 2),))
    with pytest.raises(UserError, match=r"ckpt-\d+ does not fit the model of .*: .* by another version"):
        runner.load_model(tmp_path / "run")
    with pytest.raises(UserError, match=r"ckpt-\d+ does not fit the model of this version: .*--model_dir"):
        runner.run("extractor_metric", experiment, "train", tmp_path / "run", "cpu")


@pytest.fixture(scope="module")
def onnx(trained):
    path = trained / "extractor.onnx"
    command("export", "onnx", f"--model_dir={trained}", f"--output={path}")
    return path


def test_training_tells_writers_apart(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["phase"] == "eval"]
    assert [line["step"] for line in found] == [STEPS // 2, STEPS]
    assert min(line["eer_random"] for line in found) < 0.3
    assert {"auc_skilled", "far_skilled_at_frr_0.01", "threshold_skilled"} <= set(found[-1])
    losses = [line["training_loss"] for line in lines if line["phase"] == "train"]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_an_exported_checkpoint_takes_the_figures_of_its_own_step(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, last = [line for line in lines if line["phase"] == "eval"]
    first |= {"eer_skilled": 0.0, "threshold_skilled": 0.25}
    last |= {"eer_skilled": 0.5, "threshold_skilled": 0.5}
    # As mode "eval" once left it, measured on other data; and what a kill leaves.
    other = last | {"eer_skilled": 0.0, "threshold_skilled": 0.75}

    def threshold(checkpoint, *written):
        text = "".join(json.dumps(line) + "\n" for line in written) + '{"step": 1'
        (run / "metrics.jsonl").write_text(text)
        loaded = runner.load_model(run, checkpoint)
        assert record.evaluation_of(run, loaded.step)["threshold_skilled"] == 0.5
        file = onnx_model.convert_extractor(loaded, tmp_path / "extractor.onnx")
        return MetricExtractor(threads=1).load(file).threshold

    assert threshold("last", first, last, other) == 0.5
    assert threshold("best", last | {"step": runner.load_model(run).step}, other | {"step": 1}) == 0.5
    # No evaluation at the step: the last before it.
    assert threshold("last", first, last | {"step": STEPS - 1}) == 0.5


def test_evaluation_reports_figures_pictures_and_shortcuts(trained, data, tmp_path):
    report = tmp_path / "verification.html"
    options = (f"--model_dir={trained}", f"--data={data}/eval*", "--repeats=20", f"--output={report}")
    done = command("training.extractor.evaluate", *options)
    assert "references" in done.stdout
    assert "stroke width" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["references"] for row in figures["rows"]] == [1, 5]
    row = figures["rows"][0]
    low, high = row["eer_skilled_interval"]
    assert low <= row["eer_skilled"] <= high
    assert figures["shortcuts"]["paper grey (raw)"]["label_auc"] < 0.6  # whitened
    page = report.read_text()
    assert page.count("data:image/png;base64,") == 4


def test_another_kind_of_model_is_refused(tmp_path):
    done = command("training.extractor.evaluate", f"--model_dir={tmp_path}", "--data=x", code=2)
    assert "error:" in done.stderr


def test_the_file_is_proven_equal_and_says_what_it_needs(trained, onnx, data):
    options = (f"--model_dir={trained}", f"--onnx={onnx}", f"--pages={data}/eval*", "--synthetic=20")
    done = command("export", "validate", *options, "--limit=20")
    assert "PASSED" in done.stdout
    folder = trained / "saved_model"
    command("export", "saved_model", f"--model_dir={trained}", f"--output={folder}")
    assert (
        "PASSED"
        in command("export", "validate", f"--saved_model={folder}", f"--onnx={onnx}", "--synthetic=20").stdout
    )


def test_a_changed_weight_fails_the_proof(trained, onnx, tmp_path):
    import onnx as format_library

    model = format_library.load(str(onnx))
    kernel = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = format_library.numpy_helper.to_array(kernel).copy()
    values.flat[values.size // 2] += 0.5
    kernel.CopyFrom(format_library.numpy_helper.from_array(values, kernel.name))
    wrong = tmp_path / "wrong.onnx"
    format_library.save(model, str(wrong))
    done = command(
        "export", "validate", f"--model_dir={trained}", f"--onnx={wrong}", "--synthetic=20", code=1
    )
    assert "FAILED" in done.stdout


def test_too_few_different_signatures_prove_nothing(trained, onnx):
    done = command("export", "validate", f"--model_dir={trained}", f"--onnx={onnx}", "--synthetic=3", code=1)
    assert "10 are needed" in done.stdout


def picture(writer, number=0):
    import io

    page = signatures.synthesize(9, writer, number, signatures.GENUINE)
    return Image.open(io.BytesIO(page.image))


def test_the_sdk_gives_embeddings_of_length_one(onnx):
    extractor = MetricExtractor(threads=1).load(onnx)
    found = extractor.extract([picture(0), picture(1), picture(0, 1)])
    assert found.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(extractor.extract(picture(1)), found[1], atol=1e-6)
    assert extractor.extract([]).shape == (0, 32)
    matcher = Matcher(extractor.threshold)
    assert matcher.verify(found[0], found[0])
    assert matcher.cosine_distance(found[0], found[0]) == pytest.approx(0, abs=1e-6)
    assert matcher.cosine_similarity(found[[0, 2]], found[0]) > matcher.cosine_similarity(found[1], found[0])
    assert not matcher.verify(found[0], -found[0])
    assert matcher.verify(found[0], found[1], threshold=2.0)
    assert extractor.calibration.slope > 0
    # At the equal error rate both kinds are about equally likely.
    assert 0.2 < extractor.calibration.probability(extractor.threshold) < 0.8


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones(3), np.ones(4), "embeddings of 3 and 4 values"),
        (np.ones(0), np.ones(4), "expected finite values"),
        (np.zeros(4), np.ones(4), "all values are 0"),
        (np.array([1, np.nan]), np.ones(2), "expected finite values"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_refused(first, second, message):
    with pytest.raises(SignVerError, match=message):
        Matcher().verify(first, second)


def test_an_extractor_is_asked_for(tmp_path, onnx):
    with pytest.raises(SignVerError, match="no model loaded"):
        MetricExtractor().extract(picture(0))
    with pytest.raises(SignVerError, match="no such file"):
        MetricExtractor().load(tmp_path / "none.onnx")
    with pytest.raises(SignVerError, match="a cosine lies between"):
        Matcher(3.0)
    from signver import Cleaner

    with pytest.raises(SignVerError, match="no signver cleaner"):
        Cleaner().load(onnx)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{task: {loss: triplet}}", "task.loss must be one of supervised_contrastive"),
        ("{task: {genuine: 1}}", "task.genuine must be at least 2"),
        ("{task: {model: {filters: [8, 8, 8, 8, 8]}}}", "task.model.filters must be up to 4"),
        ("{task: {skilled_weight: 0.0}}", "must be positive"),
    ],
)
def test_configs_that_make_no_model_are_refused(override, message):
    experiment = config.load("extractor_metric", ["configs/extractor/smoke.yaml"], override)
    with pytest.raises(UserError, match=message):
        config.build_task("extractor_metric", experiment)


@pytest.mark.parametrize("forged", [0, 2, 5, 8])
def test_writers_without_forgeries_are_no_accident_of_the_report(tmp_path, forged):
    rng = np.random.default_rng(forged)
    writers = np.repeat(np.arange(8, dtype=np.int32), 5)
    is_forged = np.tile([False, False, False, True, True], 8) & (writers < forged)
    images = rng.integers(0, 255, (40, 192, 384)).astype(np.uint8)
    names = tuple(f"w{number}" for number in range(8))
    strange = SignatureSet(images, writers, is_forged, names, tuple(map(str, range(40))))
    known = dataclasses.replace(strange, forged=np.tile([False, False, False, True, True], 8))
    embeddings = rng.normal(size=(40, 16)).astype(np.float32)
    if not forged:
        with pytest.raises(UserError, match="has a forgery"):
            evaluate.verify(embeddings, strange, embeddings, known, {}, repeats=5)
        return
    evaluate.verify(embeddings, strange, embeddings, known, {}, repeats=5)
    sheet = cv2.imdecode(np.frombuffer(plots.mistakes(strange, embeddings), np.uint8), cv2.IMREAD_COLOR)
    # Six genuine pairs, and a forgery of each writer that has some; two beside each other.
    assert sheet.shape[0] == -(-(6 + min(6, forged)) // 2) * (96 + 22)
