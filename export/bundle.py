"""One folder with all that a program needs to use trained models, proved before it gets its name.

    bundle/manifest.json    contract of each model, thresholds, figures, hashes of all files
           detector.onnx, cleaner.onnx, extractor.onnx
           golden/          inputs and expected outputs
           cards/           a model card each
           NOTICE.md        of third parties

The same runs give the same bytes: nothing in it says when or where it was made.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training import options
from training.errors import UserError

if TYPE_CHECKING:
    from training.runner import LoadedModel

# The score from which a found box counts, where nobody chose another.
DEFAULT_SCORE = 0.3
KINDS = ("detector", "cleaner", "extractor")
NOTICE = "NOTICE.md"
_DROPPED = ("time", "phase", "step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}",
            metavar="DIR",
            help=f"model_dir of a run of a {kind}, or a bundle: its {kind} is taken over as it is",
        )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder to write")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument(
        "--score_threshold",
        type=float,
        default=DEFAULT_SCORE,
        help=f"from which a found box counts (default {DEFAULT_SCORE:g})",
    )
    parser.add_argument(
        "--licence", default="Apache-2.0", help="SPDX identifier of the weights (default Apache-2.0)"
    )
    parser.add_argument(
        "--synthetic",
        type=options.whole(1),
        default=20,
        help="synthetic pages, crops and signatures to prove each model on (default 20)",
    )
    parser.add_argument(
        "--minimum_detections",
        type=options.whole(0),
        default=10,
        help="fewer, or fewer crops and signatures that tell, fail (default 10)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the pictures that prove it")
    parser.add_argument("--sign", metavar="KEY", help="PEM file of an Ed25519 or ECDSA key; see docs/sdk.md")


def run(arguments: argparse.Namespace, function: Callable[[str, str], Any]) -> int:
    """Makes a bundle.

    Args:
      arguments: of the command.
      function: what a run of an experiment is exported with, by experiment and command.

    Returns:
      The exit code.
    """
    runs = {kind: getattr(arguments, kind) for kind in KINDS if getattr(arguments, kind)}
    if not runs:
        raise UserError("bundle: nothing to put in; give --detector, --cleaner, --extractor, one at least.")
    if not 0.0 <= arguments.score_threshold <= 1.0:
        raise UserError(f"--score_threshold {arguments.score_threshold}: scores are between 0 and 1.")
    check_target(arguments.output)
    with tempfile.TemporaryDirectory() as scratch:
        parts = [
            _taken_over(kind, folder)
            if (pathlib.Path(folder) / "manifest.json").is_file()
            else _export(kind, folder, pathlib.Path(scratch) / f"{kind}.onnx", arguments, function)
            for kind, folder in runs.items()
        ]
        gaps = write(arguments.output, parts, arguments.licence, arguments.seed, arguments.sign)
    print(summary(arguments.output, gaps))
    return 0


@dataclasses.dataclass(frozen=True)
class Part:
    """A model on its way into a bundle.

    Attributes:
      kind: "detector", "cleaner" or "extractor".
      path: ONNX file.
      entry: its manifest entry, without file, size and hash.
    """

    kind: str
    path: pathlib.Path
    entry: dict[str, Any]


def check_target(output: pathlib.Path) -> None:
    """Refuses to replace anything but a bundle, all of it and nothing else.

    Raises:
      UserError: the folder holds something else, or more.
    """
    from signver import SignVerError, manifest, signing

    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        found, _ = manifest.read(output)
        strangers = manifest.strangers(output, found, signing.SIGNATURE)
    except SignVerError as error:
        raise UserError(f"{output} exists and is no bundle; name a new folder ({error})") from error
    if strangers:
        raise UserError(f"{output} holds more than a bundle ({', '.join(strangers[:3])}); name a new folder.")


def write(
    output: pathlib.Path, parts: Sequence[Part], licence: str, seed: int, key: str | None = None
) -> list[str]:
    """Writes and proves a bundle; an old one of this name is replaced.

    Returns:
      What its golden vectors do not prove, one sentence each.

    Raises:
      UserError: the folder cannot be written, or the finished bundle does not prove itself.
    """
    import shutil

    from export import cards, golden
    from signver import SignVerError
    from signver.proof import verify
    from training.files import atomic_folder

    with atomic_folder(output) as folder:
        models, sources = {}, {}
        for part in parts:
            path = folder / f"{part.kind}.onnx"
            shutil.copyfile(part.path, path)
            models[part.kind] = {"file": path.name, **stamp(path), **part.entry}
            sources[part.kind] = golden.Source(path, part.entry["precision"], _decisive(part))
        gaps = golden.write(folder, sources, seed)
        (folder / "cards").mkdir()
        for part in parts:
            card = folder / part.entry["card"]
            card.write_text(cards.card(part.kind, models[part.kind]), encoding="utf-8")
        (folder / NOTICE).write_text(cards.notice(models), encoding="utf-8")
        _write_manifest(folder, models, licence, key)
        try:
            proof = verify(folder, threads=1)
        except SignVerError as error:
            raise UserError(f"the finished bundle is refused: {error}") from error
        if not proof.passed:
            raise UserError(f"the finished bundle does not prove itself:\n{proof.text()}")
    return gaps


def _decisive(part: Part) -> float:
    """The threshold that decides; cleaners have none."""
    thresholds = part.entry["thresholds"]
    return (
        float(thresholds[{"detector": "score", "extractor": "cosine"}[part.kind]]["value"])
        if thresholds
        else 0.5
    )


def entry_of(source: Any, kind: str) -> dict[str, Any]:
    """A model's entry in the manifest of an opened bundle, without file, size and hash."""
    left_out = ("file", "sha256", "size")
    return {key: value for key, value in source.manifest["models"][kind].items() if key not in left_out}


