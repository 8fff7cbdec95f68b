"""Command line of the exports: `python -m export --help`."""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
from typing import Any

from export import bundle, csharp, quantize
from export.bundle import DEFAULT_SCORE
from training import options
from training.data import location
from training.errors import UserError, run_command

# What each model is exported with: the experiment's name in run.json -> command ->
# module:function. A new model is a new row; functions of one column take the same arguments.
_CLEANER = {
    "saved_model": "export.saved_model:save_cleaner",
    "weights": "export.saved_model:save_weights",
    "onnx": "export.onnx_model:convert_cleaner",
    "validate": "export.validate_cleaner:validate_cleaner",
    "samples": "export.validate_cleaner:synthetic_crops",
}
_EXTRACTOR = {
    "saved_model": "export.saved_model:save_extractor",
    "weights": "export.saved_model:save_weights",
    "onnx": "export.onnx_model:convert_extractor",
    "validate": "export.validate_extractor:validate_extractor",
    "samples": "export.validate_extractor:synthetic_signatures",
}
EXPORTS: dict[str, dict[str, str]] = {
    "retinanet_signverod": {
        "saved_model": "export.saved_model:save",
        "weights": "export.saved_model:save_weights",
        "onnx": "export.onnx_model:convert_detector",
        "validate": "export.validate:validate_detector",
        "samples": "export.validate:synthetic_pages",
    },
    "cleaner_autoencoder": _CLEANER,
    "cleaner_unet": _CLEANER,
    "extractor_metric": _EXTRACTOR,
    "extractor_siamese": {
        "saved_model": "export.saved_model:save_extractor",
        "weights": "export.saved_model:save_weights",
        "onnx": "export.onnx_model:convert_siamese",
        "validate": "export.validate_extractor:validate_siamese",
        "samples": "export.validate_extractor:synthetic_signatures",
    },
}
# What `validate --saved_model` compares with, by the `signver.model` of the ONNX file.
SAVED_MODELS = {
    "detector": ("export.validate:validate_saved_model", "export.validate:synthetic_pages"),
    "cleaner": ("export.validate_cleaner:validate_saved_model", "export.validate_cleaner:synthetic_crops"),
    "extractor": (
        "export.validate_extractor:validate_saved_model",
        "export.validate_extractor:synthetic_signatures",
    ),
}

