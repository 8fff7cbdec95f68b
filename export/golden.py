"""Makes a bundle's golden vectors: synthetic pictures, and what its models answer here.

The answers come through the SDK's own code, in one thread, so that the same models give the same bytes.
`signver.golden` runs the cases; docs/sdk.md has the format.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from export import samples
from export.contract import CROP_MARGIN
from signver import Cleaner, Detector, Matcher, MetricExtractor, SignVerError, get_image_crops
from signver.cleaner import fit_crop
from signver.golden import VERSION
from signver.model_file import open_model
from training.files import write_json

FOLDER = "golden"
INDEX = f"{FOLDER}/golden.json"
_PAGES, _WRITERS, _CROPS = 12, 8, 8
_SAMPLED = 64
# Every pixel of the golden page this many times: a page that has to be reduced, at no cost of space.
_REPEATED = 7
# Longer side of the golden page, in pixels: none that a detector looks at, so that its own resize takes part.
_PAGE_SIDE = 480
# Longer side of a golden signature, in pixels; what the cleaner gives.
_SIGNATURE_SIDE = 224
# Largest differences between machines and runtimes, by precision: float32 rounds in another order, which in
# int8 may move a value to the next step. `raw` counts in spreads of the output.
_LIMITS: dict[str, dict[str, float]] = {
    "float32": {"raw": 1e-3, "box": 2e-3, "score": 2e-3, "grey": 2, "values": 1e-3, "embedding": 1e-3},
    "int8": {"raw": 0.1, "box": 0.01, "score": 0.05, "grey": 16, "values": 0.05, "embedding": 0.03},
}
# Of the whole way, where a pixel's rounding may move a box's edge and the ink's threshold.
_PAGE_LIMITS = {"crop": 2, "embedding": 0.05, "similarity": 0.05}


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that golden vectors are made of.

    Attributes:
      path: ONNX file.
      precision: as in the manifest.
      threshold: score or cosine; unused by cleaners.
    """

    path: pathlib.Path
    precision: str = "float32"
    threshold: float = 0.5


