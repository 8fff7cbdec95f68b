"""8-bit models, where they pay: converted, measured beside the float models, and shipped only if both hold.

Static quantisation to int8 (QDQ): the ranges of all values inside are measured on calibration pictures. A
model takes the place of its float version only if its figure gets worse by less than a stated amount (AP of
a detector, ink F1 of a cleaner, skilled EER of an extractor) and it is faster on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from export import bundle as bundles
from training import options
from training.data import location
from training.errors import UserError

_OPERATORS = ["Conv", "Gemm", "MatMul"]
# kind -> (the figure that decides, 1 where more is better and -1 where less is).
_DECISIVE = {"detector": ("AP", 1), "cleaner": ("ink_f1", 1), "extractor": ("eer_skilled", -1)}
# Pictures that ranges are measured on.
_CALIBRATED = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=pathlib.Path, help="a bundle of float models")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder for the new bundle")
    parser.add_argument(
        "--models", nargs="+", choices=bundles.KINDS, help="which to try; default: all of the bundle"
    )
    parser.add_argument("--pages", help="pages with boxes, a data set; synthetic ones by default")
    parser.add_argument("--signatures", help="a signature data set; synthetic ones by default")
    location.add_argument(parser)
    parser.add_argument(
        "--count",
        type=options.whole(1),
        default=60,
        help="pages, crops and writers to measure on (default 60)",
    )
    for kind, default in (("detector", 0.01), ("cleaner", 0.01), ("extractor", 0.005)):
        figure, sign = _DECISIVE[kind]
        parser.add_argument(
            f"--max_{kind}_loss",
            type=float,
            default=default,
            help=f"how far the {kind}'s {figure} may {'fall' if sign > 0 else 'rise'} (default {default})",
        )
    parser.add_argument(
        "--minimum_speedup", type=float, default=1.1, help="times faster that int8 must be (default 1.1)"
    )
    parser.add_argument(
        "--threads", type=options.whole(0), default=0, help="cores to measure speed on; 0 takes all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of synthetic pictures")
    parser.add_argument("--sign", metavar="KEY", help="PEM file, as for `export bundle`")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model before and after.

    Attributes:
      kind: "detector", "cleaner" or "extractor".
      path: the int8 file.
      before, after: figures and `ms` a picture, `MB`.
      reasons: why it does not ship; empty where it does.
    """

    kind: str
    path: pathlib.Path
    before: Mapping[str, float]
    after: Mapping[str, float]
    reasons: Sequence[str]

    def table(self) -> dict[str, Any]:
        """What the manifest and the card say of it."""
        rows: dict[str, Any] = {}
        for name in self.before:
            rows[f"{name}, float32"] = float(f"{self.before[name]:.4g}")
            rows[f"{name}, int8"] = float(f"{self.after[name]:.4g}")
        rows["ships"] = "int8" if not self.reasons else "float32: " + "; ".join(self.reasons)
        return rows


def run(arguments: argparse.Namespace) -> int:
    """Tries every model; writes a bundle where one pays. Exit code 1 where none does."""
    from signver import SignVerError
    from signver.bundle import Bundle

    try:
        source = Bundle.load(arguments.bundle)
    except SignVerError as error:
        raise UserError(str(error)) from error
    bundles.check_target(arguments.output)
    kinds = arguments.models or [kind for kind in bundles.KINDS if source.has(kind)]
    for kind in kinds:
        if not source.has(kind) or source.manifest["models"][kind]["precision"] != "float32":
            raise UserError(f"{arguments.bundle}: no float {kind} in this bundle; choose others by --models.")
    with tempfile.TemporaryDirectory() as scratch:
        trials = {kind: _try(kind, source, arguments, pathlib.Path(scratch)) for kind in kinds}
        print(text(trials.values()))
        if all(trial.reasons for trial in trials.values()):
            print("int8 pays for none of them; nothing is written.")
            return 1
        parts = [_part(kind, source, trials.get(kind)) for kind in bundles.KINDS if source.has(kind)]
        licence = source.manifest["licence"]
        gaps = bundles.write(arguments.output, parts, licence, arguments.seed, arguments.sign)
    print(bundles.summary(arguments.output, gaps))
    return 0


