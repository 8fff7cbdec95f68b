"""Command line of the trainers: `python -m training.train --help`."""

from __future__ import annotations

import argparse
import os

from training import config, device
from training.data import location
from training.errors import run_command

_EXAMPLES = """
examples:
  # a small detector on a CPU, about ten minutes
  python -m training.train --experiment=retinanet_signverod --mode=train_and_eval \\
      --model_dir=runs/detector --config_file=configs/detector/cpu.yaml

  # other data, a shorter run
  python -m training.train --experiment=retinanet_signverod --mode=train_and_eval \\
      --model_dir=runs/mine --config_file=configs/detector/cpu.yaml \\
      --params_override='{task: {train_data: {input_path: "data/train*"}}, schedule: {epochs: 3.0}}'

  # figures of a trained model: of its best checkpoint, on its own validation data or on others
  python -m training.train --experiment=retinanet_signverod --mode=eval --model_dir=runs/detector
  python -m training.train --experiment=retinanet_signverod --mode=eval --model_dir=runs/detector \\
      --params_override='{task: {validation_data: {input_path: "data/others/eval*"}}}'

--mode=eval takes the config of the run where no --config_file is named, and changes nothing of the run: it
shows the figures and adds a line with them, the checkpoint and the data to measured.jsonl in the model_dir.
The same command again continues an interrupted run at its last checkpoint. SIGTERM saves and stops.
Exit codes: 0 done or saved on SIGTERM, 1 the training diverged, 2 a mistake in the command, config or data.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow, so `--help` and typos answer at once."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train or evaluate a signature model from a YAML config.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--experiment", required=True, choices=sorted(config.EXPERIMENTS), help="what to train"
    )
    parser.add_argument(
        "--mode",
        default="train_and_eval",
        choices=("train", "eval", "train_and_eval"),
        help="train_and_eval (default) keeps the best checkpoint apart; eval measures what was trained",
    )
    parser.add_argument(
        "--model_dir", required=True, help="folder for checkpoints, metrics.jsonl, TensorBoard, run.json"
    )
    parser.add_argument(
        "--config_file", action="append", default=[], help="YAML file; may be repeated, later files win"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        help="which one --mode=eval measures: best (default; the last where none was kept apart) or last",
    )
    location.add_argument(parser)
    parser.add_argument(
        "--params_override",
        action="append",
        default=[],
        help="YAML text that wins over the files; may be given several times, later ones win",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=device.CHOICES,
        help="auto takes the best that is there",
    )
    parsed = parser.parse_args(arguments)
    if parsed.checkpoint and parsed.mode != "eval":
        parser.error("--checkpoint belongs to --mode=eval; a training goes on from the last one")
    return parsed


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    # TensorFlow's own start-up notes would hide ours; TF_CPP_MIN_LOG_LEVEL=0 brings them back.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    files = arguments.config_file
    if (
        arguments.mode == "eval"
        and not files
        and os.path.exists(os.path.join(arguments.model_dir, "params.yaml"))
    ):
        files = [os.path.join(arguments.model_dir, "params.yaml")]
    experiment = config.load(arguments.experiment, files, arguments.params_override)

    from training import runner

    try:
        runner.run(
            arguments.experiment,
            experiment,
            arguments.mode,
            arguments.model_dir,
            arguments.device,
            arguments.checkpoint or "best",
        )
    except runner.PreemptedError as saved:
        print(saved, flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