class _Writer:
    """Collects tensors and cases, writes each tensor as it comes."""

    def __init__(self, folder: pathlib.Path, sources: Mapping[str, Source], seed: int):
        self.folder = folder / FOLDER
        self.folder.mkdir()
        self.sources = sources
        self.seed = seed
        self.tensors: dict[str, dict[str, Any]] = {}
        self.cases: list[dict[str, Any]] = []
        self.embeddings: dict[str, np.ndarray] = {}

    def limits(self, kind: str) -> dict[str, float]:
        return _LIMITS[self.sources[kind].precision]

    def store(self, name: str, values: np.ndarray, text: str) -> str:
        """Writes a tensor; returns its name."""
        file = f"{FOLDER}/{name}.bin"
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        (self.folder / f"{name}.bin").write_bytes(little.tobytes())
        self.tensors[name] = {
            "file": file,
            "dtype": values.dtype.name,
            "shape": list(values.shape),
            "text": text,
        }
        return name

    def run(
        self, name: str, kind: str, feed: dict[str, np.ndarray], inputs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Adds a case of one model's own inputs; returns it, still without outputs, and the answers."""
        session, _ = open_model(self.sources[kind].path, kind, 1)
        names = sorted(value.name for value in session.get_outputs())
        case: dict[str, Any] = {
            "name": name,
            "kind": "run",
            "model": kind,
            "inputs": inputs,
            "outputs": {},
        }
        self.cases.append(case)
        return case, dict(zip(names, session.run(names, feed), strict=True))


def write(folder: pathlib.Path, sources: Mapping[str, Source], seed: int = 0) -> list[str]:
    """Writes `golden/` into a bundle's folder.

    Args:
      folder: of the bundle; holds no `golden` yet.
      sources: "detector", "cleaner", "extractor" to model; those that the bundle has.
      seed: of the pictures.

    Returns:
      What the vectors do not prove, one sentence each.
    """
    writer = _Writer(folder, sources, seed)
    gaps: list[str] = []
    page = _detector_cases(writer, gaps) if "detector" in sources else None
    if "cleaner" in sources:
        _cleaner_cases(writer)
    if "extractor" in sources:
        _extractor_cases(writer)
    if page is not None and "extractor" in sources:
        _page_case(writer, page, gaps)
    index = {"version": VERSION, "seed": seed, "tensors": writer.tensors, "cases": writer.cases}
    write_json(folder / INDEX, index)
    return gaps


def _detector_cases(writer: _Writer, gaps: list[str]) -> np.ndarray:
    """Adds them; returns the page, uint8 [h, w]."""
    source, limits = writer.sources["detector"], writer.limits("detector")
    detector = Detector(1).load(source.path)
    grey = _best_page(detector, writer.seed)
    height, width = grey.shape
    writer.store("page", grey, "A synthetic page, grey levels.")
    image = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    shaped = {"tensor": "page", "repeat_channels": 3, "shape": [1, height, width, 3]}
    case, found = writer.run("detector heads", "detector", {"image": image[np.newaxis]}, {"image": shaped})
    rng = np.random.default_rng(writer.seed)
    for name in ("raw_boxes", "raw_logits"):
        case["outputs"][name] = _sampled(found[name], limits["raw"], rng)
    kept = 0
    for repeated in (1, _REPEATED):
        recipe = {"tensor": "page", "repeat_pixels": repeated, "repeat_channels": 3}
        answer = detector.detect(image.repeat(repeated, 0).repeat(repeated, 1))
        boxes = [
            {"box": _rounded(box), "score": _rounded(score), "label": int(label)}
            for box, score, label in zip(answer.boxes, answer.scores, answer.classes, strict=True)
            if score >= source.threshold
        ]
        kept += len(boxes)
        writer.cases.append(
            {
                "name": f"detector page x{repeated}",
                "kind": "detect",
                "picture": recipe,
                "keep": source.threshold,
                "boxes": boxes,
                "tolerance": {"box": limits["box"], "score": limits["score"]},
            }
        )
    if not kept:
        gaps.append(f"the detector finds nothing over {source.threshold:g} on the golden page.")
    return grey


def _best_page(detector: Detector, seed: int) -> np.ndarray:
    """The page on which the surest signature is found: uint8 [h, w], dark ink on white."""
    signature = next((label for label, name in detector.class_names.items() if name == "signature"), 1)
    pages = []
    for page in samples.pages(_PAGES, seed):
        grey = Image.open(io.BytesIO(page.image)).convert("L")
        scale = _PAGE_SIDE / max(grey.size)
        size = (round(grey.width * scale), round(grey.height * scale))
        pages.append(np.asarray(grey.resize(size, Image.Resampling.BOX)))

    def surest(pixels: np.ndarray) -> float:
        found = detector.detect(pixels.repeat(_REPEATED, 0).repeat(_REPEATED, 1))
        return float(found.scores[found.classes == signature].max(initial=0.0))

    return max(pages, key=surest)


def _cleaner_cases(writer: _Writer) -> None:
    source, limits = writer.sources["cleaner"], writer.limits("cleaner")
    cleaner = Cleaner(1).load(source.path)
    # The crop with most ink left: a blank answer proves little.
    noisy = max(
        (noisy for noisy, _ in samples.crop_pairs(_CROPS, writer.seed)),
        key=lambda crop: -int(cleaner.clean(crop).min()),
    )
    # Not square and not of the network's size, so that fitting and cutting take part.
    crop = np.asarray(Image.fromarray(noisy[32:192]).resize((200, 143), Image.Resampling.BICUBIC))
    writer.store("crop", crop, "A noisy synthetic crop, grey levels.")
    square = np.asarray(fit_crop(Image.fromarray(crop).convert("RGB"))[0])[..., 0]
    writer.store("crop_square", square, "The crop fitted into the network's square.")
    side = len(square)
    feed = np.repeat(square[..., np.newaxis], 3, -1)[np.newaxis].astype(np.float32) / 255
    shaped = {"tensor": "crop_square", "repeat_channels": 3, "divide_by": 255, "shape": [1, side, side, 3]}
    case, found = writer.run("cleaner square", "cleaner", {"input": feed}, {"input": shaped})
    rng = np.random.default_rng(writer.seed)
    case["outputs"]["output"] = _sampled(found["output"], limits["values"], rng, spread=False)
    picture = {"tensor": "crop", "repeat_channels": 3}
    writer.store("cleaned", cleaner.clean(crop), "The ink of the crop.")
    writer.cases.append(
        {
            "name": "cleaner crop",
            "kind": "clean",
            "picture": picture,
            "cleaned": {"tensor": "cleaned", "tolerance": limits["grey"]},
        }
    )


def _extractor_cases(writer: _Writer) -> None:
    source, limits = writer.sources["extractor"], writer.limits("extractor")
    extractor = MetricExtractor(1).load(source.path)
    pictures = _clearest_trio(extractor, source.threshold, writer.seed)
    # Rounded to 256 levels, the network's input takes a quarter of the space.
    ink = np.stack([np.rint(extractor.normalise(one) * 255) for one in pictures]).astype(np.uint8)
    writer.store("ink", ink, "Normalised ink of reference, genuine and other signature, times 255.")
    shape = [*ink.shape, 1]
    feed = (ink.astype(np.float32) / np.float32(255)).reshape(shape)
    shaped = {"tensor": "ink", "divide_by": 255, "shape": shape}
    case, found = writer.run("extractor ink", "extractor", {"image": feed}, {"image": shaped})
    writer.store("embeddings", found["embedding"], "What the extractor makes of `ink`.")
    case["outputs"]["embedding"] = {"tensor": "embeddings", "tolerance": limits["embedding"]}
    matcher = Matcher(source.threshold, consistency=extractor.consistency)
    decided = (([0], 1, "genuine"), ([0], 2, "other"), ([0, 1], 2, "other, two references"))
    for references, questioned, name in decided:
        one, two = found["embedding"][references], found["embedding"][questioned]
        writer.cases.append(
            {
                "name": f"matcher {name}",
                "kind": "verify",
                "of": "extractor ink",
                "references": references,
                "questioned": questioned,
                "similarity": _rounded(matcher.similarity(one, two)),
                "genuine": matcher.verify(one, two),
                "tolerance": {"similarity": limits["embedding"]},
            }
        )
    for number, name in enumerate(("reference", "genuine", "other")):
        writer.store(f"signature_{name}", pictures[number], "A synthetic signature, grey levels.")
        writer.embeddings[name] = extractor.extract(pictures[number])
        writer.store(f"embedding_{name}", writer.embeddings[name], f"Of signature_{name}.")
        stored = writer.store(f"ink_{name}", ink[number], f"One of `ink`: signature_{name}.")
        writer.cases.append(
            {
                "name": f"extractor {name}",
                "kind": "extract",
                "picture": {"tensor": f"signature_{name}", "repeat_channels": 3},
                "ink": {"tensor": stored, "divide_by": 255, "tolerance": 0.5 / 255 + 0.01},
                "embedding": {"tensor": f"embedding_{name}", "tolerance": limits["embedding"]},
            }
        )


def _clearest_trio(extractor: MetricExtractor, threshold: float, seed: int) -> list[np.ndarray]:
    """Two signatures of one writer and one of another, on which the decision is surest."""
    matcher = Matcher(threshold)
    pictures, sure = [], []
    for writer in range(_WRITERS):
        drawn = [(writer, 0), (writer, 1), ((writer + 1) % _WRITERS, 0)]
        trio = [_small(samples.signature(seed, *one)) for one in drawn]
        reference, genuine, other = extractor.extract(trio)
        pictures.append(trio)
        sure.append(
            min(
                matcher.cosine_similarity(reference, genuine) - threshold,
                threshold - matcher.cosine_similarity(reference, other),
            )
        )
    return pictures[int(np.argmax(sure))]


def _small(grey: np.ndarray) -> np.ndarray:
    image = Image.fromarray(grey)
    scale = _SIGNATURE_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def _page_case(writer: _Writer, grey: np.ndarray, gaps: list[str]) -> None:
    """The whole way, for the surest signature on the page that the models carry to the end."""
    detector = Detector(1).load(writer.sources["detector"].path)
    page = np.repeat(grey[..., np.newaxis], 3, -1).repeat(_REPEATED, 0).repeat(_REPEATED, 1)
    found = detector.detect(page)
    for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True):
        if score < writer.sources["detector"].threshold:
            break
        (crop,) = get_image_crops(page, box[np.newaxis], margin=CROP_MARGIN)
        if detector.class_names.get(int(label)) == "signature" and _carried(writer, crop):
            writer.cases[-1] |= {
                "picture": {"tensor": "page", "repeat_pixels": _REPEATED, "repeat_channels": 3},
                "label": int(label),
                "box": _rounded(box),
                "margin": CROP_MARGIN,
                "crop": list(crop.shape[:2]),
            }
            return
    gaps.append("no signature on the golden page goes through all models, so the whole way is not proved.")


