"""The whole page through the SDK and through TensorFlow, side by side: time, memory, cold start.

    python benchmarks/sdk.py                                    # trains three models for minutes first
    python benchmarks/sdk.py --runs runs/detector runs/cleaner runs/extractor

Detect, crop, clean, embed and match, on the same PNG pages with the same weights: ONNX files through
`signver.Pipeline`, and SavedModels called as SignVer calls its own: the page as it is, Keras `predict`,
SciPy's cosine. (SignVer stretches crops to 224 x 224; here both sides pad, so that both compare the same
ink.) Each side runs in processes of its own, held to --cores cores; rounds alternate, so that what else the
machine does meets both. The SDK's pages/s are of as many pages at a time as there are cores, each on a core
of its own, as `signver` treats many files; SignVer's classes know one at a time. Prints medians, peak memory
of the process, seconds from the start of the process to the first page's answer, and ratios;
OUTPUT/figures.json has all of it. Steps that are there are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.commands import ROOT, call, processor

EXPERIMENTS = {
    "detector": ("retinanet_signverod", "pages", 600),
    "cleaner": ("cleaner_unet", "signatures", 100),
    "extractor": ("extractor_metric", "signatures", 200),
}
SIDES = ("sdk", "tensorflow")


def main() -> None:
    """Makes what is not there yet, then measures; a child measures one side."""
    arguments = parse_arguments()
    if arguments.side:
        print(json.dumps(SIDE_WORK[arguments.side](arguments)))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    export_all(arguments)
    make_pages(arguments)
    figures = {side: [] for side in SIDES}  # type: dict[str, list[dict]]
    for _ in range(arguments.rounds):
        for side in SIDES:
            figures[side].append(measure(side, arguments))
    summary = {side: summarise(rounds) for side, rounds in figures.items()}
    summary["machine"] = {"cores": arguments.cores, "cpu": processor(), "date": time.strftime("%Y-%m-%d")}
    (arguments.output / "figures.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_table(summary)


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs=3, metavar=tuple(EXPERIMENTS), help="model_dirs; made by default")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/sdk"))
    parser.add_argument("--checkpoint", default="best", help="of the runs: best or last (default best)")
    parser.add_argument("--pages", type=int, default=20, help="of 1700 x 2200 pixels (default 20)")
    parser.add_argument(
        "--marks", type=int, default=2, help="best signatures to follow on a page (default 2)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes a side (default 3)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def export_all(arguments: argparse.Namespace) -> None:
    """An ONNX file and a SavedModel of each model."""
    for number, name in enumerate(EXPERIMENTS):
        run = arguments.runs[number] if arguments.runs else train(name, arguments.output)
        source = (f"--model_dir={run}", f"--checkpoint={arguments.checkpoint}")
        onnx, saved = arguments.output / f"{name}.onnx", arguments.output / f"{name}_saved"
        if not onnx.exists():
            call("export", "onnx", *source, f"--output={onnx.resolve()}")
        if not saved.exists():
            call("export", "saved_model", *source, f"--output={saved.resolve()}")


def train(name: str, output: pathlib.Path) -> str:
    """A short training on synthetic data; what it costs to run a model depends little on its weights."""
    experiment, data, steps = EXPERIMENTS[name]
    folder, run = output.resolve() / data, output.resolve() / name
    counts = {"pages": ("--count=300", "--eval_count=20"), "signatures": ("--writers=40", "--eval_writers=6")}
    if not folder.exists():
        call("training.data", "synthesize", data, f"--output={folder}", *counts[data])
    if not (run / "trained").exists():
        inputs = f"train_data: {{input_path: '{folder}/train*'}}, "
        inputs += f"validation_data: {{input_path: '{folder}/eval*'}}"
        settings = f"schedule: {{evaluations: 1}}, trainer: {{train_steps: {steps}}}"
        options = [f"--experiment={experiment}", f"--model_dir={run}", "--mode=train_and_eval"]
        options += [f"--config_file=configs/{name}/cpu.yaml"]
        call("training.train", *options, f"--params_override={{task: {{{inputs}}}, {settings}}}")
        (run / "trained").touch()
    return str(run)


def make_pages(arguments: argparse.Namespace) -> None:
    """Letters of 200 dpi as PNG, and the signature that each is matched with."""
    folder = arguments.output / "pages_png"
    if folder.exists() and len(list(folder.glob("page*.png"))) == arguments.pages:
        return
    from export.validate import synthetic_pages
    from export.validate_extractor import synthetic_signatures

    folder.mkdir(exist_ok=True)
    for number, page in enumerate(synthetic_pages(arguments.pages, arguments.seed)):
        page.convert("RGB").resize((1700, 2200)).save(folder / f"page{number:03d}.png")
    Image.fromarray(np.asarray(synthetic_signatures(1, arguments.seed)[0])).save(folder / "reference.png")


def measure(side: str, arguments: argparse.Namespace) -> dict:
    """One process of one side."""
    command = [sys.executable, "-W", "ignore", str(pathlib.Path(__file__).resolve()), f"--side={side}"]
    command += [f"--output={arguments.output.resolve()}", f"--marks={arguments.marks}"]
    command += [f"--cores={arguments.cores}"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "SIGNVER_STARTED": repr(time.time())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def prepared(arguments: argparse.Namespace) -> tuple[list[str], str, float]:
    """The pages, the reference, and when this process was started."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    folder = arguments.output / "pages_png"
    pages = [str(page) for page in sorted(folder.glob("page*.png"))]
    return pages, str(folder / "reference.png"), float(os.environ["SIGNVER_STARTED"])


