"""Images a second of one process against two, a core each, and what eight cards and four hosts should give.

    python benchmarks/scaling.py                    # detector and cleaner, about ten minutes
    python benchmarks/scaling.py --models cleaner   # one of them

Trains the CPU config on synthetic data three ways: one process on one core, two processes on one core each
without any exchange, and two that average gradients through Horovod under mpirun. The second is the peer:
what it loses against twice the first is the machine's (memory, clock), what the third loses against the
second is ours. Then the time of the all-reduce alone, on gradients of the same sizes. The prediction for
Gaudi takes bytes and arithmetic from the traced step (training/preflight) and published link speeds, and is
held against Habana's published ResNet-50.

Needs mpirun and Horovod (scripts/install_horovod.sh) and two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
EXPERIMENTS = {"detector": "retinanet_signverod", "cleaner": "cleaner_unet"}
# Images of one process's step: the detector's CPU config, half of the cleaner's; about a second on a core.
BATCH = {"detector": 8, "cleaner": 16}
MPIRUN = ["mpirun", "--allow-run-as-root", "--bind-to", "core", "--map-by", "core:PE=1", "-np", "2"]
# ResNet-50: 25.6 M weights; Habana's published rates (training/preflight/gaudi.py), batch 256 a card.
RESNET_BYTES, RESNET_BATCH, RESNET_RATES = 4 * 25.6e6, 256, (1690, 12950)


def main() -> None:
    """Measures, predicts, prints."""
    arguments = parse_arguments()
    if arguments.all_reduce:
        return time_all_reduce(json.loads(arguments.all_reduce))
    with tempfile.TemporaryDirectory(prefix="signver-scaling-") as folder:
        for model in arguments.models:
            measure(model, pathlib.Path(folder), arguments.seconds)
    if not arguments.no_prediction:
        predict(arguments.models)


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=sorted(EXPERIMENTS), default=sorted(EXPERIMENTS))
    parser.add_argument("--seconds", type=float, default=60, help="of training, each way (default 60)")
    parser.add_argument("--no_prediction", action="store_true", help="measure only")
    parser.add_argument("--all_reduce", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(model: str, folder: pathlib.Path, seconds: float) -> None:
    """Prints the three rates and the time of an all-reduce."""
    from training import config

    data = config.sample_data(EXPERIMENTS[model], folder / model)
    core = sorted(os.sched_getaffinity(0))[:2]
    one = train(model, data, folder / f"{model}-1", seconds, [["taskset", "-c", str(core[0])]], 1)
    apart = train(
        model, data, folder / f"{model}-a", seconds, [["taskset", "-c", str(number)] for number in core], 1
    )
    together = train(model, data, folder / f"{model}-2", seconds, [MPIRUN], 2)
    sizes = gradient_sizes(model)
    command = [*MPIRUN, sys.executable, __file__, "--all_reduce", json.dumps(sizes)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    reduce = float(done.stdout.split()[-1])
    step = 2 * BATCH[model] / together
    print(f"\n{model}: {sum(sizes) * 4 / 1e6:.1f} MB of gradients, {BATCH[model]} images a process and step")
    print(f"  one process, one core            {one:7.2f} images/s")
    print(f"  two processes apart              {apart:7.2f} images/s, {apart / (2 * one):.0%} of twice one")
    print(
        f"  two processes, one model         {together:7.2f} images/s, {together / (2 * one):.0%} of twice "
        f"one, {together / apart:.0%} of two apart"
    )
    print(f"  all-reduce alone {1e3 * reduce:.1f} ms of a step of {1e3 * step:.0f} ms: {reduce / step:.1%}")


def environment() -> dict[str, str]:
    """For the processes: this project on the path, quiet."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


