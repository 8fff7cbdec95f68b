"""Pairs a second of the cleaner's generator, on 1 and 2 processes, against a py_function plus PIL peer.

    python benchmarks/pair_generator.py [--data data/signatures/train*] [--seconds 20] [--minutes 0]

The peer does what SignVer's training script does to a picture (a full line and half a line, one to three
words, white salt over the lines, Otsu's threshold), with PIL and numpy inside tf.py_function, and runs
here, beside ours. Our pairs hold more (see training/cleaner/noise.py), cross the ink and keep grey levels.
Prints what eight Gaudi cards would eat, and what 96 vCPUs would give if each does what a core does here.
With --minutes the memory of the training process and its workers is watched over that time.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.commands import processor

# 16 GFLOP forward and 49 GFLOP a training image for SignVer's autoencoder; a card that sustains 50 TFLOP/s
# takes about 1,000 of them a second.
CARD_FLOPS = 50e12
SEED_FLOPS = 49e9
DL1_VCPUS = 96
BATCH = 32


def main() -> None:
    """Measures both generators and prints the ratio."""
    arguments = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    bank = load(arguments.data)
    ours = {workers: measure(bank, workers, arguments.seconds) for workers in (1, 2)}
    peer = measure_peer(bank, arguments.seconds)
    needed = 8 * CARD_FLOPS / SEED_FLOPS
    print(f"{processor()}, {time.strftime('%Y-%m-%d')}")
    print(f"{'py_function + PIL':34} {peer:8.0f} pairs/s")
    for workers, rate in ours.items():
        print(f"{f'ours, {workers} process(es)':34} {rate:8.0f} pairs/s, {rate / peer:.1f} times the peer")
    print(f"{'eight cards on the seed model eat':34} {needed:8.0f} pairs/s")
    # A vCPU is a thread of a core: two of them are counted as one core's worth, the cautious way.
    print(f"{'96 vCPUs at this rate give':34} {ours[1] * DL1_VCPUS / 2:8.0f} pairs/s")
    if arguments.minutes:
        watch_memory(bank, arguments.minutes)


def parse_arguments() -> argparse.Namespace:
    """The command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="TFRecord pattern of signatures; default: 64 synthetic ones")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default 20)")
    parser.add_argument("--minutes", type=float, default=0.0, help="watch memory that long")
    return parser.parse_args()


def load(pattern: str | None):
    """The signatures, from a data set or made here."""
    import tempfile

    from training.cleaner import input as pairs
    from training.data import signatures, tfrecord

    if pattern:
        return pairs.load_bank(pattern)
    with tempfile.TemporaryDirectory() as folder:
        made = [signatures.synthesize(0, number, 0, signatures.GENUINE) for number in range(64)]
        output = pathlib.Path(folder) / "signatures"
        tfrecord.write_dataset(output, {"train": made}, signatures.CLASSES, shards=1, source="benchmark")
        return pairs.load_bank(f"{output}/train*")


def batches(bank, workers: int):
    """Our generator, as the task uses it."""
    from training.cleaner import input as pairs
    from training.cleaner.noise import NoiseLevels

    order = pairs.Order(seed=0, count=len(bank), global_batch=BATCH)
    return pairs.training_batches(bank, NoiseLevels(), order, workers)


def measure(bank, workers: int, seconds: float) -> float:
    """Pairs a second, after the workers have started."""
    made = batches(bank, workers)
    for _ in range(2 * workers + 2):
        next(made)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        next(made)
        count += BATCH
    rate = count / (time.perf_counter() - begun)
    made.close()
    return rate


def measure_peer(bank, seconds: float) -> float:
    """Pairs a second of the py_function generator with tf.data's automatic parallelism."""
    import numpy as np
    import tensorflow as tf

    images = [bank[number] for number in range(len(bank))]

    def pair(number):
        return peer_pair(images[int(number) % len(images)], np.random.default_rng(int(number)))

    data = tf.data.Dataset.counter().map(
        lambda number: tf.py_function(pair, [number], (tf.float32, tf.float32)), tf.data.AUTOTUNE
    )
    iterator = iter(data.batch(BATCH).prefetch(2))
    next(iterator)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        next(iterator)
        count += BATCH
    return count / (time.perf_counter() - begun)


def peer_pair(signature, rng):
    """One pair in the manner of SignVer's script: float32 [224, 224, 3] twice, thresholded by Otsu."""
    import cv2
    import numpy as np
    from PIL import Image, ImageDraw

    from training.data.synthetic import text

    clean = Image.fromarray(signature).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    lines = Image.new("RGB", clean.size, "white")
    draw = ImageDraw.Draw(lines)
    y = int(224 * rng.choice([0.2, 0.5, 0.8]))
    draw.line([(0, y), (224, y)], "black", int(rng.integers(1, 10)))
    draw.line([(0, y + 20), (112, y + 20)], "black", int(rng.integers(1, 10)))
    for _ in range(int(rng.integers(1, 4))):
        font = text.font(str(rng.choice(text.SERIF)), int(rng.integers(25, 56)))
        place = tuple(rng.integers(0, 150, 2).tolist())
        draw.text(place, str(rng.choice(text.WORDS)), "black", font=font)
    layer = np.asarray(lines).copy()
    layer[rng.random(layer.shape[:2]) < rng.uniform(0, 0.25)] = 255
    noisy = np.minimum(np.asarray(clean), layer)
    images = []
    for image in (noisy, np.asarray(clean)):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        _, black = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        images.append(np.repeat(black[..., None], 3, axis=2).astype(np.float32) / 255)
    return images


def watch_memory(bank, minutes: float) -> None:
    """Prints resident memory of this process and its workers at the start, the middle and the end."""
    made = batches(bank, 2)
    for _ in range(100):
        next(made)
    samples, begun = [resident()], time.monotonic()
    for share in (0.25, 0.5, 0.75, 1.0):
        while time.monotonic() - begun < 60 * minutes * share:
            next(made)
        samples.append(resident())
    made.close()
    readings = ", ".join(f"{sample / 2**20:.0f}" for sample in samples)
    print(f"{f'memory over {minutes:g} minutes':34} {readings} MiB")


def resident() -> int:
    """Bytes of resident memory, this process and its children."""
    total, me = 0, os.getpid()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(entry.name) == me or int(fields[1]) == me:
                    total += int(fields[21]) * resource.getpagesize()
            except OSError:
                continue
    return total


if __name__ == "__main__":
    main()
