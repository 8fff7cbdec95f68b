"""Command line of the preflight: `python -m training.preflight --help`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from training import config
from training.data import location
from training.errors import UserError, run_command
from training.preflight import gaudi

_NOTES = """
Traces the train step that training would run (same config, task, model and optimizer; one card's batch;
nothing is computed) and says what Gaudi would refuse or run badly, with the names of ops and layers; then
memory, speed, input pipeline, hours and dollars. Takes a minute or two on any CPU.

  BLOCK  the card refuses it, compiles again and again, or waits for the host in every step
  warn   runs, but slower than it could, or nobody knows
  note   for you to know

examples:
  python -m training.preflight --experiment=retinanet_signverod --config_file=configs/detector/8hpu.yaml \\
      --cards=8
  python -m training.preflight --experiment=cleaner_unet --config_file=configs/cleaner/8hpu.yaml --cards=16 \\
      --hosts=2 --params_override='{task: {train_data: {global_batch_size: 2048}}}' --json

Without data on this machine a few synthetic samples are made; --records says how many images the real set
has. Exit codes: 0 nothing blocks, 1 something does, 2 a mistake in the command or config.
No card was at hand when this was written: the rules come from Habana's documentation and reference models
(training/preflight/gaudi.py names each source), the times are arithmetic, not measurements.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's values; needs no TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="python -m training.preflight",
        description="Would this training run well on Gaudi? Answered on a CPU.",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--experiment", required=True, choices=sorted(config.EXPERIMENTS))
    parser.add_argument("--config_file", action="append", default=[], help="YAML file; may be repeated")
    location.add_argument(parser)
    parser.add_argument(
        "--params_override",
        action="append",
        default=[],
        help="YAML text that wins over the files; may be given several times, later ones win",
    )
    parser.add_argument("--cards", type=int, default=1, help="over all hosts (default 1)")
    parser.add_argument("--hosts", type=int, default=0, help="default: cards over eight, rounded up")
    parser.add_argument(
        "--utilization",
        type=float,
        default=gaudi.DEFAULT_UTILIZATION,
        help=f"share of {gaudi.PEAK_FLOPS / 1e12:.0f} TFLOP/s reached (default {gaudi.DEFAULT_UTILIZATION})",
    )
    parser.add_argument(
        "--price",
        type=float,
        default=gaudi.DOLLARS_PER_HOUR,
        help=f"dollars an hour and host (default {gaudi.DOLLARS_PER_HOUR}, dl1.24xlarge in 2021)",
    )
    parser.add_argument("--hbm_gb", type=float, default=gaudi.MEMORY_BYTES / 1e9, help="memory of a card")
    parser.add_argument("--vcpus", type=int, default=gaudi.VCPUS, help=f"of a host (default {gaudi.VCPUS})")
    parser.add_argument(
        "--records", type=int, default=2000, help="images, where the data are not here (default 2000)"
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="to time the input (default 8; 0: not timed)"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    return parser.parse_args(arguments)


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = parse_arguments()
    hosts = arguments.hosts or -(-arguments.cards // gaudi.CARDS_PER_HOST)
    numbers = (arguments.cards, hosts, arguments.records, arguments.vcpus)
    if min(numbers) < 1 or not 0 < arguments.utilization <= 1:
        raise UserError("--cards, --hosts, --records and --vcpus start at 1, --utilization is in (0, 1].")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    experiment = config.load(arguments.experiment, arguments.config_file, arguments.params_override)

    from training.preflight import report
    from training.preflight.cost import Cards

    cards = Cards(
        arguments.cards,
        hosts,
        arguments.utilization,
        arguments.price,
        1e9 * arguments.hbm_gb,
        arguments.vcpus,
    )
    findings, figures = inspect(arguments.experiment, experiment, cards, arguments.records, arguments.seconds)
    title = f"preflight: {arguments.experiment}, {cards.cards} card(s) on {cards.hosts} host(s)"
    if arguments.json:
        print(report.to_json(findings, figures))
    else:
        print(report.to_text(title, findings, figures, cards))
    return int(report.is_blocked(findings))


def inspect(
    name: str, experiment: Any, cards: Any, records: int = 2000, seconds: float = 8.0
) -> tuple[list[Any], dict[str, Any]]:
    """All findings and figures of a run; changes `experiment` as `training.experiment.resolve` does.

    Args:
      name: a key of `training.config.EXPERIMENTS`.
      experiment: its config, not yet resolved.
      cards: a `cost.Cards`.
      records: images of the real data set, used where none is here.
      seconds: how long to time the input pipeline; 0 leaves it out.
    """
    import tensorflow as tf

    from training import device, runner
    from training.data.records import index_records
    from training.experiment import resolve
    from training.preflight import checks, cost, feed, step

    precision = experiment.runtime.mixed_precision_dtype or "float32"
    device.set_precision("bfloat16" if precision == "auto" else precision)
    device.expect_idle_weights()
    data = experiment.task.train_data
    batch = data.global_batch_size
    findings = [checks.check_batch(batch, cards.cards)]
    share = max(1, batch // cards.cards)
    task = config.build_task(name, experiment)
    with feed.data_of(name, experiment) as sampled:
        if not sampled:
            records = len(index_records(data.input_path))
        resolve(experiment, records)
        data.global_batch_size = share  # one card's share of the batch is what one process reads
        dataset = task.build_inputs(data, tf.distribute.InputContext(1, 0), seed=experiment.seed)
        rate = feed.measure(dataset.prefetch(tf.data.AUTOTUNE), share, seconds) if seconds > 0 else {}
        data.global_batch_size = batch
    model = task.build_model()
    optimizer = runner.build_optimizer(experiment, model)
    traced = step.trace(task, model, optimizer, dataset.element_spec, share)
    findings += checks.check_graph(traced)
    run = cost.run_cost(traced, cards, experiment.trainer.train_steps, batch, records)
    memory = cost.memory(traced)
    if rate:
        rate["vcpus_needed"] = run["images_per_second"] * rate["cpu_seconds_per_image"] / cards.hosts
    findings += [
        checks.check_memory(memory, cards.memory),
        checks.check_input(rate.get("vcpus_needed"), cards.vcpus),
        checks.check_all_reduce(run),
    ]
    forward, total = cost.arithmetic(traced)
    weights = traced.trainable / 4
    return findings, {
        "memory": memory,
        "model": {"forward_flop": forward, "train_flop": total, "trainable_parameters": weights},
        "input": {**rate, "sample_data": sampled},
        "run": run,
        "records": records,
    }


if __name__ == "__main__":
    run_command(main)
