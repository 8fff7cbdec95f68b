"""Batches of (noisy, clean) pairs: made by worker processes into shared memory, in a fixed order.

Pair of position p: the record that `records.epoch_order` puts there, noised with the key (seed, p). So
the number of workers and of ranks changes nothing but the speed, and a resumed run goes on with the
pairs that it had not seen. Evaluation pairs have the key (a constant, record): the same on every pass.

TensorFlow's process only copies finished batches; no Python runs in it for a pair.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import cv2
import numpy as np

from training.cleaner.noise import SIDE, Draws, NoiseLevels, make_pair
from training.data import records
from training.errors import UserError

# Signatures are kept with this longer side at most: no crop shows more pixels of one.
_LONGEST = 320
_EVALUATION_KEY = 0xE7A1
# Batches that may wait, for each worker; with it a slow batch delays nobody.
_BATCHES_AHEAD = 2
# What ends a run, which answers them itself. mpirun hands SIGUSR1 to the whole process group of a rank, a
# terminal SIGINT, `timeout` SIGTERM.
_RUN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Every eighth evaluation pair is a clean crop, so that what is done to clean ink is measured.
UNTOUCHED_EVERY = 8


@dataclasses.dataclass(frozen=True)
class SignatureBank:
    """All signatures of a data set, cut to their ink.

    Attributes:
      pixels: uint8 [total], their rows one after another.
      offsets: int64 [n], first pixel of each.
      shapes: int32 [n, 2], height and width of each.
    """

    pixels: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> np.ndarray:
        """Signature `number`: uint8 [h, w], dark on 255."""
        height, width = self.shapes[number]
        start = self.offsets[number]
        return self.pixels[start : start + int(height) * int(width)].reshape(height, width)


@dataclasses.dataclass(frozen=True)
class Order:
    """Which pairs a rank reads.

    Attributes:
      seed: decides order and noise.
      count: records of the data set.
      global_batch: pairs of a step over all ranks.
      rank, size: this rank, and how many there are.
      first_step: where a run continues.
    """

    seed: int
    count: int
    global_batch: int
    rank: int = 0
    size: int = 1
    first_step: int = 0

    def batches(self, skip: int = 0, stride: int = 1) -> Iterator[list[tuple[int, int]]]:
        """(position, record) of each pair of batch skip, skip + stride, …, endlessly."""
        share = self.global_batch // self.size
        epoch, order = -1, np.empty(0, np.int64)
        for number in range(skip, 1 << 62, stride):
            start = (self.first_step + number) * self.global_batch + self.rank * share
            batch = []
            for position in range(start, start + share):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = records.epoch_order(self.count, self.seed, epoch)
                batch.append((position, int(order[position % self.count])))
            yield batch


def load_bank(input_path: str) -> SignatureBank:
    """Decodes every signature of a data set once; about 30 kB of memory each.

    Raises:
      UserError: no data, or a record without a signature.
    """
    from training.data import signatures, tfrecord

    images = []
    for page in tfrecord.read_pages(input_path):
        found = list(signatures.inked([page]))
        if not found:
            raise UserError(
                f"{input_path}: {page.name} has no signature on it.\n"
                "Make a set with `python -m training.data synthesize signatures` or `convert signatures`."
            )
        images += [shrink(image) for image in found[:1]]
    shapes = np.array([image.shape for image in images], np.int32)
    sizes = shapes.prod(axis=1, dtype=np.int64)
    return SignatureBank(
        np.concatenate([image.ravel() for image in images]), np.cumsum(sizes) - sizes, shapes
    )


def shrink(image: np.ndarray) -> np.ndarray:
    """A signature, uint8 [h, w], as large as a bank keeps it."""
    scale = _LONGEST / max(image.shape)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def evaluation_pairs(
    bank: SignatureBank, levels: NoiseLevels, rank: int = 0, size: int = 1
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(record, noisy, clean) of one rank's share, uint8 [SIDE, SIDE] each; the same on every pass."""
    for number in range(rank, len(bank), size):
        chosen = dataclasses.replace(levels, untouched=float(number % UNTOUCHED_EVERY == 0))
        noisy, clean = np.empty((2, SIDE, SIDE), np.uint8)
        make_pair(bank[number], chosen, Draws(_EVALUATION_KEY, number), noisy, clean)
        yield number, noisy, clean


