"""The report: figures, pictures and charts of a run, in one file that needs no network."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import math
import re
import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export import report, report_extractor, report_pages, report_plots
from export.report_pages import Found
from training.data import signatures
from training.data.page import Box, Page
from training.errors import UserError

SIGNATURE = Box(0.5, 0.1, 0.6, 0.4, 1)
DATE = Box(0.7, 0.1, 0.75, 0.3, 4)
CLASSES = {1: "signature", 2: "initials", 3: "redaction", 4: "date"}


def make_page(name: str, *boxes: Box) -> Page:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 160), "white").save(buffer, "PNG")
    return Page(name, name, buffer.getvalue(), 160, 120, boxes)


def moved(box: Box, right: float) -> Box:
    return dataclasses.replace(box, xmin=box.xmin + right, xmax=box.xmax + right)


def make_run(**changes) -> report.Run:
    pages = [
        make_page("good.png", SIGNATURE),
        make_page("<bad>.png", SIGNATURE, DATE),
        make_page("empty.png"),
    ]
    answers = iter([[Found(SIGNATURE, 0.9)], [Found(moved(SIGNATURE, 0.3), 0.8)], []])
    values = {
        "record": {
            "experiment": "retinanet_signverod",
            "command": ["train.py", "--params_override={a: 1}"],
            "git": {"commit": "0123456789abcdef", "changed": False},
            "versions": {"tensorflow": "2.15.1"},
            "data": {"train": {"records": 12, "fingerprint": "feed"}},
        },
        "config": "seed: 0\n",
        "train": [
            {"step": step, "time": 60.0 * step, "training_loss": 2.0 / step, "images_per_second": 5.0}
            for step in range(1, 6)
        ],
        "evaluations": [
            {"step": 2, "AP": 0.25, "AP50": 0.5, "AP75": 0.1},
            {"step": 5, "AP": 0.2, "AP50": 0.75, "AP75": 0.1},
        ],
        "card": {"source": "test", "seed": 3, "splits": {"eval": {"pages": 3, "documents": 2, "boxes": {}}}},
        "classes": CLASSES,
        "validation": {},
        "pages": report_pages.detect_pages(lambda image: next(answers), pages),
        "score": 0.3,
        "model_megabytes": 9.25,
    }
    return report.Run(**{**values, **changes})


class Reader(html.parser.HTMLParser):
    """Collects addresses and the text of a page; checks that tags are closed in order."""

    VOID = frozenset({"meta", "input", "img"})

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data + "\n"


def test_page_is_whole_and_asks_no_network():
    text = report.render(make_run())
    reader = Reader(text)
    assert reader.open == []
    assert len(reader.addresses) == 4  # three pages, of which one is shown as a worst one too
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert not re.search(r"@import|url\(|<script|<link", text)


def test_figures_are_those_of_the_run():
    words = Reader(report.render(make_run())).words
    for figure in ("0.250", "0.500", "1 of 3", "9.2 MB", "4.0 min", "5.0 images/s", "0123456789ab"):
        assert figure in words, figure
    assert "<bad>.png" in words
    assert "--params_override={a: 1}" in words


def test_best_checkpoint_is_the_one_with_the_highest_ap():
    assert make_run().best["step"] == 2
    assert make_run(evaluations=[]).best == {}


def test_undefined_precision_is_not_a_number():
    assert "-1.0" not in Reader(report.render(make_run())).words


@pytest.mark.parametrize(("passed", "said"), [(True, "passed"), (False, "FAILED")])
def test_parity_says_verdict_and_limits(passed, said):
    validation = {
        **{"passed": passed, "pages": 20, "detections": 31, "score": 3e-7, "limits": {"score": 1e-3}},
        "failures": [] if passed else ["score: differs by 1"],
    }
    words = Reader(report.render(make_run(validation=validation))).words
    assert said in words
    assert "3e-07" in words
    assert ("score: differs by 1" in words) is not passed


def test_agreement_on_nothing_found_is_not_called_equal():
    words = Reader(report.render(make_run(validation={"passed": True, "detections": 0}))).words
    assert "heads equal" in words
    assert "\nequal\n" not in words
    words = Reader(report.render(make_run(validation={"passed": True, "detections": 3}))).words
    assert "\nequal\n" in words


def test_run_without_evaluation_or_card_still_reports():
    words = Reader(report.render(make_run(evaluations=[], train=[], card={}, pages=[]))).words
    assert "No evaluation was recorded." in words


def test_matching_takes_the_best_score_first_and_each_truth_once():
    found = [Found(moved(SIGNATURE, 0.05), 0.9), Found(SIGNATURE, 0.8), Found(DATE, 0.7)]
    assert report_pages.match((SIGNATURE, DATE), found) == (0, None, 1)


def test_other_class_in_the_same_place_is_a_false_alarm():
    other = dataclasses.replace(SIGNATURE, label=2)
    page = report_pages.detect_pages(lambda image: [Found(other, 0.9)], [make_page("a", SIGNATURE)])[0]
    assert (page.hits, page.false_alarms, page.misses) == (0, 1, 1)


def test_iou_of_half_shifted_boxes():
    assert math.isclose(report_pages.iou(Box(0, 0, 1, 0.5, 1), Box(0, 0.25, 1, 0.75, 1)), 1 / 3)
    assert report_pages.iou(SIGNATURE, DATE) == 0.0
    assert report_pages.iou(SIGNATURE, SIGNATURE) == pytest.approx(1.0)


def test_worst_pages_come_first_and_faultless_ones_not_at_all():
    assert [one.page.name for one in report_pages.worst(make_run().pages, 5)] == ["<bad>.png"]


def test_average_precision_counts_each_class_by_itself():
    answers = iter([[Found(SIGNATURE, 0.9), Found(DATE, 0.1)], [Found(moved(SIGNATURE, 0.3), 0.8)]])
    pages = [make_page("a", SIGNATURE, DATE), make_page("b", SIGNATURE)]
    results = report_pages.detect_pages(lambda image: next(answers), pages, score=0.5)
    figures = report_pages.average_precision(results, [1, 2, 4])
    assert len(results[0].found) == 1
    assert figures[4]["AP"] == pytest.approx(1.0)  # under the shown score, and counted all the same
    assert figures[1]["AP50"] == pytest.approx(0.5, abs=0.01)
    assert figures[2]["AP"] == -1.0


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_data_and_are_few(low, extent):
    marks = report_plots.ticks(low, low + extent)
    slack = (marks[1] - marks[0]) * 1e-6
    assert marks[0] <= low + slack
    assert marks[-1] >= low + extent - slack
    assert 2 <= len(marks) <= 8


def test_chart_puts_higher_values_higher():
    chart = report_plots.line_chart("y", [report_plots.Series("s", [(0, 1.0), (1, 3.0)])], "x")
    points = re.search(r"polyline points='([^']+)'", chart)
    places = np.array([place.split(",") for place in points[1].split()], float)
    assert places[1, 0] > places[0, 0]
    assert places[1, 1] < places[0, 1]


def test_the_extractor_s_part_shows_its_figures_and_what_needs_no_training(extractor_run, whole_bundle):
    onnx = whole_bundle / "extractor.onnx"
    found = report_extractor.read_run(extractor_run, onnx, extractor_run.parent / "data")
    words = Reader(report_extractor.render(found)).words
    own = found.rows["this extractor"][1]
    assert 0 <= own["low"] <= own["eer_skilled"] <= own["high"] <= 1
    for text in (
        f"{own['eer_skilled']:.1%}",
        "histograms of directions",
        "stroke width",
        "The worst mistakes",
    ):
        assert text in words, text


def test_an_extractor_s_part_without_a_forgery_or_a_file_says_so(extractor_run, whole_bundle, tmp_path):
    with pytest.raises(UserError, match="--extractor_onnx"):
        report_extractor.read_run(extractor_run, tmp_path / "none.onnx", tmp_path)
    signatures.write_samples(tmp_path, writers=2, genuine=2, forged=0)
    for path in (tmp_path / "signatures").glob("train*"):
        path.rename(path.with_name(path.name.replace("train", "eval")))
    with pytest.raises(UserError, match="a forgery"):
        report_extractor.read_run(extractor_run, whole_bundle / "extractor.onnx", tmp_path / "signatures")


def test_the_command_is_one_that_a_shell_takes():
    given = ["train.py", "--params_override={seed: 'a b', path: '$HOME'}"]
    assert shlex.split(report._command({"command": given})) == ["python", "-m", "training.train", given[1]]
