"""Pairs reach the training in the same order on any number of workers and ranks, and after a resume."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from training.cleaner import input as pairs
from training.cleaner.noise import NoiseLevels
from training.data import signatures, tfrecord

ROOT = pathlib.Path(__file__).parents[3]
# A parent of two workers that says who they are and is killed, or ends without closing them.
PARENT = """
import os, signal, sys
from training.cleaner import input as pairs
from training.cleaner.noise import NoiseLevels
bank = pairs.load_bank(sys.argv[1])
made = pairs._Workers(bank, NoiseLevels(), pairs.Order(seed=0, count=len(bank), global_batch=2), 2)
if sys.argv[2] != "starting":
    batches = made.batches()
    next(batches)
print(*(process.pid for process in made._processes), made._ring.name, made._bank.name, flush=True)
if sys.argv[2] != "ending":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signatures") / "set"
    pages = [signatures.synthesize(0, number, 0, signatures.GENUINE) for number in range(7)]
    splits = {"train": pages, "eval": pages[:3]}
    tfrecord.write_dataset(folder, splits, signatures.CLASSES, shards={"train": 2, "eval": 1}, source="test")
    return folder


@pytest.fixture(scope="module")
def bank(data):
    return pairs.load_bank(f"{data}/train*")


def take(bank, count, workers=0, **order):
    settings = {"seed": 4, "count": len(bank), "global_batch": 6} | order
    batches = pairs.training_batches(bank, NoiseLevels(), pairs.Order(**settings), workers)
    taken = [np.stack(batch) for batch in itertools.islice(batches, count)]
    batches.close()
    return np.stack(taken, axis=1)


def test_workers_change_nothing_but_the_speed(bank):
    alone = take(bank, 5)
    for workers in (1, 3):
        assert np.array_equal(take(bank, 5, workers), alone)


def test_ranks_together_read_what_one_process_reads(bank):
    alone = take(bank, 4)
    ranks = [take(bank, 4, rank=rank, size=3) for rank in range(3)]
    assert np.array_equal(np.concatenate(ranks, axis=2), alone)


def test_a_resumed_run_goes_on_where_it_stopped(bank):
    assert np.array_equal(take(bank, 2, workers=2, first_step=3), take(bank, 5)[:, 3:])


def test_an_epoch_reads_every_signature_once_and_noises_the_next_one_anew(bank):
    order = pairs.Order(seed=4, count=len(bank), global_batch=7)
    first, second = itertools.islice(order.batches(), 2)
    assert sorted(record for _, record in first) == sorted(record for _, record in second) == list(range(7))
    epochs = take(bank, 2, global_batch=7)
    images = {image.tobytes() for image in epochs[0].reshape(14, -1)}
    assert len(images) == 14


def test_evaluation_pairs_are_the_same_on_every_pass_and_rank(bank):
    once = {number: (noisy, clean) for number, noisy, clean in pairs.evaluation_pairs(bank, NoiseLevels())}
    shared = [pairs.evaluation_pairs(bank, NoiseLevels(), rank, 2) for rank in range(2)]
    again = {number: (noisy, clean) for number, noisy, clean in itertools.chain(*shared)}
    assert once.keys() == again.keys() == set(range(7))
    for number, pair in once.items():
        assert np.array_equal(pair, again[number])
    assert np.array_equal(*once[0])  # the first of every eight is untouched
    assert not np.array_equal(*once[1])


def test_a_dead_worker_is_said_and_no_process_or_memory_stays(bank):
    order = pairs.Order(seed=0, count=len(bank), global_batch=2)
    before = set(os.listdir("/dev/shm"))
    with pairs._Workers(bank, NoiseLevels(), order, 2) as made:
        batches = made.batches()
        next(batches)
        assert set(os.listdir("/dev/shm")) - before
        os.kill(made._processes[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"worker 0 .* exit code -9"):
            list(itertools.islice(batches, 50))
    assert not any(process.is_alive() for process in made._processes)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("psm_")]


def test_workers_outlive_the_signals_of_their_run(bank):
    """They are sent while the workers still import; tf.data starts them from a thread, as here."""
    order = pairs.Order(seed=4, count=len(bank), global_batch=6)
    made = []
    thread = threading.Thread(target=lambda: made.append(pairs._Workers(bank, NoiseLevels(), order, 2)))
    thread.start()
    thread.join()
    with made[0] as workers:
        for process, number in itertools.product(
            workers._processes, (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        ):
            os.kill(process.pid, number)
        found = np.stack([np.stack(batch) for batch in itertools.islice(workers.batches(), 5)], axis=1)
        assert all(process.is_alive() for process in workers._processes)
    assert np.array_equal(found, take(bank, 5))
    assert not any(process.is_alive() for process in workers._processes)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(pairs._RUN_SIGNALS)


@pytest.mark.parametrize("when", ["starting", "working", "ending"])
def test_workers_end_with_their_parent_however_it_ends(data, when):
    command = [sys.executable, "-W", "ignore", "-c", PARENT, f"{data}/train*", when]
    # Not through pipes: the workers would hold them open.
    with open(data.parent / f"{when}.txt", "w+") as told:
        code = subprocess.run(command, cwd=ROOT, stdout=told, timeout=100).returncode
        told.seek(0)
        *workers, ring, held = told.read().split()
    assert code == (0 if when == "ending" else -signal.SIGKILL)
    assert len(workers) == 2
    alive = [psutil.Process(int(pid)) for pid in workers if psutil.pid_exists(int(pid))]
    assert not psutil.wait_procs(alive, timeout=60)[1]
    # Removed by multiprocessing's tracker, which ends after them.
    end = time.monotonic() + 60
    while left := {ring, held} & set(os.listdir("/dev/shm")):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_the_bank_holds_the_ink_cut_out(bank):
    for number in range(len(bank)):
        image = bank[number]
        assert max(image.shape) <= 320
        inked = image < 255
        assert inked.any()
        assert not inked[0].any() or image.shape[0] < 10
