"""One HTML file that shows a run: figures, curves, pages with true and found boxes, parity, record.

The file holds its pictures and style and asks no network for anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import pathlib
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from export import report_cleaner, report_extractor, report_pages
from export.bundle import DEFAULT_SCORE
from export.report_html import section, table, tiles
from export.report_pages import Found, PageResult
from export.report_plots import Series, line_chart, points, smooth
from training import options, record
from training.data import location, tfrecord
from training.data.page import Box
from training.errors import UserError
from training.files import atomic_file, read_json

STYLE = pathlib.Path(__file__).with_name("report.css")
_USUAL_PAGES, _WORST_PAGES = 6, 6
_UNDEFINED = "–"


@dataclasses.dataclass(frozen=True)
class Run:
    """What the report tells of, read from the files of a run.

    Attributes:
      record: `run.json`.
      config: the text of `params.yaml`.
      train: the lines of `metrics.jsonl` with phase "train", by step.
      evaluations: those with phase "eval".
      card: the data set's card; empty where it has none.
      classes: label to class name; the model's own where the data set has no label map.
      validation: what `export validate` found; empty where it did not run.
      pages: pages of the data set with what the ONNX file finds on them.
      score: the score from which boxes are counted.
      model_megabytes: size of the ONNX file.
      cleaner: the cleaner's part; None where no cleaner was trained.
      extractor: the extractor's part, likewise.
    """

    record: Mapping[str, Any]
    config: str
    train: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    card: Mapping[str, Any]
    classes: Mapping[int, str]
    validation: Mapping[str, Any]
    pages: Sequence[PageResult]
    score: float
    model_megabytes: float
    cleaner: report_cleaner.CleanerRun | None = None
    extractor: report_extractor.ExtractorRun | None = None

    @property
    def best(self) -> Mapping[str, Any]:
        """The evaluation with the highest AP: by default its checkpoint is exported. Empty where none ran."""
        measured = [line for line in self.evaluations if line.get("AP") is not None]
        return max(measured, key=lambda line: line["AP"], default={})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m export report`."""
    parser.add_argument("--model_dir", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--onnx", type=pathlib.Path, required=True, help="the exported detector")
    location.add_argument(parser)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="data set folder")
    parser.add_argument("--validation", type=pathlib.Path, help="JSON that `export validate` wrote")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the HTML file to write")
    parser.add_argument("--split", default="eval", help="split whose pages are shown (default eval)")
    parser.add_argument(
        "--max_pages",
        type=options.whole(1),
        default=200,
        help="pages of the split that are run (default 200)",
    )
    parser.add_argument(
        "--score", type=float, default=DEFAULT_SCORE, help="count and draw boxes from this score on"
    )
    parser.add_argument("--cleaner", type=pathlib.Path, help="folder of a cleaner's run, for its own part")
    parser.add_argument("--cleaner_onnx", type=pathlib.Path, help="the exported cleaner")
    parser.add_argument("--cleaner_data", type=pathlib.Path, help="its signature set")
    parser.add_argument("--cleaner_validation", type=pathlib.Path, help="JSON that `export validate` wrote")
    parser.add_argument(
        "--extractor", type=pathlib.Path, help="folder of an extractor's run, for its own part"
    )
    parser.add_argument("--extractor_onnx", type=pathlib.Path, help="the exported extractor")
    parser.add_argument("--extractor_data", type=pathlib.Path, help="its signature set")


def run(arguments: argparse.Namespace) -> int:
    """Reads a run, detects on its pages through the SDK, writes the report; returns the exit code."""
    report = read_run(arguments)
    with atomic_file(arguments.output) as temporary:
        temporary.write_text(render(report), encoding="utf-8")
    print(f"report: {arguments.output}")
    return 0


