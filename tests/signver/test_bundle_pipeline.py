"""A bundle of trained models under the pipeline and the command line, named and by default."""

import json
import shutil

import numpy as np
import pytest
from conftest import signature
from PIL import Image

from signver import Pipeline, SignVerError, command
from signver.bundle import Bundle
from signver.golden import Golden


@pytest.fixture(scope="module")
def pages(whole_bundle, tmp_path_factory):
    """The page of the bundle's golden vectors, on which its detector finds something."""
    path = tmp_path_factory.mktemp("golden") / "page.png"
    Image.fromarray(Golden(Bundle.load(whole_bundle)).tensor("page")).save(path)
    return [path]


def test_the_pipeline_answers_as_the_bundle_s_models(whole_bundle, pages):
    pipeline, bundle = Pipeline.load(whole_bundle, threads=1), Bundle.load(whole_bundle)
    detector = bundle.detector(1)
    assert pages
    for page in pages:
        found = detector.detect(page)
        kept = found.scores >= detector.score_threshold
        marks = pipeline.annotate(page).pages[0].marks
        assert len(marks) == kept.sum() > 0
        np.testing.assert_allclose([mark.box for mark in marks], found.boxes[kept], atol=1e-6)
    assert pipeline.extractor.threshold == bundle.matcher().threshold
    assert pipeline.enroll("ada", [signature(0, number) for number in range(3)]) == 3
    assert -1 <= pipeline.verify("ada", signature(0, 3)).similarity <= 1
    again = Pipeline.load(bundle)
    assert again.index.model == pipeline.index.model


def test_a_model_that_changed_since_is_refused(whole_bundle, pages, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(whole_bundle, folder)
    pipeline, bundle = Pipeline.load(folder, threads=1), Bundle.load(folder)
    for kind in ("detector", "cleaner", "extractor"):
        content = bytearray(bundle.model_path(kind).read_bytes())
        # A weight's bit: ONNX Runtime loads the file as before.
        content[len(content) // 2] ^= 1
        bundle.model_path(kind).write_bytes(content)
        with pytest.raises(SignVerError, match="changed since its bundle was opened"):
            getattr(bundle, kind)(1)
    with pytest.raises(SignVerError, match=r"detector\.onnx: changed"):
        pipeline.annotate(pages[0])


def test_a_key_for_an_open_bundle_is_not_passed_over(whole_bundle, tmp_path):
    with pytest.raises(SignVerError, match=r"public key to Bundle\.load"):
        Pipeline.load(Bundle.load(whole_bundle), public_key=tmp_path / "any.pem")


def test_the_command_line_takes_a_bundle_or_the_one_at_hand(
    whole_bundle, pages, monkeypatch, capsys, tmp_path
):
    assert command.main(["annotate", str(pages[0]), f"--bundle={whole_bundle}", "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("signver.bundle.default_bundle", lambda: whole_bundle)
    assert command.main(["annotate", str(pages[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == named
    alone = tmp_path / "alone.onnx"
    shutil.copy(Bundle.load(whole_bundle).model_path("detector"), alone)
    assert command.main(["detect", str(pages[0]), f"--detector={alone}", "--threshold=0.1"]) == 0