def training_batches(
    bank: SignatureBank, levels: NoiseLevels, order: Order, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (noisy, clean) batches, uint8 [share, SIDE, SIDE, 1].

    Args:
      bank: the signatures.
      levels: of the noise.
      order: which pairs.
      workers: processes; 0 makes the pairs in this one.

    Raises:
      RuntimeError: a worker died.
    """
    if not workers:
        cv2.setNumThreads(1)
        for batch in order.batches():
            pair = np.empty((2, len(batch), SIDE, SIDE, 1), np.uint8)
            _fill(pair, batch, bank, levels, order.seed)
            yield pair[0], pair[1]
    with _Workers(bank, levels, order, workers) as made:
        yield from made.batches()


def _fill(
    pair: np.ndarray, batch: list[tuple[int, int]], bank: SignatureBank, levels: NoiseLevels, seed: int
) -> None:
    for place, (position, record) in enumerate(batch):
        noisy, clean = pair[0, place, ..., 0], pair[1, place, ..., 0]
        make_pair(bank[record], levels, Draws(seed, position), noisy, clean)


class _Workers(contextlib.AbstractContextManager):
    """Worker w makes batches w, w + W, …; batch k lies in slot k of a ring in shared memory."""

    def __init__(self, bank: SignatureBank, levels: NoiseLevels, order: Order, workers: int):
        share = order.global_batch // order.size
        slots = workers * _BATCHES_AHEAD
        self._shape = (slots, 2, share, SIDE, SIDE, 1)
        # Spawned: TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with _run_signals_kept_off():
            # It opens SIGINT and SIGTERM again once it has started, so it comes before the workers.
            resource_tracker.ensure_running()
        self._ring = shared_memory.SharedMemory(create=True, size=int(np.prod(self._shape)))
        self._bank = shared_memory.SharedMemory(create=True, size=max(1, bank.pixels.nbytes))
        np.ndarray(bank.pixels.shape, np.uint8, self._bank.buf)[:] = bank.pixels
        self._full = [context.Semaphore(0) for _ in range(slots)]
        self._free = [context.Semaphore(1) for _ in range(slots)]
        light = dataclasses.replace(bank, pixels=np.empty(0, np.uint8))
        names = (self._ring.name, self._bank.name)
        self._processes = [
            context.Process(
                target=_work,
                args=(
                    number,
                    workers,
                    os.getpid(),
                    names,
                    self._shape,
                    light,
                    levels,
                    order,
                    self._full,
                    self._free,
                ),
                daemon=True,
            )
            for number in range(workers)
        ]
        # Where nobody closes this, multiprocessing would send a SIGTERM that they do not get, and wait.
        atexit.register(self._kill)
        with _run_signals_kept_off(), _without_main():
            for process in self._processes:
                process.start()

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Copies each batch out of the ring, in order."""
        ring: np.ndarray = np.ndarray(self._shape, np.uint8, self._ring.buf)
        number = 0
        while True:
            slot = number % len(self._full)
            while not self._full[slot].acquire(timeout=1):
                self._check_alive()
            pair = ring[slot].copy()
            self._free[slot].release()
            yield pair[0], pair[1]
            number += 1

    def _check_alive(self) -> None:
        for number, process in enumerate(self._processes):
            if not process.is_alive():
                raise RuntimeError(
                    f"worker {number} of the pair generator died with exit code {process.exitcode}; "
                    "with exit code -9 the machine ran out of memory: set task.workers lower"
                )

    def _kill(self) -> None:
        for process in self._processes:
            if process.pid is not None:
                process.kill()
                process.join(5)

    def __exit__(self, *details: Any) -> None:
        self._kill()
        atexit.unregister(self._kill)
        for memory in (self._ring, self._bank):
            memory.close()
            with contextlib.suppress(FileNotFoundError):
                memory.unlink()


@contextlib.contextmanager
def _run_signals_kept_off() -> Iterator[None]:
    """A process that is started here never gets `_RUN_SIGNALS`; this one gets afterwards what came meanwhile.

    It inherits the mask of the thread that starts it, before it has imported anything. A handler could be set
    in the main thread alone, and tf.data starts the workers from a thread of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RUN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process would import the program's main module, and TensorFlow with it, for nothing."""
    import sys

    main = sys.modules["__main__"]
    kept = {name: getattr(main, name, None) for name in ("__file__", "__spec__")}
    try:
        main.__file__, main.__spec__ = None, None
        yield
    finally:
        main.__file__, main.__spec__ = kept["__file__"], kept["__spec__"]


def _work(
    number: int,
    workers: int,
    parent: int,
    names: tuple[str, str],
    shape: tuple[int, ...],
    bank: SignatureBank,
    levels: NoiseLevels,
    order: Order,
    full: list[Any],
    free: list[Any],
) -> None:
    """A worker's life; ends within seconds of its parent, the process `parent`."""
    cv2.setNumThreads(1)
    memory = [shared_memory.SharedMemory(name=name) for name in names]
    ring: np.ndarray = np.ndarray(shape, np.uint8, memory[0].buf)
    pixels = int(bank.shapes.prod(axis=1, dtype=np.int64).sum())
    bank = dataclasses.replace(bank, pixels=np.ndarray((pixels,), np.uint8, memory[1].buf))
    place = number
    for batch in order.batches(number, workers):
        slot = place % len(full)
        while not free[slot].acquire(timeout=5):
            if os.getppid() != parent:
                return
        _fill(ring[slot], batch, bank, levels, order.seed)
        full[slot].release()
        place += workers