def timed(whole_page, pages: list[str], started: float, imported: float) -> dict:
    """Cold start, then every page twice; the second time counts."""
    whole_page(pages[0])
    cold, cold_cpu = time.time() - started, time.process_time()
    for page in pages[1:]:
        whole_page(page)
    seconds, marks, spent = [], 0, time.process_time()
    for page in pages:
        begun = time.perf_counter()
        marks += whole_page(page)
        seconds.append(time.perf_counter() - begun)
    return {
        "import_s": imported,
        "cold_start_s": cold,
        "cold_start_cpu_s": cold_cpu,
        "ms_a_page": 1000 * statistics.median(seconds),
        "cpu_ms_a_page": 1000 * (time.process_time() - spent) / len(pages),
        "pages_a_second": len(pages) / sum(seconds),
        "signatures": marks,
        "peak_mb": peak_memory(),
    }


def peak_memory() -> float:
    """MB; of this program alone, where `getrusage` also knows what the parent held when it made the child."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_sdk(arguments: argparse.Namespace) -> dict:
    """The pipeline on ONNX files."""
    pages, reference, started = prepared(arguments)
    begun = time.perf_counter()
    import signver
    from signver import Cleaner, Detector, MetricExtractor, Pipeline

    imported = time.perf_counter() - begun
    threads, output, best = arguments.cores, arguments.output, arguments.marks

    def make(cores: int) -> Pipeline:
        return limited(best)(
            detector=lambda: Detector(cores).load(output / "detector.onnx"),
            cleaner=lambda: Cleaner(cores).load(output / "cleaner.onnx"),
            extractor=lambda: MetricExtractor(cores).load(output / "extractor.onnx"),
            score_threshold=0.0,
        )

    pipeline = make(threads)
    query = pipeline.embed([reference])[0]
    assert "tensorflow" not in sys.modules, signver.__file__
    found = timed(lambda page: len(pipeline.compare(query, page)), pages, started, imported)
    return found | {
        "pages_a_second": many_at_a_time(make(1), query, pages, threads),
        "peak_mb": peak_memory(),
    }


def many_at_a_time(pipeline, query: np.ndarray, pages: list[str], jobs: int) -> float:
    """Pages a second, `jobs` at a time."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for _ in range(2):  # the second time counts
            begun = time.perf_counter()
            list(pool.map(lambda page: pipeline.compare(query, page), pages))
    return len(pages) / (time.perf_counter() - begun)


def limited(count: int):
    """A pipeline that follows the best signatures alone: how many a page has must not depend on training."""
    from signver import Pipeline

    class Limited(Pipeline):
        def _marks(self, page):
            return [mark for mark in super()._marks(page) if mark.kind == "signature"][:count]

    return Limited