def read_run(arguments: argparse.Namespace) -> Run:
    """Everything the report shows.

    Raises:
      UserError: a file is missing or damaged; the message names it.
    """
    metrics = record.MetricsFile(arguments.model_dir / "metrics.jsonl")
    arguments.data = location.locate_path(arguments.data)
    card = arguments.data / tfrecord.CARD
    label_map = arguments.data / tfrecord.LABEL_MAP
    if not arguments.onnx.exists():
        raise UserError(f"--onnx {arguments.onnx}: no such file; make it with `python -m export onnx`.")
    pages = tfrecord.read_pages(str(arguments.data / f"{arguments.split}-*"))
    chosen = [page for _, page in zip(range(arguments.max_pages), pages, strict=False)]
    return Run(
        record=record.read(arguments.model_dir),
        config=_read_text(arguments.model_dir / "params.yaml"),
        train=list(metrics.lines("train")),
        evaluations=list(metrics.lines("eval")),
        card=read_json(card) if card.exists() else {},
        classes=tfrecord.read_label_map(label_map) if label_map.exists() else _model_classes(arguments.onnx),
        validation=read_json(arguments.validation) if arguments.validation else {},
        pages=report_pages.detect_pages(sdk_detector(arguments.onnx), chosen, arguments.score),
        score=arguments.score,
        model_megabytes=arguments.onnx.stat().st_size / 1e6,
        cleaner=_read_cleaner(arguments) if arguments.cleaner else None,
        extractor=_read_extractor(arguments) if arguments.extractor else None,
    )


def _read_cleaner(arguments: argparse.Namespace) -> report_cleaner.CleanerRun:
    if not (arguments.cleaner_onnx and arguments.cleaner_data):
        raise UserError("--cleaner needs --cleaner_onnx and --cleaner_data beside it.")
    return report_cleaner.read_run(
        arguments.cleaner,
        arguments.cleaner_onnx,
        arguments.cleaner_data,
        arguments.cleaner_validation,
        arguments.max_pages,
    )


def _read_extractor(arguments: argparse.Namespace) -> report_extractor.ExtractorRun:
    if not (arguments.extractor_onnx and arguments.extractor_data):
        raise UserError("--extractor needs --extractor_onnx and --extractor_data beside it.")
    return report_extractor.read_run(arguments.extractor, arguments.extractor_onnx, arguments.extractor_data)


def sdk_detector(onnx: pathlib.Path) -> Callable[[np.ndarray], list[Found]]:
    """What `signver.Detector` finds, as a function of an RGB image, uint8 [h, w, 3]."""
    from signver.detector import Detector

    detector = Detector().load(onnx)

    def detect(image: np.ndarray) -> list[Found]:
        boxes, scores, classes, _ = detector.detect(image)
        return [
            Found(Box(ymin, xmin, ymax, xmax, int(label)), float(value))
            for (ymin, xmin, ymax, xmax), value, label in zip(boxes.tolist(), scores, classes, strict=True)
        ]

    return detect


def _model_classes(onnx: pathlib.Path) -> dict[int, str]:
    from signver.detector import Detector

    return Detector().load(onnx).class_names


def render(report: Run) -> str:
    """The whole HTML page."""
    title = f"Signature detector: {html.escape(str(report.record['experiment']))}"
    sections = [
        section("Result", _headline(report)),
        section("Pages", _pages(report)),
        section("Training", _curves(report)),
        section("Average precision", _precision_table(report)),
        section("TensorFlow against ONNX Runtime", _parity(report.validation)),
        report_cleaner.render(report.cleaner) if report.cleaner else "",
        report_extractor.render(report.extractor) if report.extractor else "",
        section("Data", _data(report)),
        section("Record of the run", _record(report)),
        section("Do it again", _again(report)),
    ]
    started = str(report.record.get("started", ""))
    commit = str(report.record.get("git", {}).get("commit", ""))[:12]
    subtitle = " · ".join(part for part in (started, commit and f"commit {commit}") if part)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f"<header><h1>{title}</h1><p class='note'>{html.escape(subtitle)}</p></header>"
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _headline(report: Run) -> str:
    boxes = sum(len(one.page.boxes) for one in report.pages)
    hits = sum(one.hits for one in report.pages)
    found = sum(len(one.found) for one in report.pages)
    milliseconds = [one.seconds * 1e3 for one in report.pages]
    minutes = _minutes(report)
    speeds = [line["images_per_second"] for line in report.train if line.get("images_per_second")]
    figures = [
        (_fraction(report.best.get("AP50")), "AP50", "held-out pages, best checkpoint"),
        (_fraction(report.best.get("AP")), "AP", "mean over IoU 0.50 to 0.95"),
        (f"{hits} of {boxes}", "boxes found", f"score ≥ {report.score:g}, IoU ≥ {report_pages.MATCH_IOU}"),
        (f"{found - hits}", "false alarms", f"on {len(report.pages)} pages"),
        (
            f"{statistics.median(milliseconds):.0f} ms" if milliseconds else _UNDEFINED,
            "a page",
            f"ONNX Runtime, median; file {report.model_megabytes:.1f} MB",
        ),
        (
            f"{minutes:.1f} min" if minutes is not None else _UNDEFINED,
            "training",
            f"{report.record.get('device', '')}, {statistics.median(speeds):.1f} images/s" if speeds else "",
        ),
    ]
    if report.validation:
        figures.append((_verdict(report.validation), "ONNX file", "against TensorFlow, below"))
    return tiles(figures)


