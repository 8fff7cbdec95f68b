"""The models that ship: proven, small, and good for what the README says of them, on data they never saw."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from export import samples
from signver import Pipeline, command
from signver.bundle import Bundle, default_bundle
from signver.golden import overlap
from signver.proof import verify

MOST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.load(threads=1)


def picture(page):
    return Image.open(io.BytesIO(page.image)).convert("RGB")


def test_they_are_here_whole_proven_and_small():
    folder = default_bundle()
    assert folder is not None
    proof = verify(folder)
    assert proof.passed, proof.text()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= MOST_BYTES
    bundle = Bundle.load()
    assert all(bundle.has(kind) for kind in ("detector", "cleaner", "extractor"))
    assert {model["licence"] for model in bundle.manifest["models"].values()} == {"Apache-2.0"}


def test_a_page_is_annotated_without_a_word_on_models(tmp_path, capsys):
    page = next(page for page in samples.pages(50, 21) if any(box.label == 1 for box in page.boxes))
    picture(page).save(tmp_path / "letter.png")
    assert command.main(["annotate", str(tmp_path / "letter.png"), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["files"]
    assert set(answer) >= {"signed", "initialled", "dated", "redacted"}


def test_most_signatures_of_strange_synthetic_pages_are_found(pipeline):
    found = wanted = marks = 0
    for page in samples.pages(24, 22):
        answer = pipeline.annotate(picture(page)).pages[0]
        boxes = [mark.box for mark in answer.marks if mark.kind == "signature"]
        marks += len(boxes)
        for box in page.boxes:
            if box.label == 1:
                wanted += 1
                sides = (box.ymin, box.xmin, box.ymax, box.xmax)
                found += any(overlap(one, sides) >= 0.5 for one in boxes)
    assert wanted >= 15
    assert found >= 0.7 * wanted
    assert marks <= 1.6 * wanted


def test_strangers_are_told_apart(pipeline):
    right = 0
    for writer in range(10):
        own = [samples.signature(23, writer, number) for number in range(4)]
        pipeline.enroll(f"writer {writer}", own[:3], clean=False)
        right += pipeline.verify(f"writer {writer}", own[3], clean=False).genuine
        right += not pipeline.verify(
            f"writer {writer}", samples.signature(23, (writer + 1) % 10, 3), clean=False
        ).genuine
    assert right >= 17
    names = [pipeline.identify(samples.signature(23, writer, 3), clean=False) for writer in range(10)]
    assert sum(found.candidates[0].identity == f"writer {n}" for n, found in enumerate(names)) >= 8


def test_the_cleaner_leaves_ink_and_takes_the_rest(pipeline):
    wrong_before = wrong_after = 0.0
    for noisy, clean in samples.crop_pairs(12, 24):
        after = np.asarray(pipeline.ink(Image.fromarray(noisy)).convert("L"))
        wrong_before += np.abs(noisy.astype(float) - clean).mean()
        wrong_after += np.abs(after.astype(float) - clean).mean()
    assert wrong_after < 0.4 * wrong_before


def test_signatures_of_real_letters_are_found(pipeline, shared_data):
    """A floor on 30 of the letters; benchmarks/zero_shot.py has the figures."""
    from training.data import formats

    files, _ = formats.read_yolo(shared_data / "tobacco800-signatures", ["signature"])
    found = wanted = 0
    for file in files[::11][:30]:
        page = file.load(1600)
        boxes = [mark.box for mark in pipeline.annotate(picture(page)).pages[0].marks]
        for box in page.boxes:
            wanted += 1
            found += any(overlap(one, (box.ymin, box.xmin, box.ymax, box.xmax)) >= 0.5 for one in boxes)
    assert wanted >= 25
    assert found >= 0.5 * wanted
