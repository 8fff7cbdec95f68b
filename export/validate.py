"""Proof that an ONNX file computes what the trained model computes.

Three comparisons, on real or synthetic pages and on random pixels:

1. The heads' raw outputs, value by value: the arithmetic.
2. The detections, matched by class and overlap: the decoding and the suppression. Matched, because
   equal scores may come out in another order and an index tells nothing then.
3. The SDK's own code path against the model called directly.

An empty answer proves nothing: a validation without enough detections fails.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from export.saved_model import DETECTOR_OUTPUTS, DetectorModule, load_served
from signver import Detector, SignVerError
from signver.images import as_rgb, reduce_page
from training.errors import UserError
from training.runner import LoadedModel

# Bounds for float32 on another runtime. Raw outputs: values up to 10 and their rounding; a long training is
# so sure of paper that its logits go far beyond, and rounding grows with them.
RAW_LIMIT = 1e-3
_RAW_RANGE = 10.0
# On random pixels of the input's own size no resize rounds: sound files measure 3e-7 to 1e-6 here, one
# weight changed by half 1e-5 to 6e-2, which a largest difference alone does not always show.
RELATIVE_LIMIT = 1e-5
BOX_LIMIT_PIXELS = 0.5
SCORE_LIMIT = 1e-3
# Under this IoU two detections are not the same one.
MATCH_IOU = 0.9
# Boxes without area are one where no coordinate differs by this share of the page.
_SAME_PLACE = 1e-4
# Of two boxes whose overlap is that near suppression's threshold the lower may fall either way on another
# runtime, by the last bits of a coordinate.
_OVERLAP_ROUNDING = 1e-3
# More of them than this share are no chance.
_ROUNDED_SHARE = 0.01
# Detections under this score decide nothing and may differ by what suppression kept.
COMPARED_SCORE = 0.05
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# uint8 [1, h, w, 3] to the arrays of DETECTOR_OUTPUTS.
Trained = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass
class Report:
    """What a validation found.

    Attributes:
      pages: compared pages.
      detections: compared detections, over COMPARED_SCORE, of the trained model.
      unmatched: detections of either side without a partner of the same class and place.
      rounded: those not counted there because suppression stood on the edge, see `settled_by_rounding`.
      other_class: pairs of them that stand in the same place and differ in class.
      box_pixels: largest difference of a coordinate, in pixels of the page.
      score: largest difference of a score.
      raw_boxes, raw_logits: largest differences of head outputs, on pages and random pixels; where outputs
        are larger than 10, as a share of a tenth of the largest.
      raw_relative: root mean square of those differences on random pixels, over the outputs' spread.
      failures: what makes it fail, one sentence each; empty when it passes.
    """

    pages: int = 0
    detections: int = 0
    unmatched: int = 0
    rounded: int = 0
    other_class: int = 0
    box_pixels: float = 0.0
    score: float = 0.0
    raw_boxes: float = 0.0
    raw_logits: float = 0.0
    raw_relative: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped."""
        return not self.failures

    @property
    def most_rounded(self) -> int:
        """How many `rounded` may be; one box too many hides two."""
        return 2 + int(_ROUNDED_SHARE * self.detections)

    def differences(self) -> list[tuple[str, float, float]]:
        """What is measured, how much it differs, and by how much it may."""
        return [
            ("raw box outputs", self.raw_boxes, RAW_LIMIT),
            ("raw class logits", self.raw_logits, RAW_LIMIT),
            ("raw outputs, relative RMS", self.raw_relative, RELATIVE_LIMIT),
            ("box coordinate, pixels", self.box_pixels, BOX_LIMIT_PIXELS),
            ("score", self.score, SCORE_LIMIT),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the limits beside the figures."""
        limits = {
            "raw_boxes": RAW_LIMIT,
            "raw_logits": RAW_LIMIT,
            "raw_relative": RELATIVE_LIMIT,
            "box_pixels": BOX_LIMIT_PIXELS,
            "score": SCORE_LIMIT,
            "unmatched": 0,
            "rounded": self.most_rounded,
            "other_class": 0,
        }
        return {**dataclasses.asdict(self), "passed": self.passed, "limits": limits}

    def text(self) -> str:
        """The report as a table."""
        rows = [
            *self.differences(),
            ("detections without partner", self.unmatched, 0),
            ("… by an overlap on the edge", self.rounded, self.most_rounded),
            ("same place, other class", self.other_class, 0),
        ]
        return table(f"{self.pages} pages, {self.detections} detections compared", rows, self.failures)


def validate_detector(
    loaded: LoadedModel,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum_detections: int = 10,
    seed: int = 0,
) -> Report:
    """Compares a trained detector with its ONNX file.

    Args:
      loaded: the trained model.
      onnx_file: what `python -m export onnx` wrote.
      images: RGB pages.
      minimum_detections: fewer over COMPARED_SCORE on all pages together fail.
      seed: of the random pixels.

    Raises:
      UserError: no page, or a file that is no detector.
    """
    module = DetectorModule(loaded, batch=1)

    def trained(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in module.__call__(pixels).items()}

    return compare(trained, onnx_file, images, minimum_detections, seed)


def validate_saved_model(
    saved_model: str | os.PathLike[str],
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum_detections: int = 10,
    seed: int = 0,
) -> Report:
    """As `validate_detector`, against an exported SavedModel: the two files that are shipped.

    Raises:
      UserError: no page, or a folder or file that is no detector.
    """
    import tensorflow as tf

    saved = load_served(saved_model)
    served = saved.signatures["serving_default"]
    if set(served.structured_outputs) != set(DETECTOR_OUTPUTS):
        raise UserError(
            f"--saved_model {os.fspath(saved_model)}: no detector of `python -m export saved_model`."
        )

    def trained(pixels: np.ndarray) -> dict[str, np.ndarray]:
        found = saved.signatures["serving_default"](image=tf.constant(pixels))
        return {name: value.numpy() for name, value in found.items()}

    return compare(trained, onnx_file, images, minimum_detections, seed)


def compare(
    trained: Trained,
    onnx_file: str | os.PathLike[str],
    images: Sequence[Image.Image],
    minimum_detections: int,
    seed: int,
) -> Report:
    """The three comparisons of this module's docstring; arguments as in `validate_detector`."""
    if not images:
        raise UserError("validate: no pages to compare on; give --pages or --synthetic.")
    try:
        sdk = Detector().load(onnx_file)
    except SignVerError as error:
        raise UserError(f"--onnx {error}") from error
    session = onnxruntime.InferenceSession(os.fspath(onnx_file), providers=["CPUExecutionProvider"])
    report, suppression = Report(pages=len(images)), _suppression(onnx_file)
    height, width = sdk.input_size
    noise = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    found, expected = _run(session, noise), trained(noise)
    _compare_raw(report, found, expected)
    report.raw_relative = max(
        relative_difference(found[name], expected[name]) for name in ("raw_boxes", "raw_logits")
    )
    for image in images:
        # The SDK's own reduction comes first, so that both sides see the same pixels.
        pixels = np.asarray(reduce_page(image, sdk.input_size), np.uint8)[np.newaxis]
        expected = trained(pixels)
        _compare_raw(report, _run(session, pixels), expected)
        _compare_detections(report, sdk.detect(image)[:3], expected, image.size, suppression)
    _judge(report, minimum_detections)
    return report


def load_pages(paths: Sequence[str], limit: int) -> list[Image.Image]:
    """Up to `limit` RGB pages from image files, folders of images, or TFRecord patterns."""
    found: list[Image.Image] = []
    for image in _images(paths):
        found.append(image)
        if len(found) == limit:
            break
    return found


def synthetic_pages(count: int, seed: int) -> list[Image.Image]:
    """Pages of the generator's evaluation writers."""
    from export import samples

    return [Image.open(io.BytesIO(page.image)).convert("RGB") for page in samples.pages(count, seed)]


def serve(saved_model: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The function of a SavedModel with one input and one output.

    Raises:
      UserError: no SavedModel in this folder, or one with more inputs or outputs.
    """
    import tensorflow as tf

    saved = load_served(saved_model)
    served = saved.signatures["serving_default"]
    arguments, results = list(served.structured_input_signature[1]), list(served.structured_outputs)
    if len(arguments) != 1 or len(results) != 1:
        raise UserError(
            f"--saved_model {os.fspath(saved_model)}: it takes {', '.join(arguments)} and gives "
            f"{', '.join(results)}; one input and one output were expected."
        )

    def serve_one(pixels: np.ndarray) -> np.ndarray:
        found = saved.signatures["serving_default"](**{arguments[0]: tf.constant(pixels)})
        return found[results[0]].numpy()

    return serve_one


def table(heading: str, rows: Sequence[tuple[str, float, float]], failures: Sequence[str]) -> str:
    """A report as text: (name, found, limit) rows and the verdict."""
    lines = [heading, "", f"{'largest difference':28} {'found':>12} {'limit':>12}"]
    lines += [f"{name:28} {value:12.3g} {limit:12.3g}" for name, value, limit in rows]
    verdict = "FAILED" if failures else "PASSED"
    return "\n".join([*lines, "", verdict, *(f"  {failure}" for failure in failures)])


def beyond(rows: Sequence[tuple[str, float, float]]) -> list[str]:
    """A sentence for each (name, found, limit) that is over its limit, or not a number."""
    return [
        f"{name}: differs by {found:.3g}; the limit is {limit:g}."
        for name, found, limit in rows
        if not found <= limit
    ]


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Of any two values; infinite where shapes differ or a value is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    value = float(np.abs(found - expected).max())
    return value if np.isfinite(value) else float("inf")


def write_report(report: Any, path: pathlib.Path) -> None:
    """Writes the report as JSON."""
    from training.files import write_json

    write_json(path, json.loads(json.dumps(report.as_dict())))


def _images(paths: Sequence[str]) -> Iterator[Image.Image]:
    from training.data.tfrecord import read_pages

    for text in paths:
        path = pathlib.Path(text)
        if path.is_dir() and not list(path.glob("*.tfrecord")):
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
            if not files:
                raise UserError(f"--pages {path}: no images in this folder.")
            yield from (_open(file) for file in files)
        elif path.suffix.lower() in _SUFFIXES:
            yield _open(path)
        else:
            pattern = f"{path}/eval*" if path.is_dir() else text
            yield from (Image.open(io.BytesIO(page.image)).convert("RGB") for page in read_pages(pattern))


def _open(file: pathlib.Path) -> Image.Image:
    try:
        return as_rgb(file)
    except SignVerError as error:
        raise UserError(f"--pages {error}") from error


def _run(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(DETECTOR_OUTPUTS, session.run(list(DETECTOR_OUTPUTS), {"image": pixels}), strict=True))


def _compare_raw(report: Report, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in ("raw_boxes", "raw_logits"):
        if found[name].shape != expected[name].shape:
            report.failures.append(
                f"{name}: shape {found[name].shape}, the trained model gives {expected[name].shape}."
            )
            continue
        largest = max(1.0, float(np.abs(expected[name]).max()) / _RAW_RANGE)
        difference = np.abs(found[name] - expected[name]).max() / largest
        worst = np.inf if np.isnan(difference) else float(difference)
        setattr(report, name, max(getattr(report, name), worst))


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over the standard deviation of what is expected; inf where the
    shapes differ or a value is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    spread = max(float(expected.std(dtype=np.float64)), 1e-12)
    value = float(np.sqrt(np.square(found - expected, dtype=np.float64).mean())) / spread
    return value if np.isfinite(value) else float("inf")


def _suppression(onnx_file: str | os.PathLike[str]) -> float:
    """Overlap from which on the file drops the lower of two boxes; NaN where no one step does that."""
    graph = onnx.load(os.fspath(onnx_file)).graph
    weights = {weight.name: weight for weight in graph.initializer}
    found = [
        float(onnx.numpy_helper.to_array(weights[node.input[3]]).ravel()[0])
        for node in graph.node
        if node.op_type == "NonMaxSuppression" and len(node.input) > 3 and node.input[3] in weights
    ]
    return found[0] if len(found) == 1 else math.nan


def _compare_detections(
    report: Report,
    found: Sequence[np.ndarray],
    trained: dict[str, np.ndarray],
    size: tuple[int, int],
    suppression: float,
) -> None:
    count = int(trained["num_detections"][0])
    expected = [trained[name][0, :count] for name in DETECTOR_OUTPUTS[:3]]
    pairs, unmatched = match(expected, found)
    report.detections += len(pairs)
    rounded = settled_by_rounding(expected, found, pairs, suppression) if unmatched else 0
    unmatched -= min(rounded, unmatched)
    report.rounded += rounded
    report.unmatched += unmatched
    # Without regard to class, a detection of another class in the same place has a partner again.
    _, nowhere = match(_one_class(expected), _one_class(found))
    report.other_class += max(0, unmatched - nowhere) // 2
    scale = np.array([size[1], size[0], size[1], size[0]])
    for left, right in pairs:
        report.box_pixels = max(
            report.box_pixels, float(np.abs((expected[0][left] - found[0][right]) * scale).max())
        )
        report.score = max(report.score, abs(float(expected[1][left] - found[1][right])))


def _one_class(detections: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [detections[0], detections[1], np.ones_like(detections[2])]


def match(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> tuple[list[tuple[int, int]], int]:
    """Pairs detections of the same class by overlap, best first.

    Args:
      expected, found: boxes [n, 4], scores [n], classes [n].

    Returns:
      Index pairs, and how many over COMPARED_SCORE on either side stay without a partner.
    """
    pairs: list[tuple[int, int]] = []
    free = set(range(len(found[0])))
    lonely = 0
    for left in range(len(expected[0])):
        candidates = [right for right in free if found[2][right] == expected[2][left]]
        overlaps = [iou(expected[0][left], found[0][right]) for right in candidates]
        if overlaps and max(overlaps) >= MATCH_IOU:
            right = candidates[int(np.argmax(overlaps))]
            free.discard(right)
            if expected[1][left] >= COMPARED_SCORE:
                pairs.append((left, right))
        elif expected[1][left] >= COMPARED_SCORE + SCORE_LIMIT:
            lonely += 1
    lonely += sum(bool(found[1][right] >= COMPARED_SCORE + SCORE_LIMIT) for right in free)
    return pairs, lonely


def settled_by_rounding(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    suppression: float,
) -> int:
    """How many detections without a partner lack it by the last bits of a number.

    What one side alone keeps, a better box of the other side has put out. Either both sides have that box,
    and the two overlap by just the threshold; or it stands on its side alone too, for such a reason itself.

    Args:
      expected, found: boxes [n, 4], scores [n], classes [n].
      pairs: of `match`.
      suppression: overlap from which on the lower of two boxes is dropped.
    """
    sides = (expected, found)
    partners = [dict(pairs), {right: left for left, right in pairs}]
    alone = [
        (side, int(number))
        for side in (0, 1)
        for number in np.flatnonzero(sides[side][1] >= COMPARED_SCORE + SCORE_LIMIT)
        if number not in partners[side]
    ]
    settled: set[tuple[int, int]] = set()
    for _ in alone:  # each round may settle what waits for another
        for side, number in alone:
            (box, score, label), (boxes, scores, labels) = (
                [part[number] for part in sides[side]],
                sides[1 - side],
            )
            for rival in np.flatnonzero((labels == label) & (scores >= score - SCORE_LIMIT)):
                edge = iou(box, boxes[rival]) - suppression
                if int(rival) in partners[1 - side]:
                    by_chance = abs(edge) <= _OVERLAP_ROUNDING
                else:
                    by_chance = edge >= -_OVERLAP_ROUNDING and (1 - side, int(rival)) in settled
                if by_chance:
                    settled.add((side, number))
    return len(settled)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two [ymin, xmin, ymax, xmax] boxes; without area 1 in the same place."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, float(height)) * max(0.0, float(width))
    union = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - common
    if union <= 0:  # a box beside the page is clipped to its edge
        return float(np.abs(np.subtract(a, b)).max() < _SAME_PLACE)
    return common / union


def _judge(report: Report, minimum: int) -> None:
    if report.detections < minimum:
        report.failures.append(
            f"only {report.detections} detections over {COMPARED_SCORE} on {report.pages} pages, {minimum} "
            "are needed: train longer or give more pages, an empty comparison proves nothing."
        )
    report.failures += beyond(report.differences())
    if report.rounded > report.most_rounded:
        report.failures.append(
            f"{report.rounded} detections have no partner because overlaps stand on suppression's edge; more "
            f"than {report.most_rounded} are no chance."
        )
    if report.unmatched:
        report.failures.append(f"{report.unmatched} detections have no partner of the same class and place.")
