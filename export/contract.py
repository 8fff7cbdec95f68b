"""The contract of an exported model as data: inputs, outputs, steps before and after, labels.

Names, types and shapes are read from the ONNX file; what a file cannot say (layout, range, the steps outside
of the graph) stands in the tables here, with the constants of the SDK's own code.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from signver.cleaner import SIDE
from signver.index import PRIOR_PAIRS, RIDGE
from signver.pipeline import MARGIN as CROP_MARGIN
from signver.preprocessing import BALANCE, FLATTEST, LONGEST, SPREAD
from training.errors import UserError

# kind -> value -> layout, range, meaning.
_VALUES: dict[str, dict[str, tuple[str, list[float] | None, str]]] = {
    "detector": {
        "image": ("batch height width channel", [0, 255], "A page of any size, RGB, rows from the top."),
        "detection_boxes": (
            "batch detection coordinate",
            [0, 1],
            "ymin, xmin, ymax, xmax as fractions of the page; y down.",
        ),
        "detection_scores": ("batch detection", [0, 1], "Falling; 0 beyond num_detections."),
        "detection_classes": ("batch detection", None, "Keys of labels; from 1 on."),
        "num_detections": ("batch", None, "How many detections are filled."),
        "raw_boxes": ("batch anchor coordinate", None, "Heads before decoding, for proofs of equality."),
        "raw_logits": ("batch anchor class", None, "Heads before the sigmoid, for proofs of equality."),
    },
    "cleaner": {
        "input": ("batch height width channel", [0, 1], "RGB, dark ink on white."),
        "output": ("batch height width channel", [0, 1], "The ink alone, dark on white; channels are equal."),
    },
    "extractor": {
        "image": ("batch height width channel", [0, 1], "Share of ink: 1 is ink, 0 is paper."),
        "embedding": ("batch value", [-1, 1], "Of length 1; the cosine of two says how alike they are."),
    },
}

_DECODE: dict[str, Any] = {
    "step": "decode",
    "colour": "RGB",
    "dtype": "uint8",
    "text": "Decode to 8-bit RGB, rows from the top; apply the EXIF rotation; transparency becomes white.",
}


def read_model(path: pathlib.Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """An ONNX file of the harness and its metadata.

    Raises:
      UserError: no such file, or one that is no signver model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise UserError(f"{path}: cannot be read as ONNX ({error}).") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if metadata.get("signver.model") not in _VALUES:
        raise UserError(
            f"{path}: a bundle holds detectors, cleaners and extractors; signver.model is "
            f"'{metadata.get('signver.model', 'missing')}'."
        )
    return model, metadata


def describe(path: pathlib.Path) -> dict[str, Any]:
    """The manifest's fields that follow from the file: versions, values, steps, labels.

    Raises:
      UserError: as `read_model`.
    """
    model, metadata = read_model(path)
    kind = metadata["signver.model"]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    before, after = _STEPS[kind](metadata)
    return {
        "opset": opset,
        "ir_version": model.ir_version,
        "inputs": [_value(kind, value) for value in model.graph.input],
        "outputs": [_value(kind, value) for value in model.graph.output],
        "preprocessing": before,
        "postprocessing": after,
        "labels": json.loads(metadata.get("signver.classes", "{}")),
    }


def _value(kind: str, value: onnx.ValueInfoProto) -> dict[str, Any]:
    layout, bounds, meaning = _VALUES[kind][value.name]
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
        "layout": layout,
        "range": bounds,
        "meaning": meaning,
    }


