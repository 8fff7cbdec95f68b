"""Verification of strangers: within a set, across sets, and from synthetic writers alone.

    python benchmarks/verification.py --cedar ../shared/data/cedar \\
        --dutch ../shared/data/sigcomp2011-dutch --output runs/verification

For each seed both sets are split by writer (12 test, 6 validation, the others train), an extractor is trained
on each and one on synthetic writers, exported to ONNX, and measured through the SDK on the test writers of
every set. Thresholds come from the validation writers of the set that the model was trained on and are
carried over. All images are normalised to their ink; the shortcut column is the best that a trivial cue
(share of ink, stroke width, aspect) reaches on the same pairs. Steps that are there are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TEST, VALIDATION = 12, 6
SYNTHETIC = {"train": 300, "eval": 20, "test": 20}
NORMALISED = ("ink share", "stroke width", "aspect (raw)")


def main() -> None:
    """Trains what is not there yet, then measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cedar", type=pathlib.Path, required=True, help="folder of the CEDAR signatures")
    parser.add_argument(
        "--dutch", type=pathlib.Path, required=True, help="folder WRITER/genuine, WRITER/forged"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/verification"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--override", default="{}", help="settings for every training, as YAML")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    folders = {"cedar": arguments.cedar, "dutch": arguments.dutch}
    rows = []
    for seed in range(arguments.seeds):
        sets = {name: split(folder, output / f"{name}_{seed}", seed) for name, folder in folders.items()}
        sets["synthetic"] = synthesize(output / f"synthetic_{seed}", seed)
        for name, data in sets.items():
            onnx = train(data, output / f"run_{name}_{seed}", seed, arguments.override)
            rows += [measure(onnx, name, data, other, sets[other], seed) for other in sets]
            print_table(rows)
    figures = {
        "date": time.strftime("%Y-%m-%d"),
        "seeds": arguments.seeds,
        "rows": rows,
        "speed": speed(onnx),
    }
    (output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nONNX Runtime, {os.cpu_count()} cores: {figures['speed']:.2f} ms an embedding (median of 200)")


def split(folder: pathlib.Path, output: pathlib.Path, seed: int) -> pathlib.Path:
    """The data set of a folder of signatures, its writers dealt by the seed."""
    from training.data import signatures, tfrecord

    if not output.exists():
        files = signatures.read_signatures(folder)
        writers = sorted({file.document for file in files})
        mixed = [writers[n] for n in np.random.default_rng(seed).permutation(len(writers))]
        parts = {
            "test": mixed[:TEST],
            "eval": mixed[TEST : TEST + VALIDATION],
            "train": mixed[TEST + VALIDATION :],
        }
        pages = {
            part: [file.load() for file in files if file.document in set(names)]
            for part, names in parts.items()
        }
        tfrecord.write_dataset(output, pages, signatures.CLASSES, shards=1, source=folder.name, seed=seed)
    return output


def synthesize(output: pathlib.Path, seed: int) -> pathlib.Path:
    """A data set of synthetic writers, as large as two cores make in a few minutes."""
    from training.data import signatures, tfrecord

    def pages(first: int, writers: int) -> Iterator[Any]:
        for writer in range(first, first + writers):
            for label, count in ((signatures.GENUINE, 8), (signatures.FORGED, 4)):
                for number in range(count):
                    yield signatures.synthesize(seed, writer, number, label)

    if not output.exists():
        first, parts = 0, {}
        for part, writers in SYNTHETIC.items():
            parts[part] = pages(first, writers)
            first += writers
        tfrecord.write_dataset(output, parts, signatures.CLASSES, shards=1, source="synthetic", seed=seed)
    return output


def train(data: pathlib.Path, model_dir: pathlib.Path, seed: int, override: str) -> pathlib.Path:
    """Trains, exports and validates with the project's commands; returns the ONNX file."""
    onnx = model_dir / "extractor.onnx"
    if onnx.exists():
        return onnx
    settings = {
        "task": {
            "train_data": {"input_path": f"{data}/train*"},
            "validation_data": {"input_path": f"{data}/eval*"},
        },
        "seed": seed,
    }
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    extra = model_dir.with_suffix(".yaml")
    extra.write_text(override + "\n")
    call(
        "training.train",
        "--experiment=extractor_metric",
        "--config_file=configs/extractor/cpu.yaml",
        f"--config_file={extra}",
        f"--model_dir={model_dir}",
        f"--params_override={json.dumps(settings)}",
    )
    call("export", "onnx", f"--model_dir={model_dir}", f"--output={onnx}")
    call(
        "export",
        "validate",
        f"--model_dir={model_dir}",
        f"--onnx={onnx}",
        f"--pages={data}/test*",
        "--limit=60",
    )
    return onnx


def call(module: str, *arguments: str) -> None:
    """Runs one of the project's commands; its failure ends the benchmark."""
    subprocess.run([sys.executable, "-W", "ignore", "-m", module, *arguments], cwd=ROOT, check=True)


def measure(
    onnx: pathlib.Path, trained: str, trained_data: pathlib.Path, tested: str, data: pathlib.Path, seed: int
) -> dict[str, Any]:
    """Figures of one model on the test writers of one set."""
    from training.extractor.evaluate import shortcut_figures, verify
    from training.extractor.input import load_set

    signatures, held = load_set(f"{data}/test*"), load_set(f"{trained_data}/eval*")
    shortcuts = shortcut_figures(signatures, f"{data}/test*")
    found = verify(
        embed(onnx, f"{data}/test*"), signatures, embed(onnx, f"{trained_data}/eval*"), held, shortcuts
    )
    row: dict[str, Any] = {"trained": trained, "tested": tested, "seed": seed}
    for figures in found.rows:
        k = figures["references"]
        row |= {
            f"{name}@{k}": figures[name] for name in ("eer_skilled", "eer_random", "accuracy", "auc_skilled")
        }
    row["shortcut"] = min(shortcuts[name]["eer_skilled"] for name in NORMALISED)
    return row


_EMBEDDED: dict[tuple[str, str], np.ndarray] = {}


def embed(onnx: pathlib.Path, input_path: str) -> np.ndarray:
    """Embeddings through the SDK, from the image files, float32 [n, d]."""
    import io

    from PIL import Image

    from signver import MetricExtractor
    from training.data import tfrecord

    key = (str(onnx), input_path)
    if key not in _EMBEDDED:
        extractor = MetricExtractor().load(onnx)
        pages = tfrecord.read_pages(input_path)
        _EMBEDDED[key] = np.stack([extractor.extract(Image.open(io.BytesIO(page.image))) for page in pages])
    return _EMBEDDED[key]


def speed(onnx: pathlib.Path) -> float:
    """Median milliseconds of one embedding, all cores, pixels already normalised."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 96, 256, 1), np.float32)
    seconds = []
    for _ in range(220):
        begun = time.perf_counter()
        session.run(None, {"image": image})
        seconds.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(seconds[20:]))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean over the seeds, and the smallest and largest."""
    columns = ("eer_skilled@1", "eer_skilled@5", "eer_skilled@10", "eer_random@1", "accuracy@1", "shortcut")
    print(f"\n| trained on | tested on | {' | '.join(columns)} |")
    print("|" + "---|" * (2 + len(columns)))
    for pair in sorted({(row["trained"], row["tested"]) for row in rows}):
        same = [row for row in rows if (row["trained"], row["tested"]) == pair]
        cells = []
        for column in columns:
            values = [row[column] for row in same if column in row]
            if not values:
                cells.append("")
                continue
            cells.append(f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})")
        print(f"| {pair[0]} | {pair[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
