"""Model cards and the third-party notice of a bundle, Markdown made of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PURPOSE = {
    "detector": "Finds signatures, initials, redactions and dates on a page.",
    "cleaner": "Takes lines, print, stamps and dirt off the crop of a signature and leaves its ink.",
    "extractor": "Makes a vector of a signature's ink; the cosine of two says whether one hand made both.",
}
_LIMITS = {
    "detector": [
        "Handwritten notes are at times taken for signatures; small initials below handwriting are missed.",
        "The score is no probability: what it is worth on your pages, your pages say.",
    ],
    "cleaner": [
        "Print and lines that run along a stroke can take pieces of it along.",
        "What it gives is an estimate of the ink, not evidence.",
    ],
    "extractor": [
        "Decides on the shape of the ink alone; a traced or copied signature looks genuine to it.",
        "The threshold holds for writers like those of the validation; measure it on your own.",
        "An answer is a reason to look, never a proof of forgery.",
    ],
}
_NOTICE = """# Third-party notice

This bundle holds weights, graphs and test pictures. No third-party code is in it.

| what | where from | licence |
|---|---|---|
| detector's architecture (RetinaNet, MobileNetV2 or ResNet) | TensorFlow Model Garden | Apache-2.0 |
| conversion of the graphs | TensorFlow, tf2onnx, ONNX | Apache-2.0 |
| 8-bit conversion, where a model is int8 | ONNX Runtime | MIT |
| letters in the golden page | DejaVu, STIX, Computer Modern, as Matplotlib ships them | each its own, free |

To run it, nothing but ONNX Runtime (MIT) is needed; the Python SDK adds NumPy (BSD-3-Clause) and Pillow
(MIT-CMU).
"""


def card(kind: str, entry: Mapping[str, Any]) -> str:
    """The card of one model.

    Args:
      kind: "detector", "cleaner" or "extractor".
      entry: its entry in the manifest.
    """
    run, validation = entry["run"], entry["validation"]
    versions = f"opset {entry['opset']}, IR {entry['ir_version']}"
    lines = [
        *("---", f"license: {entry['licence'].lower()}", "library_name: onnx"),
        *(f"tags: [signature, {kind}]", "---", "", f"# {kind.capitalize()}", "", _PURPOSE[kind], ""),
        f"{entry['precision']}, {entry['size'] / 1e6:.1f} MB, {versions}; "
        f"`{entry['file']}`, SHA-256 `{entry['sha256']}`. Licence: {entry['licence']}.",
        *("", "## Inputs and outputs", "", "| | name | type | shape | range | meaning |"),
        "|---|---|---|---|---|---|",
        *(_value_row("in", value) for value in entry["inputs"]),
        *(_value_row("out", value) for value in entry["outputs"]),
        *_section("Before", [_step(step) for step in entry["preprocessing"]], "1."),
        *_section("After", [_step(step) for step in entry["postprocessing"]], "1."),
    ]
    if entry["labels"]:
        names = ", ".join(f"{label} {name}" for label, name in sorted(entry["labels"].items()))
        lines += ["", f"Labels: {names}."]
    for name, threshold in sorted(entry["thresholds"].items()):
        lines += ["", f"## Threshold `{name}`: {threshold['value']:.4g}", "", threshold["meaning"]]
        lines += _figures(threshold["figures"])
    lines += ["", "## Validation", "", f"{validation['data']}, at step {validation['step']}."]
    lines += _figures(validation["figures"]) or ["", "The run recorded no evaluation."]
    if "quantization" in entry:
        lines += ["", "## 8-bit integers", *_figures(entry["quantization"])]
    if "equality" in entry:
        lines += ["", "## Equality", "", entry["equality"]]
    lines += _section("Limits", _LIMITS[kind], "-")
    lines += ["", "## Run", "", "| | |", "|---|---|"]
    lines += [f"| {key} | `{run[key]}` |" for key in sorted(run) if key != "data"]
    for split, data in sorted(run["data"].items()):
        lines.append(
            f"| {split} data | {data['source']}, {data['records']} records, `{data['fingerprint']}` |"
        )
    return "\n".join([*lines, ""])


def notice(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The notice, with what the weights were trained on."""
    lines = [_NOTICE, "| weights | trained on | licence |", "|---|---|---|"]
    for kind, entry in sorted(models.items()):
        train = entry["run"]["data"].get("train", {})
        trained = f"{train['source']}, {train['records']} records" if train else "unknown"
        lines.append(f"| {kind} | {trained} | {entry['licence']} |")
    return "\n".join([*lines, ""])


def _value_row(side: str, value: Mapping[str, Any]) -> str:
    shape = ", ".join(str(size) for size in value["shape"])
    bounds = "any" if value["range"] is None else f"{value['range'][0]:g} to {value['range'][1]:g}"
    return (
        f"| {side} | `{value['name']}` | {value['dtype']} | [{shape}] {value['layout']} | {bounds} | "
        f"{value['meaning']} |"
    )


def _step(step: Mapping[str, Any]) -> str:
    """The sentence of a step and its parameters."""
    values = ", ".join(f"{key} {step[key]}" for key in sorted(step) if key not in ("step", "text"))
    return step["text"] + (f" (`{step['step']}`: {values})" if values else "")


def _section(title: str, items: Sequence[str], mark: str) -> list[str]:
    return ["", f"## {title}", "", *(f"{mark} {item}" for item in items)] if items else []


def _figures(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return []
    rows = [f"| {name} | {_shown(value)} |" for name, value in sorted(figures.items())]
    return ["", "| figure | value |", "|---|---|", *rows]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
