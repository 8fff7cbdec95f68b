"""Pages are reproducible, their boxes hold ink, and evaluation writers are nobody from training."""

import collections
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from training.data.synthetic import emblems
from training.data.synthetic import sheet as pages
from training.data.synthetic.page import synthesize_page

SIDE = 500


def _pixels(page):
    return np.asarray(Image.open(io.BytesIO(page.image)).convert("L"))


def test_the_same_seed_and_index_give_the_same_bytes_and_others_others():
    assert synthesize_page(4, 7, long_side=SIDE) == synthesize_page(4, 7, long_side=SIDE)
    images = {synthesize_page(seed, index, long_side=SIDE).image for seed in (4, 5) for index in (7, 8)}
    assert len(images) == 4


@pytest.mark.parametrize("index", range(25))
def test_boxes_lie_on_the_page_and_hold_ink_to_their_edges(index):
    page = synthesize_page(1, index, long_side=SIDE)
    pixels = _pixels(page)
    assert pixels.shape == (page.height, page.width)
    for box in page.boxes:
        assert 0 <= box.ymin < box.ymax <= 1
        assert 0 <= box.xmin < box.xmax <= 1
        top, left = int(box.ymin * page.height), int(box.xmin * page.width)
        inside = pixels[
            top : int(np.ceil(box.ymax * page.height)), left : int(np.ceil(box.xmax * page.width))
        ]
        if box.label in (pages.SIGNATURE, pages.INITIALS):
            paper = np.percentile(pixels, 90)
            assert inside.min() < paper - 30


def test_a_set_has_every_class_and_pages_that_nobody_signed():
    counts = collections.Counter()
    empty = 0
    for index in range(80):
        page = synthesize_page(2, index, long_side=SIDE)
        counts.update(box.label for box in page.boxes)
        empty += not any(box.label == pages.SIGNATURE for box in page.boxes)
        assert "plain" not in page.name or not page.boxes
    assert set(counts) == {1, 2, 3, 4}
    assert counts[pages.SIGNATURE] > 40
    assert empty > 5


def test_evaluation_pages_use_other_writers(monkeypatch):
    seen = {True: set(), False: set()}
    original = pages.handwriting.Writer

    for evaluation in (True, False):
        monkeypatch.setattr(
            pages.handwriting, "Writer", lambda seed, into=seen[evaluation]: into.add(seed) or original(seed)
        )
        for index in range(15):
            synthesize_page(3, index, long_side=300, evaluation=evaluation)
    assert len(seen[True]) > 10
    assert len(seen[False]) > 10
    assert max(seen[False]) < min(seen[True])


def test_the_command_writes_the_same_bytes_on_one_and_two_processes(tmp_path):
    def run(name, processes, *more):
        command = [
            sys.executable,
            "-m",
            "training.data",
            "synthesize",
            "pages",
            f"--output={tmp_path / name}",
        ]
        options = ["--count=6", "--eval_count=2", "--long_side=300", f"--processes={processes}"]
        return subprocess.run([*command, *options, *more], capture_output=True, text=True)

    for name, processes in (("one", 1), ("two", 2)):
        done = run(name, processes)
        assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 8  # four training shards, one evaluation shard, label map, two cards
    for file in files:
        if file != "dataset_card.md":
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    assert run("none", 1, "--count=0").returncode == 2


def test_signatures_are_as_large_as_people_write_them():
    """Medians of 370 boxes on letters: 0.24 of a page's width, 0.053 of its height."""
    boxes = [
        box
        for index in range(40)
        for box in synthesize_page(6, index, long_side=300).boxes
        if box.label == pages.SIGNATURE
    ]
    assert 0.15 < np.median([box.xmax - box.xmin for box in boxes]) < 0.3
    assert 0.03 < np.median([box.ymax - box.ymin for box in boxes]) < 0.07


def test_a_page_has_the_size_that_was_asked_for():
    for index in range(8):
        page = synthesize_page(1, index, long_side=256)
        assert max(page.width, page.height) == 256


def test_a_margin_widens_boxes_by_its_millimetres_initials_more_and_redactions_less():
    seen = collections.Counter()
    for index in range(12):
        exact = synthesize_page(2, index, long_side=SIDE)
        wide = synthesize_page(2, index, long_side=SIDE, margin=2.8)
        assert wide.image == exact.image
        assert len(wide.boxes) == len(exact.boxes)
        for one, other in zip(exact.boxes, wide.boxes, strict=True):
            seen[one.label] += 1
            # 2.8 mm of 280: a hundredth of the longer side, more of the shorter.
            share = {pages.INITIALS: 1.5, pages.REDACTION: 0.5}.get(one.label, 1.0)
            for inner, outer in ((other.ymin, one.ymin), (other.xmin, one.xmin)):
                assert inner == 0 or 0.0099 < (outer - inner) / share < 0.026
            for inner, outer in ((one.ymax, other.ymax), (one.xmax, other.xmax)):
                assert outer == 1 or 0.0099 < (outer - inner) / share < 0.026
    assert {pages.SIGNATURE, pages.INITIALS, pages.REDACTION} <= set(seen)


@pytest.mark.parametrize("size", [8, 30, 120])
def test_logos_are_ink_without_a_label(size):
    paper = np.full((400, 400, 3), 255, np.uint8)
    blank = 0
    for seed in range(40):
        sheet = pages.Sheet(paper.copy(), np.random.default_rng(seed), 0, "DejaVuSans.ttf", 14)
        emblems.logo(sheet, 100, 100, size)
        emblems.seal(sheet, 250, 250)
        assert not sheet.labelled
        assert (sheet.paper[:95] == 255).all()
        blank += bool((sheet.paper[95:240, 95:240] == 255).all())
    assert blank < 10


def test_worn_ink_is_labelled_where_ink_is_left():
    coverage = np.zeros((60, 200), np.float32)
    coverage[28:32, 10:190] = 1.0
    worn = [pages._worn(coverage, np.random.default_rng(seed)) for seed in range(40)]
    kept = np.array([one.sum() / coverage.sum() for one in worn])
    assert kept.max() <= 1.0
    assert 0.3 < np.median(kept) < 0.95
    assert all(one.max() > 0.3 and (one <= coverage).all() for one in worn)
