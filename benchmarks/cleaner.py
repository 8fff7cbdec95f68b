"""Both cleaners and the baselines on held-out writers, after the same wall time of training.

    python benchmarks/cleaner.py --data ../shared/data/cedar --minutes 30 --output runs/cleaner
    python benchmarks/cleaner.py --data … --crops ../shared/data/tobacco800-signatures --output runs/cleaner

Converts the signatures (splits by writer), trains `cleaner_autoencoder` and `cleaner_unet` for --minutes
each, exports and validates both, and measures them on the fixed pairs of held-out writers through ONNX
Runtime: PSNR, SSIM, ink F1, the same on untouched crops, ms an image. With --crops (a YOLO folder) it also
cleans real crops cut by their boxes and lays them side by side in OUTPUT/crops.png, to be looked at.
Steps that are there are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.commands import ROOT, call

MODELS = ("cleaner_autoencoder", "cleaner_unet")
COLUMNS = (
    "psnr",
    "ssim",
    "rmse",
    "ink_precision",
    "ink_recall",
    "ink_f1",
    "psnr_untouched",
    "ink_f1_untouched",
)


def main() -> None:
    """Trains what is not there yet, then measures."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = arguments.output.resolve() / "signatures"
    if not data.exists():
        convert = ("training.data", "convert", "signatures", f"--input={arguments.data}")
        call(*convert, f"--output={data}", f"--seed={arguments.seed}", "--eval_fraction=0.25")
    files = {name: train_and_export(name, data, arguments) for name in MODELS}
    figures = measure(files, data)
    figures["date"], figures["minutes"] = time.strftime("%Y-%m-%d"), arguments.minutes
    (arguments.output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print_table(figures)
    if arguments.crops:
        contact_sheet(files["cleaner_unet"], arguments.crops, arguments.output / "crops.png", arguments.seed)


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of signatures, any layout")
    parser.add_argument("--crops", type=pathlib.Path, help="YOLO folder of pages, for real crops")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/cleaner"))
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each model (default 30)")
    parser.add_argument("--seed", type=int, default=11)
    return parser.parse_args()


def train_and_export(name: str, data: pathlib.Path, arguments: argparse.Namespace) -> pathlib.Path:
    """Trains for the given time, exports and validates; returns the ONNX file."""
    model_dir = arguments.output.resolve() / name
    onnx = model_dir / "cleaner.onnx"
    if onnx.exists():
        return onnx
    rate = images_a_second(name, data, model_dir.with_name(f"{name}_speed"), arguments.seed)
    steps = max(10, int(60 * arguments.minutes * rate / 32))
    print(f"{name}: {rate:.1f} images/s, {steps} steps in {arguments.minutes:g} minutes", flush=True)
    train(name, data, model_dir, f"trainer: {{train_steps: {steps}}}", arguments.seed)
    call("export", "onnx", f"--model_dir={model_dir}", "--checkpoint=last", f"--output={onnx}")
    validate = ("export", "validate", f"--model_dir={model_dir}", "--checkpoint=last", f"--onnx={onnx}")
    # A model that ends all white is a result too; the table shows it.
    call(*validate, f"--pages={data}/eval*", "--limit=40", "--minimum_detections=0")
    return onnx


def train(
    name: str, data: pathlib.Path, model_dir: pathlib.Path, settings: str, seed: int, **options
) -> None:
    """One run of training.train; `timeout` seconds, then SIGTERM, which saves."""
    inputs = f"train_data: {{input_path: '{data}/train*'}}, validation_data: {{input_path: '{data}/eval*'}}"
    override = f"{{task: {{{inputs}}}, schedule: {{evaluations: 1}}, seed: {seed}, {settings}}}"
    command = [sys.executable, "-W", "ignore", "-m", "training.train", f"--experiment={name}", "--mode=train"]
    command += ["--config_file=configs/cleaner/cpu.yaml", f"--model_dir={model_dir}"]
    process = subprocess.Popen([*command, f"--params_override={override}"], cwd=ROOT)
    try:
        code = process.wait(options.get("timeout"))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    if code:
        raise SystemExit(f"training of {name} failed with exit code {code}")


def images_a_second(name: str, data: pathlib.Path, model_dir: pathlib.Path, seed: int) -> float:
    """Training speed after the first steps, measured for a minute and a half, or longer if need be."""
    for _ in range(5):
        train(name, data, model_dir, "trainer: {train_steps: 100000, steps_per_loop: 5}", seed, timeout=90)
        lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
        rates = [line["images_per_second"] for line in lines if line["phase"] == "train"][2:]
        if rates:
            return statistics.median(rates)
    raise SystemExit(f"{name} makes fewer than 15 steps in 7 minutes on this machine")


def measure(files: dict[str, pathlib.Path], data: pathlib.Path) -> dict[str, object]:
    """Figures of each model and baseline on the fixed pairs."""
    from signver import Cleaner
    from training.cleaner import metrics
    from training.cleaner.baselines import BASELINES
    from training.cleaner.input import UNTOUCHED_EVERY, evaluation_pairs, load_bank
    from training.cleaner.noise import NoiseLevels

    pairs = list(evaluation_pairs(load_bank(f"{data}/eval*"), NoiseLevels()))
    methods = dict(BASELINES)
    for name, file in files.items():
        cleaner = Cleaner().load(file)
        methods[name] = lambda noisy, cleaner=cleaner: cleaner.clean(Image.fromarray(noisy))
    rows = {}
    for name, method in methods.items():
        answers, seconds = [], []
        for number, noisy, clean in pairs:
            begun = time.perf_counter()
            answers.append((method(noisy), clean, number % UNTOUCHED_EVERY == 0))
            seconds.append(time.perf_counter() - begun)
        rows[name] = metrics.measure(answers) | {"ms": 1e3 * statistics.median(seconds)}
    return {"pairs": len(pairs), "rows": rows, "cores": len(os.sched_getaffinity(0))}


def print_table(figures) -> None:
    """The figures as text."""
    print(f"{figures['pairs']} pairs of held-out writers, {figures['minutes']:g} minutes of training each")
    print(f"{'':22}" + "".join(f"{name.replace('_', ' '):>18}" for name in (*COLUMNS, "ms")))
    for name, row in figures["rows"].items():
        print(f"{name:22}" + "".join(f"{row[key]:18.3f}" for key in (*COLUMNS, "ms")))


def contact_sheet(
    onnx: pathlib.Path, folder: pathlib.Path, output: pathlib.Path, seed: int, count: int = 40
) -> None:
    """Real crops before and after, evenly drawn from the pages' boxes."""
    from signver import Cleaner
    from training.data.formats import read_yolo

    files, _ = read_yolo(folder, ["signature"])
    boxes = [(file, box) for file in files for box in file.boxes]
    chosen = np.random.default_rng(seed).permutation(len(boxes))[:count]
    cleaner = Cleaner().load(onnx)
    columns, side = 5, 224
    rows = -(-len(chosen) // columns)
    sheet = Image.new("L", (columns * (2 * side + 12), rows * (side // 2 + 30)), 200)
    for place, number in enumerate(chosen):
        file, box = boxes[number]
        page = Image.open(file.path).convert("RGB")
        left, right = sorted((box.xmin * page.width, box.xmax * page.width))
        top, bottom = sorted((box.ymin * page.height, box.ymax * page.height))
        crop = page.crop((int(left), int(top), int(right) + 1, int(bottom) + 1))
        after = Image.fromarray(cleaner.clean(crop))
        before = crop.convert("L").resize(after.size)
        x, y = place % columns * (2 * side + 12), place // columns * (side // 2 + 30)
        for number_of, image in enumerate((before, after)):
            image.thumbnail((side, side // 2 + 24))
            sheet.paste(image, (x + number_of * (side + 2), y))
    sheet.save(output)
    print(f"{output}: {len(chosen)} real crops, before and after")


if __name__ == "__main__":
    main()