def _verdict(validation: Mapping[str, Any]) -> str:
    """One or two words; without a detection only the heads were compared, which is no proof of boxes."""
    if not validation.get("passed"):
        return "NOT equal"
    return "equal" if validation.get("detections") else "heads equal"


def _minutes(report: Run) -> float | None:
    """Between the first and the last line of the metrics; a pause between two starts counts too."""
    times = [line["time"] for line in (*report.train, *report.evaluations) if "time" in line]
    return (max(times) - min(times)) / 60 if len(times) > 1 else None


def _pages(report: Run) -> str:
    if not report.pages:
        return "<p class='note'>No page.</p>"
    legend = (
        "<input type='checkbox' id='truth' checked><label for='truth' class='swatch true'>true box</label>"
        "<input type='checkbox' id='found' checked><label for='found' class='swatch hit'>found</label>"
        "<span class='swatch false'>found, but nothing there</span>"
    )
    usual = report_pages.spread(report.pages, _USUAL_PAGES)
    worst = report_pages.worst(report.pages, _WORST_PAGES)
    groups = _gallery("Evenly through the held-out pages, chosen without looking", usual, report.classes)
    if worst:
        groups += _gallery("The worst pages", worst, report.classes)
    return f"<div class='overlays'>{legend}{groups}</div>"


def _gallery(title: str, results: Sequence[PageResult], classes: Mapping[int, str]) -> str:
    figures = "".join(report_pages.figure(one, classes) for one in results)
    return f"<div class='group'><h3>{html.escape(title)}</h3><div class='gallery'>{figures}</div></div>"


