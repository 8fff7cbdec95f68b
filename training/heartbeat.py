"""Ends a job whose rank is frozen or gone, with the rank named, instead of waiting while the meter runs.

A collective operation waits for ever for a process that is stopped or whose host is lost: Horovod's stall
check needs the silent rank's own background thread. So every rank counts seconds into a small file on the
disk that all share, the chief watches all others, they watch the chief, and who sees a count stand still
ends its process, upon which mpirun ends the job. A rank that is alive but never comes to the collective is
Horovod's to find (HOROVOD_STALL_SHUTDOWN_TIME_SECONDS, set by the launch script).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator

from training.errors import UserError

_PERIOD = 1.0
DEFAULT_SECONDS = 60.0
# How long ranks that were left waiting gather before one of them says who did not come.
_GATHERING = 3.0
_SHUT_DOWN = "Horovod has been shut down"


class RankLostError(UserError):
    """A rank did not come to a collective operation, or ended before the others."""

    exit_code = 1


@contextlib.contextmanager
def watch(folder: pathlib.Path, rank: int, size: int) -> Iterator[None]:
    """Beats and watches while the block runs; nothing for a single process.

    Args:
      folder: on a disk that all ranks share.
      rank: this process.
      size: number of processes.
    """
    if size == 1:
        yield
        return
    seconds = float(os.environ.get("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", DEFAULT_SECONDS))
    stop = threading.Event()
    watched = [0] if rank else list(range(1, size))
    thread = threading.Thread(target=_beat, args=(folder, rank, watched, seconds, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _file(folder, rank).unlink(missing_ok=True)


@contextlib.contextmanager
def name_lost_ranks(folder: pathlib.Path, rank: int, size: int) -> Iterator[None]:
    """Turns Horovod's end of a collective operation into an error that names the ranks that did not come.

    Raises:
      RankLostError: in every rank that was left waiting.
    """
    mine = folder / f".left-{rank}"
    mine.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:  # TensorFlow, Horovod and Keras each wrap it in a type of their own
        if size == 1 or _SHUT_DOWN not in str(error):
            raise
        mine.touch()
        time.sleep(_GATHERING)
        left = [one for one in range(size) if (folder / f".left-{one}").exists()]
        if rank != min(left):
            time.sleep(_GATHERING)  # mpirun ends all at the first exit; let that one speak
        mine.unlink(missing_ok=True)
        lost = ", ".join(str(one) for one in range(size) if one not in left) or "one"
        seconds = os.environ.get("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", "some")
        raise RankLostError(
            f"rank {lost} did not come to the others within {seconds} seconds, or ended: the job ends.\n"
            "The same command continues at the last checkpoint."
        ) from error


def _beat(folder: pathlib.Path, rank: int, watched: list[int], seconds: float, stop: threading.Event) -> None:
    mine = _file(folder, rank)
    counts: dict[int, str] = {}
    changed: dict[int, float] = {}
    last = time.monotonic()
    number = 0
    while not stop.wait(_PERIOD):
        number += 1
        with contextlib.suppress(OSError):
            mine.write_text(str(number), encoding="ascii")
        now = time.monotonic()
        # Who was asleep itself (a suspended job, a laptop's lid) cannot judge the others.
        if now - last > 5 * _PERIOD:
            changed = dict.fromkeys(changed, now)
        last = now
        for other in watched:
            with contextlib.suppress(OSError):
                count = _file(folder, other).read_text(encoding="ascii")
                if counts.get(other) != count:
                    counts[other], changed[other] = count, now
            # A rank that ended in order has taken its file away; Horovod tells those that still wait.
            silent = now - changed.get(other, now)
            if silent > seconds and _file(folder, other).exists():
                _end(rank, other, silent)


def _end(rank: int, other: int, silent: float) -> None:
    print(
        f"error: rank {other} has been silent for {silent:.0f} seconds: its process is frozen or its host is "
        f"lost; rank {rank} ends the job.\nThe same command continues at the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    # The main thread waits inside a collective operation and would never see an exception.
    os._exit(1)


def _file(folder: pathlib.Path, rank: int) -> pathlib.Path:
    return folder / f".alive-{rank}"