def text(trials: Any) -> str:
    """The table of all trials."""
    lines = [f"{'':10} {'':12} {'float32':>10} {'int8':>10}"]
    for trial in trials:
        for name in trial.before:
            lines.append(f"{trial.kind:10} {name:12} {trial.before[name]:10.4g} {trial.after[name]:10.4g}")
        lines.append(f"{trial.kind:10} {trial.table()['ships']}")
    return "\n".join(lines)


def quantise(source: pathlib.Path, output: pathlib.Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Writes the int8 form of an ONNX file; the same feeds give the same bytes.

    Args:
      source: the float file.
      output: file to write.
      feeds: inputs that show the ranges of the values inside.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from export import onnx_files

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self._feeds, None)

    # It advises a preparation by symbolic shapes that dynamic pages do not survive.
    logging.disable(logging.WARNING)
    before = onnx.load(str(source))
    quantize_static(
        str(source),
        str(output),
        Reader(),
        quant_format=QuantFormat.QDQ,
        # It wants to know the range of every softmax, also of those that it leaves alone.
        op_types_to_quantize=[*_OPERATORS, "Softmax"],
        nodes_to_exclude=[node.name for node in before.graph.node if node.op_type == "Softmax"],
        per_channel=True,
        # Unsigned activations and signed weights: what x86 multiplies fastest. Of seven bits, because a
        # processor without VNNI, and WebAssembly, would saturate their sums and answer otherwise.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    logging.disable(logging.NOTSET)
    model = onnx.load(str(output))
    metadata = {entry.key: entry.value for entry in before.metadata_props}
    metadata.pop("signver.format")
    # Shapes of inner values that only the quantiser needed.
    del model.graph.value_info[:]
    # Of QDQ on opset 17 nothing else is left in the list of operator sets.
    kept = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx_files.stamp(model, metadata)
    onnx_files.save(model, output)


def _try(kind: str, source: Any, arguments: argparse.Namespace, scratch: pathlib.Path) -> Trial:
    path, output = source.model_path(kind), scratch / f"{kind}.onnx"
    calibrated, measured = _material(kind, arguments)
    feeds = _FEEDS[kind](path, calibrated)
    quantise(path, output, feeds)
    threshold = 0.0 if kind != "detector" else source.manifest["models"][kind]["thresholds"]["score"]["value"]
    before, after = (_figures(kind, one, measured, threshold, arguments.pages) for one in (path, output))
    times = _race(kind, (path, output), feeds, arguments.threads)
    for figures, file, milliseconds in zip((before, after), (path, output), times, strict=True):
        figures |= {"ms": milliseconds, "MB": file.stat().st_size / 1e6}
    return Trial(kind, output, before, after, _reasons(kind, before, after, arguments))


def _reasons(
    kind: str, before: Mapping[str, float], after: Mapping[str, float], arguments: argparse.Namespace
) -> list[str]:
    figure, sign = _DECISIVE[kind]
    loss, allowed = sign * (before[figure] - after[figure]), getattr(arguments, f"max_{kind}_loss")
    speedup = before["ms"] / after["ms"]
    reasons = []
    if not loss <= allowed:
        reasons.append(f"{figure} gets worse by {loss:.4f}, {allowed:g} is allowed")
    if not speedup >= arguments.minimum_speedup:
        reasons.append(f"{speedup:.2f} times as fast, {arguments.minimum_speedup:g} is asked for")
    return reasons


def _part(kind: str, source: Any, trial: Trial | None) -> bundles.Part:
    """A model of the new bundle: the int8 one where it ships, else the old one."""
    from export import contract

    entry, path = bundles.entry_of(source, kind), source.model_path(kind)
    if trial is not None:
        entry["quantization"] = trial.table()
        if not trial.reasons:
            path = trial.path
            entry |= {**contract.describe(path), "precision": "int8"}
            entry["equality"] = "Converted to int8, so not equal to the trained model; figures of both above."
    return bundles.Part(kind, path, entry)


def _material(kind: str, arguments: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """What to calibrate on and what to measure on; no document or writer is in both."""
    from export import measure, samples

    count, seed = arguments.count, arguments.seed
    real = arguments.pages if kind == "detector" else arguments.signatures
    if real is not None:
        return _real(kind, location.locate(real), count, seed)
    if kind == "detector":
        return list(samples.pages(_CALIBRATED, seed + 1)), list(samples.pages(count, seed))
    if kind == "cleaner":
        return list(samples.crop_pairs(_CALIBRATED, seed + 1)), list(samples.crop_pairs(count, seed))
    writers = max(2, count // 3)
    drawn = measure.signature_set(writers + 4, seed)
    return [one for one in drawn if one[1] >= writers], [one for one in drawn if one[1] < writers]


def _real(kind: str, folder: str, count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Calibrates on the training split of a data set, measures on its evaluation split."""
    from export import samples
    from training.data.tfrecord import read_pages

    def first(split: str, most: int) -> list[Any]:
        pages = []
        for page in read_pages(f"{folder}/{split}*"):
            pages.append(page)
            if len(pages) == most:
                break
        return pages

    if kind == "detector":
        return first("train", _CALIBRATED), first("eval", count)
    if kind == "cleaner":
        return (
            list(samples.pairs_of(first("train", _CALIBRATED), seed)),
            list(samples.pairs_of(first("eval", count), seed)),
        )
    return samples.drawn_of(first("train", _CALIBRATED)), samples.drawn_of(
        list(read_pages(f"{folder}/eval*"))
    )


def _figures(
    kind: str, path: pathlib.Path, material: Sequence[Any], threshold: float, pages: str | None
) -> dict[str, float]:
    from export import measure
    from training.data import tfrecord

    if kind != "detector":
        return getattr(measure, kind)(path, material)
    names = measure.CLASSES
    if pages is not None:
        names = tfrecord.read_label_map(pathlib.Path(location.locate(pages)) / tfrecord.LABEL_MAP)
    found = measure.detector(path, material, threshold, names)
    if not found:
        raise UserError(
            f"quantize: the detector has none of the classes {', '.join(names.values())}; give a data set "
            "that has its own with --pages."
        )
    return found


def _race(
    kind: str, paths: Sequence[pathlib.Path], feeds: Sequence[Mapping[str, np.ndarray]], threads: int
) -> list[float]:
    """Median ms of one call of each file; the calls take turns, so that other work slows both alike."""
    from export import measure
    from signver.model_file import open_model

    sessions = [open_model(path, kind, threads)[0] for path in paths]
    return measure.race([functools.partial(session.run, None) for session in sessions], feeds)


def _page_feeds(path: pathlib.Path, pages: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    import io

    from PIL import Image

    from signver import Detector
    from signver.images import as_rgb, reduce_page

    size = Detector(1).load(path).input_size
    images = (as_rgb(Image.open(io.BytesIO(page.image))) for page in pages)
    return [{"image": np.asarray(reduce_page(image, size), np.uint8)[np.newaxis]} for image in images]


def _crop_feeds(path: pathlib.Path, pairs: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    from PIL import Image

    from signver.cleaner import fit_crop

    squares = (fit_crop(Image.fromarray(crop).convert("RGB"))[0] for crop, *_ in pairs)
    return [{"input": np.asarray(square, np.float32)[np.newaxis] / 255} for square in squares]


def _signature_feeds(path: pathlib.Path, signatures: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    from signver import MetricExtractor

    normalise = MetricExtractor(1).load(path).normalise
    return [{"image": normalise(picture)[np.newaxis, ..., np.newaxis]} for picture, *_ in signatures]


# What a model is fed of the material: each opens its file once, if at all.
_FEEDS: dict[str, Callable[[pathlib.Path, Sequence[Any]], list[dict[str, np.ndarray]]]] = {
    "detector": _page_feeds,
    "cleaner": _crop_feeds,
    "extractor": _signature_feeds,
}
