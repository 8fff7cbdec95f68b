"""Pages of a data set with the boxes that the SDK finds on them, compared and drawn."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import io
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from training.data.page import Box, Page

# A found box counts where it overlaps a true one of its class by this much, as in AP50.
MATCH_IOU = 0.5
_DRAWN_HEIGHT = 1000


@dataclasses.dataclass(frozen=True)
class Found:
    """A box that the detector found; `box` as in `Page.boxes`, `score` in 0..1."""

    box: Box
    score: float


@dataclasses.dataclass(frozen=True)
class PageResult:
    """One page, what was found on it, and how that compares to the truth.

    Attributes:
      page: the page with its true boxes.
      everything: all that the detector gave, by falling score; average precision looks at it.
      found: those of them from the shown score on.
      matched: for each of `found`, the index of the true box it stands for, or None.
      seconds: time of the detector's call.
    """

    page: Page
    everything: tuple[Found, ...]
    found: tuple[Found, ...]
    matched: tuple[int | None, ...]
    seconds: float

    @property
    def hits(self) -> int:
        """Found boxes that stand for a true one."""
        return sum(index is not None for index in self.matched)

    @property
    def false_alarms(self) -> int:
        """Found boxes that stand for nothing."""
        return len(self.found) - self.hits

    @property
    def misses(self) -> int:
        """True boxes that nothing was found for."""
        return len(self.page.boxes) - self.hits


def detect_pages(
    detect: Callable[[np.ndarray], Sequence[Found]], pages: Iterable[Page], score: float = 0.0
) -> list[PageResult]:
    """Runs a detector over pages.

    Args:
      detect: takes an image, uint8 [height, width, 3] RGB, returns what it finds.
      pages: the pages with their true boxes.
      score: boxes from this score on are counted and drawn.
    """
    results = []
    for page in pages:
        image = np.asarray(Image.open(io.BytesIO(page.image)).convert("RGB"))
        begun = time.perf_counter()
        everything = tuple(sorted(detect(image), key=lambda one: -one.score))
        seconds = time.perf_counter() - begun
        found = tuple(one for one in everything if one.score >= score)
        results.append(PageResult(page, everything, found, match(page.boxes, found), seconds))
    return results


def average_precision(results: Sequence[PageResult], labels: Sequence[int]) -> dict[int, dict[str, float]]:
    """AP, AP50 and AP75 of each class as COCO defines them, 0..1; -1 where no page holds it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, annotations in (
            (truth, _annotations(results, "truth")),
            (found, _annotations(results, "")),
        ):
            coco.dataset = {
                "images": [{"id": number} for number in range(len(results))],
                "categories": [{"id": label} for label in labels],
                "annotations": annotations,
            }
            coco.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU thresholds 0.50 to 0.95, recalls, classes, all areas, at most 100 a page]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    figures = {}
    for place, label in enumerate(evaluation.params.catIds):
        chosen = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
        figures[label] = {name: float(precision[one, :, place].mean()) for name, one in chosen.items()}
    return figures


def _annotations(results: Sequence[PageResult], kind: str) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for number, result in enumerate(results):
        scored = [(box, 1.0) for box in result.page.boxes]
        if kind != "truth":
            scored = [(one.box, one.score) for one in result.everything]
        for box, score in scored:
            width = (box.xmax - box.xmin) * result.page.width
            height = (box.ymax - box.ymin) * result.page.height
            corner = [box.xmin * result.page.width, box.ymin * result.page.height]
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": number, "category_id": box.label},
                    **{"bbox": [*corner, width, height], "area": width * height},
                    **{"score": score, "iscrowd": 0},
                }
            )
    return annotations


def match(truth: Sequence[Box], found: Sequence[Found]) -> tuple[int | None, ...]:
    """For each found box, in the order given, the best true box of its class that is still free.

    A true box stands for one found box at most, and only where they overlap by `MATCH_IOU`.
    """
    free = set(range(len(truth)))
    matched: list[int | None] = []
    for one in found:
        candidates = [(iou(truth[index], one.box), index) for index in free]
        good = [
            (overlap, -index)
            for overlap, index in candidates
            if overlap >= MATCH_IOU and truth[index].label == one.box.label
        ]
        index = -max(good)[1] if good else None
        free.discard(-1 if index is None else index)
        matched.append(index)
    return tuple(matched)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1; 0 where neither has an area."""
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    shared = max(height, 0.0) * max(width, 0.0)
    areas = sum((box.ymax - box.ymin) * (box.xmax - box.xmin) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def worst(results: Sequence[PageResult], count: int) -> list[PageResult]:
    """The pages with most misses and false alarms; pages without any fault are left out."""
    ranked = sorted(results, key=lambda one: (-(one.misses + one.false_alarms), one.page.name))
    return [one for one in ranked[:count] if one.misses + one.false_alarms]


def spread(results: Sequence[PageResult], count: int) -> list[PageResult]:
    """Pages at even distances through the data set: what is usual, chosen without looking."""
    places = np.linspace(0, len(results) - 1, min(count, len(results))).round().astype(int)
    return [results[place] for place in dict.fromkeys(places.tolist())]


def figure(result: PageResult, classes: Mapping[int, str]) -> str:
    """An HTML `<figure>`: the page as a JPEG, true boxes dashed, found boxes solid with class and score."""
    image = Image.open(io.BytesIO(result.page.image)).convert("RGB")
    image.thumbnail((_DRAWN_HEIGHT, _DRAWN_HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    width, height = image.size
    source = base64.b64encode(buffer.getvalue()).decode()
    drawn = [_rectangle(box, "true", width, height) for box in result.page.boxes]
    for one, index in zip(result.found, result.matched, strict=True):
        kind = "false" if index is None else "hit"
        text = f"{classes.get(one.box.label, one.box.label)} {one.score:.2f}"
        drawn.append(_rectangle(one.box, kind, width, height, text))
    words = f"{result.hits} of {len(result.page.boxes)} found"
    if result.false_alarms:
        words += f", {result.false_alarms} false"
    name = html.escape(pathlib.PurePath(result.page.name).name)
    return (
        f"<figure class='page'><svg viewBox='0 0 {width} {height}' role='img' aria-label='{name}'>"
        f"<image width='{width}' height='{height}' href='data:image/jpeg;base64,{source}'/>"
        f"{''.join(drawn)}</svg><figcaption>{name} <span>{words}</span></figcaption></figure>"
    )


def _rectangle(box: Box, kind: str, width: int, height: int, text: str = "") -> str:
    x, y = box.xmin * width, box.ymin * height
    shape = (
        f"<rect class='{kind}' x='{x:.1f}' y='{y:.1f}' "
        f"width='{(box.xmax - box.xmin) * width:.1f}' height='{(box.ymax - box.ymin) * height:.1f}'/>"
    )
    if not text:
        return shape
    # Above its box, unless that is outside the page; in the right third it ends where the box ends.
    baseline = y - 5 if y > 22 else box.ymax * height + 18
    anchor = f"class='end' x='{box.xmax * width:.1f}'" if x > width * 2 / 3 else f"x='{x:.1f}'"
    return f"<g class='found {kind}'>{shape}<text {anchor} y='{baseline:.1f}'>{html.escape(text)}</text></g>"