def _carried(writer: _Writer, crop: np.ndarray) -> bool:
    """Adds the case from the crop on; False where it holds no signature."""
    extractor = MetricExtractor(1).load(writer.sources["extractor"].path)
    try:
        if "cleaner" in writer.sources:
            crop = Cleaner(1).load(writer.sources["cleaner"].path).clean(crop)
        embedding = extractor.extract(crop)
    except SignVerError:
        return False
    writer.store("page_embedding", embedding, "Of the signature on the page.")
    threshold = writer.sources["extractor"].threshold
    matcher = Matcher(threshold)
    cosines = {name: matcher.cosine_similarity(one, embedding) for name, one in writer.embeddings.items()}
    # The reference from which the decision is surest.
    name = max(cosines, key=lambda one: abs(cosines[one] - threshold))
    writer.cases.append(
        {
            "name": "page to decision",
            "kind": "page",
            "embedding": {"tensor": "page_embedding"},
            "reference": {"tensor": f"embedding_{name}"},
            "similarity": _rounded(cosines[name]),
            "genuine": cosines[name] >= threshold,
            "tolerance": {**_PAGE_LIMITS, "box": max(writer.limits(kind)["box"] for kind in writer.sources)},
        }
    )
    return True


def _sampled(
    values: np.ndarray, limit: float, rng: np.random.Generator, spread: bool = True
) -> dict[str, Any]:
    """Some values of an output; the limit counts in spreads of the output where `spread` says so."""
    indices = np.sort(rng.choice(values.size, min(_SAMPLED, values.size), replace=False))
    scale = max(1.0, float(values.std(dtype=np.float64))) if spread else 1.0
    return {
        "shape": list(values.shape),
        "indices": indices.tolist(),
        "values": _rounded(values.ravel()[indices]),
        "tolerance": _rounded(limit * scale),
    }


def _rounded(value: Any) -> Any:
    """Six significant digits, as plain Python numbers."""
    if np.ndim(value):
        return [_rounded(one) for one in np.asarray(value).tolist()]
    return float(f"{float(value):.6g}")