def stamp(path: pathlib.Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as a manifest lists them."""
    from training.files import sha256

    return {"size": path.stat().st_size, "sha256": sha256(path)}


def summary(output: pathlib.Path, gaps: Sequence[str]) -> str:
    """What a command says at its end."""
    files = [file for file in output.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    lines = [f"{output}: {len(files)} files, {size / 1e6:.1f} MB, golden vectors PASSED"]
    return "\n".join([*lines, *(f"not proved: {gap}" for gap in gaps)])


def _write_manifest(folder: pathlib.Path, models: Mapping[str, Any], licence: str, key: str | None) -> None:
    from export import golden
    from signver import SignVerError, manifest, signing

    others = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".onnx"
    )
    content = {
        "format": "signver-bundle",
        "schema_version": manifest.SCHEMA_VERSION,
        "licence": licence,
        "producer": {"name": "signver-harness", "version": _version()},
        "models": models,
        "files": {name: stamp(folder / name) for name in others},
        "golden": golden.INDEX,
        "notice": NOTICE,
    }
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / manifest.NAME).write_text(text, encoding="utf-8")
    if key is not None:
        try:
            (folder / signing.SIGNATURE).write_bytes(signing.sign(text.encode(), key))
        except SignVerError as error:
            raise UserError(f"--sign {error}") from error


def _version() -> str:
    try:
        return importlib.metadata.version("signver-harness")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _taken_over(kind: str, folder: str) -> Part:
    """A model of another bundle, its file and what was proved of it unchanged."""
    from signver import SignVerError
    from signver.bundle import Bundle

    try:
        source = Bundle.load(folder)
    except SignVerError as error:
        raise UserError(f"--{kind} {error}") from error
    if not source.has(kind):
        raise UserError(f"--{kind} {folder}: this bundle has no {kind}.")
    return Part(kind, source.model_path(kind), entry_of(source, kind))


def _export(
    kind: str,
    folder: str,
    path: pathlib.Path,
    arguments: argparse.Namespace,
    function: Callable[[str, str], Any],
) -> Part:
    """Converts one run, proves the file equal to the trained model, and describes both."""
    from absl import logging

    from export import contract
    from training.runner import load_model

    logging.set_verbosity(logging.ERROR)
    loaded = load_model(folder, arguments.checkpoint)
    function(loaded.experiment, "onnx")(loaded, path, score_threshold=arguments.score_threshold)
    _, metadata = contract.read_model(path)
    if metadata["signver.model"] != kind:
        raise UserError(
            f"--{kind} {folder}: a run of {loaded.experiment}, which is a {metadata['signver.model']}."
        )
    images = function(loaded.experiment, "samples")(arguments.synthetic, arguments.seed)
    minimum = arguments.minimum_detections
    report = function(loaded.experiment, "validate")(loaded, path, images, minimum, arguments.seed)
    if not report.passed:
        raise UserError(
            f"--{kind} {folder}: the ONNX file is not proved equal to the model.\n{report.text()}"
        )
    limits = ", ".join(f"{name} {limit:g}" for name, limit in report.as_dict()["limits"].items())
    entry = _entry(kind, loaded, path, metadata, arguments)
    entry["equality"] = (
        f"Compared with the trained TensorFlow model on {len(images)} synthetic pictures by "
        f"`python -m export bundle`; largest differences allowed: {limits}."
    )
    return Part(kind, path, entry)


def _entry(
    kind: str,
    loaded: LoadedModel,
    path: pathlib.Path,
    metadata: Mapping[str, str],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    from export import contract
    from training import record
    from training.files import sha256

    model_dir = loaded.model_dir
    started = record.read(model_dir)
    needed = "threshold_skilled" if kind == "extractor" else None
    evaluation = record.evaluation_of(model_dir, loaded.step, needed)
    figures = {name: _six(value) for name, value in evaluation.items() if _is_figure(name, value)}
    data = {
        split: {
            "source": _source(getattr(loaded.params.task, f"{split}_data").input_path),
            "records": entry["records"],
            "fingerprint": entry["fingerprint"],
        }
        for split, entry in started.get("data", {}).items()
    }
    held_out = data.get("validation", {"source": "none", "records": 0})
    return {
        **contract.describe(path),
        "precision": "float32",
        "thresholds": _thresholds(kind, path, metadata, figures, arguments),
        "validation": {
            "data": f"{held_out['source']}: {held_out['records']} records",
            "step": int(evaluation.get("step", 0)),
            "figures": figures,
        },
        "run": {
            "experiment": loaded.experiment,
            "checkpoint": arguments.checkpoint,
            "checkpoint_sha256": metadata["signver.checkpoint_sha256"],
            "config_sha256": sha256(model_dir / "params.yaml"),
            "git_commit": metadata["signver.git_commit"],
            "seed": started.get("seed"),
            "precision": started.get("precision", "unknown"),
            "data": data,
        },
        "licence": arguments.licence,
        "card": f"cards/{kind}.md",
    }


def _source(input_path: str | Sequence[str] | None) -> str:
    """Folder and pattern of each data set, without the folders of this machine."""
    names = [input_path] if isinstance(input_path, str) else list(input_path or [])
    return ", ".join("/".join(pathlib.PurePath(name).parts[-2:]) for name in names) or "none"


def _thresholds(
    kind: str,
    path: pathlib.Path,
    metadata: Mapping[str, str],
    figures: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Each threshold with the figures that it was measured to have."""
    if kind == "detector":
        return {"score": _score_threshold(path, arguments)}
    if kind == "cleaner":
        return {}
    found = {
        "cosine": {
            "value": float(metadata["signver.threshold"]),
            "meaning": "Genuine from this cosine on: equal error rate against skilled forgeries, on the "
            "validation writers. Choose your own where the two mistakes cost different amounts.",
            "figures": {name: value for name, value in figures.items() if "skilled" in name},
        }
    }
    if figures.get("threshold_random") is not None:
        found["cosine_random"] = {
            "value": figures["threshold_random"],
            "meaning": "One writer from this cosine on: equal error rate against signatures of other "
            "writers; for telling who signed, where nobody forges.",
            "figures": {name: value for name, value in figures.items() if "random" in name},
        }
    return found


def _score_threshold(path: pathlib.Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from export import measure, samples

    threshold = arguments.score_threshold
    found = measure.detector(path, list(samples.pages(arguments.synthetic, arguments.seed)), threshold)
    return {
        "value": threshold,
        "meaning": "A found box counts from this score on. Lower misses fewer, higher raises fewer false "
        f"alarms; figures on {arguments.synthetic} synthetic pages of other writers, overlap one half, for "
        "the classes that they have.",
        "figures": {name: _six(value) for name, value in found.items()},
    }


def _is_figure(name: str, value: Any) -> bool:
    # COCO's figures are -1 where no object is of that size.
    number = isinstance(value, int | float) and value == value and value != -1
    return number and name not in _DROPPED and not name.startswith("best_")


def _six(value: float) -> float:
    return float(f"{value:.6g}")
