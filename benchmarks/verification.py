"""Verification of strangers: within a set, across sets, and from synthetic writers alone.

    python benchmarks/verification.py --cedar ../shared/data/cedar \\
        --dutch ../shared/data/sigcomp2011-dutch --output runs/verification

First an extractor learns from synthetic writers alone (`configs/extractor/default.yaml`; --pretrained names
a run that did). For each seed both real sets are split by writer (12 test, 6 validation, the others train),
the extractor is fine-tuned on each (`configs/extractor/finetune.yaml`), exported to ONNX, and measured
through the SDK on the test writers of every set. Thresholds come from the validation writers of the set that
the model was trained on last and are carried over. All images are normalised to their ink; the shortcut
column is the best that a trivial cue (share of ink, stroke width, aspect) reaches on the same pairs, and the
rows trained on nothing are histograms of stroke directions. Steps that are there are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.commands import call

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TEST, VALIDATION = 12, 6
# Synthetic writers of whom no run was trained, for the rows on synthetic signatures.
FIRST_TEST_WRITER, SYNTHETIC_TEST = 300_000, 20
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
    parser.add_argument("--pretrained", type=pathlib.Path, help="run trained on synthetic writers alone")
    parser.add_argument(
        "--untuned", action="store_true", help="no fine-tuning, which takes nearly all of the time"
    )
    parser.add_argument("--override", default="{}", help="settings for every fine-tuning, as YAML")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    folders = {"cedar": arguments.cedar, "dutch": arguments.dutch}
    synthetic = synthesize(output / "synthetic")
    pretrained = pretrain(arguments.pretrained or output / "run_synthetic", synthetic)
    rows = []
    for seed in range(arguments.seeds):
        sets = {name: split(folder, output / f"{name}_{seed}", seed) for name, folder in folders.items()}
        sets["synthetic"] = synthetic
        for name, data in sets.items():
            if arguments.untuned and name != "synthetic":
                continue
            onnx = (
                export(pretrained, data)
                if name == "synthetic"
                else tune(data, output / f"run_{name}_{seed}", seed, pretrained, arguments.override)
            )
            rows += [measure(onnx, name, data, other, sets[other], seed) for other in sets]
            print_table(rows)
        rows += [measure(None, "nothing", data, name, data, seed) for name, data in sets.items()]
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


def synthesize(output: pathlib.Path) -> pathlib.Path:
    """The synthetic set of `scripts/train_defaults.sh`, and some test writers beside it."""
    from training.data import signatures, tfrecord

    if not output.exists():
        call(
            *("training.data", "synthesize", "signatures", f"--output={output}", "--seed=8"),
            *("--writers=1200", "--eval_writers=50", "--genuine=8", "--forged=6"),
        )
    test = output.with_name("synthetic_test")
    if not test.exists():
        writers = range(FIRST_TEST_WRITER, FIRST_TEST_WRITER + SYNTHETIC_TEST)
        pages = (
            signatures.synthesize(8, writer, number, label)
            for writer in writers
            for label, count in ((signatures.GENUINE, 12), (signatures.FORGED, 6))
            for number in range(count)
        )
        tfrecord.write_dataset(
            test, {"test": pages}, signatures.CLASSES, shards=1, source="synthetic", seed=8
        )
        for file in test.glob("test*"):
            file.replace(output / file.name)
    return output


def pretrain(model_dir: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
    """Trains on synthetic writers alone; a run that is complete stays as it is."""
    settings = {
        "train_data": {"input_path": f"{data}/train*"},
        "validation_data": {"input_path": f"{data}/eval*"},
    }
    if not (model_dir / "best_ckpt").exists():
        call(
            *("training.train", "--experiment=extractor_metric", f"--model_dir={model_dir}"),
            *(
                "--config_file=configs/extractor/default.yaml",
                f"--params_override={json.dumps({'task': settings})}",
            ),
        )
    return model_dir


def tune(
    data: pathlib.Path, model_dir: pathlib.Path, seed: int, pretrained: pathlib.Path, override: str
) -> pathlib.Path:
    """Fine-tunes on the training writers of a real set, exports and validates; returns the ONNX file."""
    settings = {
        "task": {
            "init_checkpoint": str(best_checkpoint(pretrained)),
            "train_data": {"input_path": f"{data}/train*"},
            "validation_data": {"input_path": f"{data}/eval*"},
        },
        "seed": seed,
    }
    if not (model_dir / "extractor.onnx").exists():
        model_dir.parent.mkdir(parents=True, exist_ok=True)
        extra = model_dir.with_suffix(".yaml")
        extra.write_text(override + "\n")
        call(
            *("training.train", "--experiment=extractor_metric", f"--model_dir={model_dir}"),
            *("--config_file=configs/extractor/finetune.yaml", f"--config_file={extra}"),
            f"--params_override={json.dumps(settings)}",
        )
    return export(model_dir, data)


def best_checkpoint(model_dir: pathlib.Path) -> pathlib.Path:
    """The best checkpoint of a run, as `task.init_checkpoint` takes it."""
    (index,) = (model_dir.resolve() / "best_ckpt").glob("*.index")
    return index.with_suffix("")


def export(model_dir: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
    """Writes the ONNX file of a run and proves it on the test writers of a set."""
    onnx = model_dir / "extractor.onnx"
    if not onnx.exists():
        call("export", "onnx", f"--model_dir={model_dir}", f"--output={onnx}")
        proof = ("export", "validate", f"--model_dir={model_dir}", f"--onnx={onnx}")
        call(*proof, f"--pages={data}/test*", "--limit=60")
    return onnx


def measure(
    onnx: pathlib.Path | None,
    trained: str,
    trained_data: pathlib.Path,
    tested: str,
    data: pathlib.Path,
    seed: int,
) -> dict[str, Any]:
    """Figures of one model, or without one of direction histograms, on the test writers of one set."""
    from training.extractor.evaluate import shortcut_figures, verify
    from training.extractor.input import load_set

    signatures, held = load_set(f"{data}/test*"), load_set(f"{trained_data}/eval*")
    shortcuts = shortcut_figures(signatures, f"{data}/test*")
    if onnx is None:
        from training.extractor.baselines import direction_histograms

        held_embeddings = direction_histograms(held.images)
        middle = held_embeddings.mean(axis=0)
        embeddings, held_embeddings = (
            direction_histograms(signatures.images) - middle,
            held_embeddings - middle,
        )
    else:
        embeddings, held_embeddings = embed(onnx, f"{data}/test*"), embed(onnx, f"{trained_data}/eval*")
    found = verify(embeddings, signatures, held_embeddings, held, shortcuts)
    row: dict[str, Any] = {"trained": trained, "tested": tested, "seed": seed}
    for figures in found.rows:
        k = figures["references"]
        row |= {
            f"{name}@{k}": figures[name] for name in ("eer_skilled", "eer_random", "accuracy", "auc_skilled")
        }
        row[f"interval@{k}"] = figures["eer_skilled_interval"]
    row["calibration_error"] = found.calibration_error
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
    image = np.random.default_rng(0).random((1, 192, 384, 1), np.float32)
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
