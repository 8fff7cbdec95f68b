"""Golden vectors of a bundle: inputs and what must come out, run through the models on this machine.

`golden/golden.json` lists tensors (raw little-endian values, rows first) and cases; docs/sdk.md has the form.
A program in another language runs the same cases.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from signver.errors import SignVerError
from signver.manifest import parse, read_inside
from signver.model_file import open_model
from signver.visualization import get_image_crops

if TYPE_CHECKING:
    import onnxruntime

    from signver.bundle import Bundle

VERSION = 1
_DTYPES = {"uint8": "<u1", "int32": "<i4", "int64": "<i8", "float32": "<f4"}
_MOST_BYTES = 64_000_000
_MOST_REPEATED = 16
# From this overlap on two boxes of one class are the same finding.
_SAME_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
      name: case and what of it.
      found: largest difference, or how much is wrong.
      limit: what the bundle allows.
    """

    name: str
    found: float
    limit: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return bool(self.found <= self.limit)


class Golden:
    """The golden vectors of a loaded bundle.

    Args:
      bundle: verified, so that the vectors are those of the release.
      threads: cores that one call may use; 0 lets ONNX Runtime take all.
    """

    def __init__(self, bundle: Bundle, threads: int = 0):
        self.bundle = bundle
        self._threads = threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._answers: dict[str, dict[str, np.ndarray]] = {}
        content = read_inside(bundle.path, bundle.manifest["golden"], _MOST_BYTES)
        self.index = parse(content)
        version = self.index.get("version") if isinstance(self.index, dict) else None
        if version != VERSION:
            raise SignVerError(
                f"{bundle.path}: golden vectors of version {version}; this SDK runs {VERSION}."
            )

    def run(self) -> list[Check]:
        """All comparisons, in the order of the file.

        Raises:
          SignVerError: the golden vectors cannot be read.
        """
        kinds: dict[str, Callable[[Mapping[str, Any]], list[Check]]] = {
            "run": self._run_case,
            "detect": self._detect,
            "clean": self._clean,
            "extract": self._extract,
            "verify": self._verify,
            "page": self._page,
        }
        checks: list[Check] = []
        name = ""
        try:
            for case in self.index["cases"]:
                name = str(case["name"])[:80]
                checks += kinds[case["kind"]](case)
        except SignVerError as error:
            raise SignVerError(f"{self.bundle.path}: golden case '{name}': {error}") from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SignVerError(f"{self.bundle.path}: golden case '{name}' is damaged ({error!r}).") from error
        return checks

    def tensor(self, name: str) -> np.ndarray:
        """A stored tensor.

        Raises:
          SignVerError: its file has another size than its shape.
        """
        entry = self.index["tensors"][name]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        size = math.prod(entry["shape"]) * dtype.itemsize
        content = read_inside(self.bundle.path, entry["file"], _MOST_BYTES)
        if len(content) != size:
            raise SignVerError(f"tensor {name}: {len(content):,} bytes for a shape of {size:,}.")
        return np.frombuffer(content, dtype).reshape(entry["shape"])

    def picture(self, recipe: Mapping[str, Any]) -> np.ndarray:
        """An input made of a tensor: pixels repeated, channels repeated, divided, reshaped, in this order."""
        values = self.tensor(recipe["tensor"])
        repeated, channels = int(recipe.get("repeat_pixels", 1)), int(recipe.get("repeat_channels", 1))
        if not 1 <= repeated <= _MOST_REPEATED or not 1 <= channels <= _MOST_REPEATED:
            raise SignVerError(f"repeats {repeated} and {channels}: 1 to {_MOST_REPEATED}.")
        if repeated > 1:
            values = values.repeat(repeated, axis=0).repeat(repeated, axis=1)
        if channels > 1:
            values = values[..., np.newaxis].repeat(channels, axis=-1)
        if "divide_by" in recipe:
            values = values.astype(np.float32) / np.float32(recipe["divide_by"])
        return values.reshape(recipe["shape"]) if "shape" in recipe else values

    def _run_case(self, case: Mapping[str, Any]) -> list[Check]:
        kind = case["model"]
        if kind not in self._sessions:
            self._sessions[kind] = open_model(
                self.bundle.model_path(kind), kind, self._threads, self.bundle.sha256(kind)
            )[0]
        names = sorted(case["outputs"])
        feed = {name: self.picture(recipe) for name, recipe in case["inputs"].items()}
        found = dict(zip(names, self._sessions[kind].run(names, feed), strict=True))
        self._answers[case["name"]] = found
        checks = []
        for name in names:
            wanted = case["outputs"][name]
            value, expected = found[name], None
            if "tensor" in wanted:
                expected = self.tensor(wanted["tensor"])
            elif list(value.shape) == wanted["shape"]:
                value = value.ravel()[wanted["indices"]]
                expected = np.asarray(wanted["values"], np.float64)
            checks.append(_compare(f"{case['name']} {name}", value, expected, wanted["tolerance"]))
        return checks

    def _detect(self, case: Mapping[str, Any]) -> list[Check]:
        found = self.bundle.detector(self._threads).detect(self.picture(case["picture"]))
        return compare_boxes(case, found.boxes, found.scores, found.classes)

    def _clean(self, case: Mapping[str, Any]) -> list[Check]:
        found = self.bundle.cleaner(self._threads).clean(self.picture(case["picture"]))
        expected = self.tensor(case["cleaned"]["tensor"])
        return [_compare(f"{case['name']} grey levels", found, expected, case["cleaned"]["tolerance"])]

    def _extract(self, case: Mapping[str, Any]) -> list[Check]:
        picture = self.picture(case["picture"])
        extractor = self.bundle.extractor(self._threads)
        ink = extractor.normalise(picture)
        stored = self.picture(case["ink"]).reshape(ink.shape)
        found = extractor.extract(picture)
        expected = self.tensor(case["embedding"]["tensor"])
        return [
            _compare(f"{case['name']} ink", ink, stored, case["ink"]["tolerance"]),
            _compare(f"{case['name']} embedding", found, expected, case["embedding"]["tolerance"]),
        ]

    def _verify(self, case: Mapping[str, Any]) -> list[Check]:
        embeddings = self._answers[case["of"]]["embedding"]
        return self._decide(case, embeddings[case["references"]], embeddings[case["questioned"]])

    def _decide(self, case: Mapping[str, Any], first: np.ndarray, second: np.ndarray) -> list[Check]:
        matcher = self.bundle.matcher()
        similarity = matcher.similarity(first, second)
        genuine = matcher.verify(first, second)
        return [
            Check(
                f"{case['name']} similarity",
                abs(similarity - case["similarity"]),
                case["tolerance"]["similarity"],
            ),
            Check(f"{case['name']} decision", float(genuine is not case["genuine"]), 0.0),
        ]

    def _page(self, case: Mapping[str, Any]) -> list[Check]:
        """The whole way: page, box, crop, ink, embedding, decision."""
        page, name, limits = self.picture(case["picture"]), case["name"], case["tolerance"]
        found = self.bundle.detector(self._threads).detect(page)
        same = [
            number
            for number, (box, label) in enumerate(zip(found.boxes, found.classes, strict=True))
            if label == case["label"] and overlap(box, case["box"]) >= _SAME_IOU
        ]
        if not same:
            return [Check(f"{name} box found", 1.0, 0.0)]
        box = found.boxes[same[:1]]
        checks = [_compare(f"{name} box", box[0], np.asarray(case["box"]), limits["box"])]
        (crop,) = get_image_crops(page, box, margin=case["margin"])
        checks.append(
            _compare(f"{name} crop", np.asarray(crop.shape[:2]), np.asarray(case["crop"]), limits["crop"])
        )
        if self.bundle.has("cleaner"):
            crop = self.bundle.cleaner(self._threads).clean(crop)
        embedding = self.bundle.extractor(self._threads).extract(crop)
        alike = float(embedding @ self.tensor(case["embedding"]["tensor"]))
        checks.append(Check(f"{name} embedding, 1 - cosine", 1 - alike, limits["embedding"]))
        return checks + self._decide(case, self.tensor(case["reference"]["tensor"]), embedding)