def _curves(report: Run) -> str:
    loss = points(report.train, "training_loss")
    validation = points(report.evaluations, "validation_loss")
    charts = [
        line_chart(
            "Loss",
            [
                Series("training", smooth(loss, max(1, len(loss) // 50))),
                Series("held-out", validation, marks=True),
                Series("classification part", points(report.train, "cls_loss")),
            ],
            "step",
        ),
        line_chart("Learning rate", [Series("rate", points(report.train, "learning_rate"))], "step"),
        line_chart(
            "Average precision on held-out pages",
            [Series(name, points(report.evaluations, name), marks=True) for name in ("AP50", "AP", "AP75")],
            "step",
        ),
        line_chart(
            "Images a second", [Series("training", points(report.train, "images_per_second"))], "step"
        ),
    ]
    return f"<div class='charts'>{''.join(charts)}</div>"


def _precision_table(report: Run) -> str:
    best = report.best
    if not best:
        return "<p class='note'>No evaluation was recorded.</p>"
    rows = [["all classes, in training", *(_fraction(best.get(key)) for key in ("AP", "AP50", "AP75"))]]
    measured = report_pages.average_precision(report.pages, sorted(report.classes)) if report.pages else {}
    for label, figures in measured.items():
        rows.append([f"{report.classes[label]}, ONNX", *(_fraction(value) for value in figures.values())])
    by_step = [
        [str(line["step"]), *(_fraction(line.get(key)) for key in ("AP", "AP50", "AP75"))]
        for line in report.evaluations
    ]
    note = (
        f"<p class='note'>Best checkpoint, step {best['step']}; COCO's definitions, by pycocotools. Classes: "
        f"measured here, with the ONNX file through the SDK, on {len(report.pages)} pages.</p>"
    )
    head = ["AP", "AP50", "AP75"]
    return (
        note
        + table(["class", *head], rows)
        + "<details><summary>every evaluation</summary>"
        + table(["step", *head], by_step)
        + "</details>"
    )


def _parity(validation: Mapping[str, Any]) -> str:
    if not validation:
        return "<p class='note'>Not validated: run <code>python -m export validate</code>.</p>"
    limits = validation.get("limits", {})
    verdict = "passed" if validation.get("passed") else "FAILED"
    if not validation.get("detections"):
        verdict += ", on head outputs alone: nothing was found on any page"
    counts = ", ".join(
        f"{validation[key]} {key}" for key in ("pages", "detections") if validation.get(key) is not None
    )
    rows = [[_words(key), _value(validation.get(key)), _value(limit)] for key, limit in limits.items()]
    failures = "".join(f"<li>{html.escape(str(one))}</li>" for one in validation.get("failures", ()))
    return (
        f"<p><b>{verdict}</b>: {html.escape(counts)} compared, matched by class and overlap; head outputs "
        "compared value by value, on random pixels too.</p>"
        + (f"<ul>{failures}</ul>" if failures else "")
        + table(["largest difference", "found", "limit"], rows)
    )


def _is_nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _data(report: Run) -> str:
    if not report.card:
        return "<p class='note'>The data set has no card.</p>"
    names = [report.classes[label] for label in sorted(report.classes)]
    rows = [
        [split, str(summary["pages"]), str(summary["documents"])]
        + [str(summary["boxes"].get(name, 0)) for name in names]
        for split, summary in report.card["splits"].items()
    ]
    notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in report.card.get("notes", ()))
    seed = "" if report.card.get("seed") is None else f"; seed {report.card['seed']}"
    return (
        f"<p>{html.escape(str(report.card['source']))}{seed}</p>"
        + table(["split", "pages", "documents", *names], rows)
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _record(report: Run) -> str:
    record_lines = {
        key: value
        for key, value in report.record.items()
        if key not in ("versions", "data", "history", "git")
    }
    record_lines["command"] = _command(report.record)
    rows = [[_words(key), _value(value)] for key, value in record_lines.items() if not _is_nested(value)]
    git = report.record.get("git", {})
    changed = " with local changes" if git.get("changed") else ""
    rows.append(["commit", f"{git['commit']}{changed}" if git else "not a git checkout"])
    rows += [[name, version] for name, version in report.record.get("versions", {}).items()]
    for split, data in report.record.get("data", {}).items():
        rows.append([f"{split} records", f"{data['records']} · sha256 {data['fingerprint']}"])
    if report.record.get("history"):
        rows.append(["resumed", f"{len(report.record['history'])} times"])
    config = f"<details><summary>resolved config</summary><pre>{html.escape(report.config)}</pre></details>"
    return table(["what", "value"], rows) + config


def _again(report: Run) -> str:
    commit = report.record.get("git", {}).get("commit")
    lines = [f"git checkout {commit}"] if commit else []
    lines += ["scripts/setup.sh && . .venv/bin/activate", _command(report.record)]
    text = html.escape("\n".join(lines))
    return (
        f"<pre>{text}</pre><p class='note'>The seed fixes data order and augmentation; figures differ in the "
        "last digits between machines, and between runs unless <code>deterministic: true</code> is set.</p>"
    )


def _command(run_record: Mapping[str, Any]) -> str:
    program, *arguments = run_record.get("command") or ["train.py"]
    command = ["python", "-m", "training.train"] if program == "train.py" else [program]
    return shlex.join([*command, *arguments])


def _fraction(value: float | None) -> str:
    # COCO says -1 where the data hold no such object.
    return _UNDEFINED if value is None or value < 0 else f"{value:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "NO", None: _UNDEFINED}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_value(entry) for entry in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(entry)}" for key, entry in value.items())
    return str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the folder of a finished run.") from error