_EXAMPLES = """
examples:
  python -m export saved_model --model_dir=runs/detector --output=runs/detector/saved_model
  python -m export onnx --model_dir=runs/detector --output=runs/detector/detector.onnx
  python -m export validate --model_dir=runs/detector --onnx=runs/detector/detector.onnx --synthetic=20
  python -m export weights --model_dir=runs/detector --output=weights/detector
  python -m export onnx --saved_model=cleaner_by_signver --output=cleaner.onnx
  python -m export report --model_dir=runs/detector --onnx=runs/detector/detector.onnx --data=data \\
      --output=report.html
  python -m export bundle --detector=runs/detector --cleaner=runs/cleaner --extractor=runs/extractor \\
      --output=bundle
  python -m export validate bundle          # on any machine: hashes, contract, golden vectors
  python -m export quantize bundle --output=bundle-int8
  python -m export siamese --checkpoint=convnet_best_loss.pt --output=verifier.onnx
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn a trained model into files that an SDK loads, and prove them equal to it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    saved = commands.add_parser("saved_model", help="TensorFlow SavedModel")
    onnx = commands.add_parser("onnx", help="ONNX file")
    weights = commands.add_parser("weights", help="what task.init_checkpoint starts from, without optimizer")
    validate = commands.add_parser(
        "validate", help="trained model against ONNX file, or a bundle; exit code 1 when they differ"
    )
    converted = onnx.add_mutually_exclusive_group(required=True)
    converted.add_argument(
        "--saved_model", type=pathlib.Path, help="a cleaner that another script trained, as SignVer's does"
    )
    validate.add_argument(
        "bundle",
        nargs="?",
        type=pathlib.Path,
        help="a bundle to prove, from hashes to golden vectors",
    )
    validate.add_argument("--public_key", help="PEM file; the bundle must be signed with its private key")
    trained = validate.add_mutually_exclusive_group()
    trained.add_argument(
        "--saved_model", type=pathlib.Path, help="compare with an exported SavedModel instead of a run"
    )
    places = ((saved, saved), (weights, weights), (onnx, converted), (validate, trained))
    for command, place in places:
        place.add_argument("--model_dir", required=place is command, help="folder of a run of training.train")
        command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    for command in (saved, weights, onnx):
        command.add_argument("--output", required=True, type=pathlib.Path)
    onnx.add_argument("--dynamic_batch", action="store_true", help="a free batch dimension instead of 1")
    onnx.add_argument(
        "--score_threshold",
        type=float,
        default=DEFAULT_SCORE,
        help=f"recorded for callers (default {DEFAULT_SCORE:g})",
    )
    _add_comparison(validate)
    _add_bundles(commands)
    _add_report(commands, sys.argv[1:] if arguments is None else arguments)
    _add_siamese(commands)
    return parser.parse_args(arguments)


def _add_comparison(validate: argparse.ArgumentParser) -> None:
    validate.add_argument("--onnx", type=pathlib.Path)
    validate.add_argument(
        "--pages",
        nargs="+",
        default=[],
        help="pages or crops: image files, folders, data sets, TFRecord patterns",
    )
    location.add_argument(validate)
    validate.add_argument(
        "--limit", type=options.whole(1), default=50, help="pages or crops used at most (default 50)"
    )
    validate.add_argument(
        "--synthetic", type=options.whole(0), default=0, help="synthetic pages or crops to add"
    )
    validate.add_argument(
        "--minimum_detections",
        type=options.whole(0),
        default=10,
        help="fewer, or fewer crops that tell, fail (default 10)",
    )
    validate.add_argument("--seed", type=int, default=0)
    validate.add_argument("--output", type=pathlib.Path, help="JSON report")


def _add_bundles(commands: argparse._SubParsersAction) -> None:
    bundle.add_arguments(commands.add_parser("bundle", help="models, contract and proof in one folder"))
    csharp.add_arguments(commands.add_parser("csharp", help="a C# program that uses a bundle"))
    quantize.add_arguments(commands.add_parser("quantize", help="int8 models of a bundle, where they pay"))


def _add_report(commands: argparse._SubParsersAction, arguments: list[str]) -> None:
    """Its options need numpy and more, which a machine that only proves a bundle may lack."""
    parser = commands.add_parser("report", help="one HTML page on a run")
    if "report" in arguments:
        from export import report

        report.add_arguments(parser)


def _add_siamese(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "siamese", help="a PyTorch Siamese verifier as ONNX for the .NET SDK; exit code 1 when they differ"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=pathlib.Path,
        help="convnet_best_loss.pt, signet.pth, *.safetensors",
    )
    parser.add_argument("--output", type=pathlib.Path, help="pair form: input0, input1 to output0 to output2")
    parser.add_argument("--embedding_output", type=pathlib.Path, help="batched form: image to embedding")
    parser.add_argument(
        "--signatures",
        type=pathlib.Path,
        help="folder of signatures to prove the files on; synthetic without",
    )


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.command == "report":
        from export import report

        return report.run(arguments)
    if arguments.command == "siamese":
        from export import siamese

        return siamese.run(arguments)
    if arguments.command == "bundle":
        return bundle.run(arguments, _function)
    if arguments.command == "csharp":
        return csharp.run(arguments)
    if arguments.command == "quantize":
        return quantize.run(arguments)
    if arguments.command == "validate":
        return _validate_bundle(arguments) if arguments.bundle else _validate(arguments)
    return _convert(arguments)


def _convert(arguments: argparse.Namespace) -> int:
    if arguments.command == "onnx" and not 0.0 <= arguments.score_threshold <= 1.0:
        raise UserError(f"--score_threshold {arguments.score_threshold}: scores are between 0 and 1.")
    from absl import logging

    from training.runner import load_model

    # Keras warns for each layer that only its own format cannot hold; a SavedModel's signature can.
    logging.set_verbosity(logging.ERROR)

    if arguments.command == "onnx" and arguments.saved_model:
        from export.onnx_model import convert_saved_model

        path = convert_saved_model(
            arguments.saved_model, arguments.output, dynamic_batch=arguments.dynamic_batch
        )
        print(f"{path}: onnx, {path.stat().st_size / 1e6:.1f} MB, of {arguments.saved_model}")
        return 0
    loaded = load_model(arguments.model_dir, arguments.checkpoint)
    options = {}
    if arguments.command == "onnx":
        options = {"dynamic_batch": arguments.dynamic_batch, "score_threshold": arguments.score_threshold}
    path = _function(loaded.experiment, arguments.command)(loaded, arguments.output, **options)
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    print(f"{path}: {arguments.command}, {size / 1e6:.1f} MB, of {loaded.checkpoint}")
    return 0


def _validate_bundle(arguments: argparse.Namespace) -> int:
    """Needs what the SDK needs, no TensorFlow."""
    from signver import SignVerError
    from signver.proof import verify

    try:
        proof = verify(arguments.bundle, public_key=arguments.public_key)
    except SignVerError as error:
        raise UserError(str(error)) from error
    print(proof.text())
    return 0 if proof.passed else 1


def _validate(arguments: argparse.Namespace) -> int:
    if not arguments.onnx or not (arguments.model_dir or arguments.saved_model):
        raise UserError("validate: name a bundle, or --onnx with --model_dir or --saved_model; see --help.")
    if not arguments.onnx.is_file():
        raise UserError(f"--onnx {arguments.onnx}: no such file; make it with `python -m export onnx`.")
    if not arguments.pages and not arguments.synthetic:
        raise UserError("validate: nothing to compare on; give --pages, --synthetic or both.")
    from export import saved_model, validate

    if arguments.saved_model:  # said at once, before pages are read
        saved_model.check_saved_model(arguments.saved_model)
    pages = [location.locate(page) for page in arguments.pages]
    images = validate.load_pages(pages, arguments.limit)
    if arguments.saved_model:
        compare, samples = (_load(name) for name in SAVED_MODELS[_kind(arguments.onnx)])
        subject: Any = arguments.saved_model
    else:
        from training.runner import load_model

        subject = load_model(arguments.model_dir, arguments.checkpoint)
        compare = _function(subject.experiment, "validate")
        samples = _function(subject.experiment, "samples")
    images += samples(arguments.synthetic, arguments.seed)
    report = compare(subject, arguments.onnx, images, arguments.minimum_detections, arguments.seed)
    print(report.text())
    if arguments.output:
        validate.write_report(report, arguments.output)
    return 0 if report.passed else 1


def _function(experiment: str, command: str) -> Any:
    """The row's function for a command."""
    if command not in EXPORTS.get(experiment, {}):
        known = ", ".join(sorted(name for name, row in EXPORTS.items() if command in row))
        raise UserError(f"{command}: no export of {experiment}; there is one of {known}.")
    return _load(EXPORTS[experiment][command])


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _kind(onnx_file: pathlib.Path) -> str:
    """The `signver.model` of an ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(onnx_file), load_external_data=False)
    except DecodeError as error:
        raise UserError(f"--onnx {onnx_file}: not an ONNX file.") from error
    kind = {entry.key: entry.value for entry in model.metadata_props}.get("signver.model", "")
    if kind not in SAVED_MODELS:
        known = ", ".join(SAVED_MODELS)
        raise UserError(
            f"--onnx {onnx_file}: its metadata signver.model say '{kind}'; a SavedModel is compared with one "
            f"of {known}."
        )
    return kind


if __name__ == "__main__":
    run_command(main)