def compare_boxes(
    case: Mapping[str, Any], boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
) -> list[Check]:
    """Expected boxes against found ones, paired by class and overlap: equal scores come in any order.

    Found boxes without a partner count where they score above `keep` by more than the tolerance.
    """
    free = set(range(len(boxes)))
    worst_box = worst_score = 0.0
    missing = 0
    for wanted in case["boxes"]:
        same = [n for n in free if classes[n] == wanted["label"]]
        best = max(same, key=lambda n: overlap(boxes[n], wanted["box"]), default=None)
        if best is None or overlap(boxes[best], wanted["box"]) < _SAME_IOU:
            missing += 1
            continue
        free.discard(best)
        worst_box = max(worst_box, float(np.abs(boxes[best] - np.asarray(wanted["box"])).max()))
        worst_score = max(worst_score, abs(float(scores[best]) - wanted["score"]))
    limits = case["tolerance"]
    extra = sum(float(scores[n]) > case["keep"] + limits["score"] for n in free)
    return [
        Check(f"{case['name']} boxes missing or added", float(missing + extra), 0.0),
        Check(f"{case['name']} box", worst_box, limits["box"]),
        Check(f"{case['name']} score", worst_score, limits["score"]),
    ]


def overlap(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """Intersection over union of two [ymin, xmin, ymax, xmax] boxes."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, float(height)) * max(0.0, float(width))
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _compare(name: str, found: np.ndarray, expected: np.ndarray | None, limit: float) -> Check:
    """Largest difference of any two values; infinite where shapes differ."""
    if expected is None or found.shape != expected.shape:
        return Check(name, math.inf, limit)
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return Check(name, float(difference.max(initial=0.0)), limit)