def run_tensorflow(arguments: argparse.Namespace) -> dict:
    """SavedModels, called as SignVer's classes and notebooks call theirs."""
    pages, reference, started = prepared(arguments)
    begun = time.perf_counter()
    import tensorflow as tf
    from scipy.spatial.distance import cosine

    imported = time.perf_counter() - begun
    tf.config.threading.set_intra_op_parallelism_threads(arguments.cores)
    detect = tf.saved_model.load(str(arguments.output / "detector_saved"))
    cleaner = tf.keras.models.load_model(str(arguments.output / "cleaner_saved"), compile=False)
    extractor = tf.keras.models.load_model(str(arguments.output / "extractor_saved"), compile=False)

    def embedded(crops: list[np.ndarray]) -> np.ndarray:
        squares, places = zip(*[fitted(crop) for crop in crops], strict=True)
        cleaned = cleaner.predict(np.stack(squares), verbose=0)
        inks = [
            image[top:bottom, left:right, 0]
            for image, (top, left, bottom, right) in zip(cleaned, places, strict=True)
        ]
        usable = [found for found in map(normalised, inks) if found is not None]
        return extractor.predict(np.stack(usable)[..., None], verbose=0) if usable else np.empty((0, 1))

    query = embedded([np.asarray(Image.open(reference).convert("RGB"))])[0]

    def whole_page(file: str) -> int:
        page = np.asarray(Image.open(file).convert("RGB"))
        found = detect(tf.convert_to_tensor(page)[tf.newaxis, ...])
        boxes, labels = found["detection_boxes"][0].numpy(), found["detection_classes"][0].numpy()
        marks = boxes[: int(found["num_detections"][0])][labels[: int(found["num_detections"][0])] == 1]
        crops = [cut(page, box) for box in marks[: arguments.marks]]
        return len([cosine(query, each) for each in embedded(crops)]) if crops else 0

    return timed(whole_page, pages, started, imported)


def cut(page: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a page that a box marks, a twentieth more on each side."""
    height, width = page.shape[:2]
    down, across = 0.05 * (box[2] - box[0]), 0.05 * (box[3] - box[1])
    top, left = max(int((box[0] - down) * height), 0), max(int((box[1] - across) * width), 0)
    bottom, right = round((box[2] + down) * height), round((box[3] + across) * width)
    return page[top : max(bottom, top + 1), left : max(right, left + 1)]


def fitted(crop: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The crop in a white square of 224, float32 0..1, and where it lies there."""
    from signver.cleaner import fit_crop

    square, place = fit_crop(Image.fromarray(crop))
    return np.asarray(square, np.float32) / 255, place


def normalised(ink: np.ndarray) -> np.ndarray | None:
    """What the extractor sees; the same code on both sides, so that the runtimes alone are compared."""
    from signver import SignVerError
    from signver.preprocessing import normalise_signature

    try:
        return normalise_signature(np.rint(ink * 255).astype(np.uint8))
    except SignVerError:
        return None


SIDE_WORK = {"sdk": run_sdk, "tensorflow": run_tensorflow}


def summarise(rounds: list[dict]) -> dict:
    """Medians over the processes of a side."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def print_table(summary: dict) -> None:
    """Both sides and how many times better the SDK is."""
    rows = [
        ("ms a page", "ms_a_page", 1),
        ("CPU ms a page", "cpu_ms_a_page", 1),
        ("pages/s", "pages_a_second", -1),
        ("peak memory, MB", "peak_mb", 1),
        ("import, s", "import_s", 1),
        ("process start to first answer, s", "cold_start_s", 1),
        ("the same, CPU s", "cold_start_cpu_s", 1),
        ("signatures followed", "signatures", 0),
    ]
    machine = summary["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; medians")
    print(f"{'':34}{'SDK':>10}{'TensorFlow':>12}{'ratio':>8}")
    for title, key, better in rows:
        ours, theirs = summary["sdk"][key], summary["tensorflow"][key]
        ratio = "" if not better else f"{(theirs / ours) ** better:.1f}x"
        print(f"{title:34}{ours:10.2f}{theirs:12.2f}{ratio:>8}")


if __name__ == "__main__":
    main()