def _detector_steps(metadata: dict[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    size = json.loads(metadata["signver.input_size"])
    nms = json.loads(metadata["signver.nms"])
    before: list[dict[str, Any]] = [
        _DECODE,
        {
            "step": "reduce_blocks",
            "input_size": size,
            "divisor": 2,
            "least": 2,
            "text": "n = floor(max(height / input_size[0], width / input_size[1]) / divisor). Where n is at "
            "least 2, make n x n pixels one by their mean, rounded; the last block of a row or column is the "
            "mean of what is there.",
        },
        {"step": "batch", "text": "Add a leading dimension of 1. Resizing and normalising are in the graph."},
    ]
    after: list[dict[str, Any]] = [
        {
            "step": "keep",
            "output": "detection_scores",
            "at_least": "thresholds.score",
            "text": "Of the first num_detections, keep what scores at least the threshold; suppression is "
            f"done (IoU {nms['iou_threshold']:g}).",
        },
        {
            "step": "crop",
            "labels": ["signature"],
            "margin": CROP_MARGIN,
            "text": "Cut each signature out of the page as it was decoded, the box grown by margin times its "
            "width and height on each side; left and top rounded down, right and bottom to the nearest.",
        },
    ]
    return before, after


def _cleaner_steps(_: dict[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    before: list[dict[str, Any]] = [
        _DECODE,
        {
            "step": "fit_square",
            "side": SIDE,
            "align": "centre",
            "fill": 255,
            "filter": "bicubic",
            "filter_below_half": "box",
            "text": "Scale the longer side to side, aspect ratio kept, bicubic, or by area where the scale "
            "is under one half; centre on a white square.",
        },
        {"step": "divide", "by": 255, "text": "float32 in 0..1, a leading dimension of 1."},
    ]
    after: list[dict[str, Any]] = [
        {"step": "channel", "index": 0, "text": "Take one channel; all are equal."},
        {"step": "multiply", "by": 255, "text": "Round and clip to uint8 0..255."},
        {"step": "cut_padding", "text": "Cut off what fit_square added."},
    ]
    return before, after


def _enlarge_step(below: int) -> list[dict[str, Any]]:
    if not below:
        return []
    text = (
        "Where the longer side is under below, double height and width until it is not, six times at most: "
        "at once, bicubic as Pillow does it, along the rows, then along the columns, rounded after each."
    )
    return [{"step": "enlarge", "below": below, "filter": "bicubic", "text": text}]


def _extractor_steps(metadata: dict[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    before: list[dict[str, Any]] = [
        _DECODE,
        {
            "step": "limit",
            "longest": LONGEST,
            "text": "Where the longer side is over longest, average whole blocks, as reduce_blocks does.",
        },
        {
            "step": "grey",
            "weights": [0.299, 0.587, 0.114],
            "text": "Grey level, rounded, of red, green, blue.",
        },
        *_enlarge_step(int(metadata.get("signver.enlarge_below", 0))),
        {"step": "otsu", "ink": "at or below", "text": "Ink is what is at or below Otsu's threshold."},
        {
            "step": "moments",
            "flattest": FLATTEST,
            "text": "Mean and standard deviation of the ink's rows and columns, in pixels, 1/12 added to the "
            "variance for a pixel's width; neither deviation is less than flattest times the other.",
        },
        {
            "step": "scale_by_moments",
            "size": json.loads(metadata["signver.input_size"]),
            "spread": list(SPREAD),
            "balance": BALANCE,
            "fill": 0,
            "text": "With a = size[0] / 2 / spread[0] / deviation of rows, b likewise of columns: height "
            "times a^((1 + balance) / 2) b^((1 - balance) / 2), width times b^((1 + balance) / 2) "
            "a^((1 - balance) / 2), averaged by area, the mean of the ink in the middle; float32, 0..1.",
        },
    ]
    after: list[dict[str, Any]] = [
        {
            "step": "cosine",
            "at_least": "thresholds.cosine",
            "text": "Two signatures are of one writer where the cosine of their embeddings is at least the "
            "threshold.",
        },
    ]
    if "signver.consistency" in metadata:
        after.append(
            {
                "step": "references",
                "consistency": float(metadata["signver.consistency"]),
                "prior_pairs": PRIOR_PAIRS,
                "ridge": RIDGE,
                "text": "Of k > 1 references take instead of the cosine: consistency + (e - d) / 2. B is "
                "the inverse of the matrix of the references' cosines, ridge added to its diagonal, with a "
                "border of ones and a corner of 0. d = 1 - c' B c, c being their cosines with the questioned "
                "signature and a 1. e is the mean of (f - ridge / (k - 1)) (1 - 1 / k^2) + ridge / k, "
                "weighted k (k - 1) / 2, and of (1 - consistency) (1 + 1 / k) + ridge / k, weighted "
                "prior_pairs, where f is the mean over references i of 1 / B_ii - ridge.",
            }
        )
    return before, after


_STEPS = {"detector": _detector_steps, "cleaner": _cleaner_steps, "extractor": _extractor_steps}
