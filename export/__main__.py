"""Command line of the exports: `python -m export --help`."""

from __future__ import annotations

import argparse
import os
import pathlib

from training.errors import run_command

_EXAMPLES = """
examples:
  python -m export saved_model --model_dir=runs/detector --output=runs/detector/saved_model
  python -m export onnx --model_dir=runs/detector --output=runs/detector/detector.onnx
  python -m export validate --model_dir=runs/detector --onnx=runs/detector/detector.onnx --synthetic=20
  python -m export report --model_dir=runs/detector --onnx=runs/detector/detector.onnx --data=data \\
      --output=report.html
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
    validate = commands.add_parser(
        "validate", help="trained model against ONNX file; exit code 1 when they differ"
    )
    for command in (saved, onnx, validate):
        command.add_argument("--model_dir", required=True, help="folder of a run of training.train")
        command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    for command in (saved, onnx):
        command.add_argument("--output", required=True, type=pathlib.Path)
    onnx.add_argument("--dynamic_batch", action="store_true", help="a free batch dimension instead of 1")
    onnx.add_argument("--score_threshold", type=float, default=0.3, help="recorded for callers (default 0.3)")
    validate.add_argument("--onnx", required=True, type=pathlib.Path)
    validate.add_argument(
        "--pages", nargs="+", default=[], help="image files, folders, data sets or TFRecord patterns"
    )
    validate.add_argument("--limit", type=int, default=50, help="pages used at most (default 50)")
    validate.add_argument("--synthetic", type=int, default=0, help="synthetic pages to add")
    validate.add_argument("--minimum_detections", type=int, default=10, help="fewer fail (default 10)")
    validate.add_argument("--seed", type=int, default=0)
    validate.add_argument("--output", type=pathlib.Path, help="JSON report")
    _add_report(commands)
    return parser.parse_args(arguments)


def _add_report(commands: argparse._SubParsersAction) -> None:
    from export import report

    report.add_arguments(commands.add_parser("report", help="one HTML page on a run"))


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.command == "report":
        from export import report

        return report.run(arguments)
    from training.runner import load_model

    loaded = load_model(arguments.model_dir, arguments.checkpoint)
    if arguments.command == "saved_model":
        from export import saved_model

        print(f"{saved_model.save(loaded, arguments.output)}: SavedModel of {loaded.checkpoint}")
        return 0
    if arguments.command == "onnx":
        from export import onnx_model

        path = onnx_model.convert_detector(
            loaded,
            arguments.output,
            dynamic_batch=arguments.dynamic_batch,
            score_threshold=arguments.score_threshold,
        )
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset {onnx_model.OPSET}, of {loaded.checkpoint}")
        return 0
    from export import validate

    images = validate.load_pages(arguments.pages, arguments.limit)
    images += validate.synthetic_pages(arguments.synthetic, arguments.seed)
    report_found = validate.validate_detector(
        loaded, arguments.onnx, images, arguments.minimum_detections, arguments.seed
    )
    print(validate.table(report_found))
    if arguments.output:
        validate.write_report(report_found, arguments.output)
    return 0 if report_found.passed else 1


if __name__ == "__main__":
    run_command(main)