def train(
    model: str, data: str, folder: pathlib.Path, seconds: float, prefixes: list[list[str]], processes: int
) -> float:
    """Images a second of all processes together, the first loops left out."""
    task: dict[str, object] = {
        "train_data": {"input_path": data, "global_batch_size": BATCH[model] * processes}
    }
    if model == "cleaner":
        task["workers"] = 0
    override = {
        "task": task,
        "trainer": {"train_steps": 100_000, "steps_per_loop": 4},
        "schedule": {"checkpoints": 1, "evaluations": 1},
    }
    running, folders = [], []
    for number, prefix in enumerate(prefixes):
        folders.append(folder.with_name(f"{folder.name}-{number}"))
        command = [sys.executable, "-m", "training.train", f"--experiment={EXPERIMENTS[model]}"]
        command += ["--mode=train", "--device=cpu", f"--config_file=configs/{model}/cpu.yaml"]
        command += [f"--model_dir={folders[-1]}", f"--params_override={json.dumps(override)}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen([*prefix, *command], cwd=ROOT, env=environment(), **quiet))
    # The clock starts when all train, so that no one has the machine to itself.
    while not all((each / "metrics.jsonl").exists() for each in folders):
        if any(process.poll() is not None for process in running):
            raise SystemExit(f"training of {model} failed: run it by hand to see why")
        time.sleep(0.5)
    time.sleep(seconds)
    for process in running:
        process.kill()
        process.wait()
    rates = []
    for each in folders:
        lines = [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        rates.append(statistics.median([line["images_per_second"] for line in lines][1:]))
    return sum(rates)


def gradient_sizes(model: str) -> list[int]:
    """Numbers in each gradient of the CPU config's model."""
    code = (
        "import sys, json; from training import config; "
        f"e = config.load('{EXPERIMENTS[model]}', ['configs/{model}/cpu.yaml']); "
        f"m = config.build_task('{EXPERIMENTS[model]}', e).build_model(); "
        "print(json.dumps([int(v.shape.num_elements()) for v in m.trainable_variables]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def time_all_reduce(sizes: list[int], repeats: int = 30) -> None:
    """One rank: the median seconds of averaging all gradients of a step, as the optimizer does."""
    import tensorflow as tf

    from training import distribution

    distribution.init()
    gradients = [tf.random.normal([size]) for size in sizes]

    @tf.function
    def average() -> list[tf.Tensor]:
        pairs = distribution.average_gradients([(gradient, None) for gradient in gradients])
        return [gradient for gradient, _ in pairs]

    taken = []
    for _ in range(repeats):
        distribution.barrier()
        begun = time.perf_counter()
        average()
        taken.append(time.perf_counter() - begun)
    if distribution.is_chief():
        print(statistics.median(taken), flush=True)


def predict(models: list[str]) -> None:
    """Efficiency on 8 and 32 cards from bytes, arithmetic and published links; ResNet-50 as a check."""
    from training.preflight import cost, gaudi

    print("\npredicted for Gaudi, nothing overlapped, no latency (arithmetic, not a measurement):")
    compute = RESNET_BATCH / RESNET_RATES[0]
    reduce = cost.all_reduce_seconds(RESNET_BYTES, 8, 1)
    print(
        f"  ResNet-50, 8 cards: {compute / (compute + reduce):.1%}; "
        f"Habana published {RESNET_RATES[1] / (8 * RESNET_RATES[0]):.1%}"
    )
    for model in models:
        command = [sys.executable, "-m", "training.preflight", f"--experiment={EXPERIMENTS[model]}", "--json"]
        command += [f"--config_file=configs/{model}/8hpu.yaml", "--cards=8", "--seconds=1"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        if not done.stdout:
            raise SystemExit(done.stderr)
        run = json.loads(done.stdout)["run"]
        compute, size = run["compute_seconds"], run["all_reduce_bytes"]
        parts = []
        for cards, hosts in ((8, 1), (32, 4)):
            reduce = cost.all_reduce_seconds(size, cards, hosts)
            parts.append(f"{cards} cards on {hosts} host(s) {compute / (compute + reduce):.1%}")
        share = f"{gaudi.DEFAULT_UTILIZATION:.0%} of {gaudi.PEAK_FLOPS / 1e12:.0f} TFLOP/s"
        print(f"  {model}, {1e3 * compute:.0f} ms a step at {share}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
