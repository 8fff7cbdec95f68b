"""Ranks, gradient averaging and sharding: the only file that imports Horovod.

One process drives one device. Under mpirun (or horovodrun) Horovod connects the processes; outside
of it every function is the identity of a single process and Horovod is not imported. Gradients are
averaged explicitly, through the optimizer's documented `gradient_aggregator`:
`horovod.tensorflow.keras.DistributedOptimizer` does not see the legacy optimizers that tf-models
builds, and would train a different model on every card without a word.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from training.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

_LOWEST = 19
# Set by Open MPI's mpirun for each process it starts; Horovod's own launcher sets the second.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE")


def cores() -> int:
    """Cores that this process may use; all of the machine where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _launched_size() -> int:
    for name in _SIZE_VARIABLES:
        if os.environ.get(name):
            return int(os.environ[name])
    return 1


@functools.cache
def _horovod() -> Any:
    """Horovod's TensorFlow module, initialised; None in a single process."""
    if _launched_size() == 1:
        return None
    try:
        import horovod.tensorflow as horovod
    except ImportError as error:
        raise UserError(
            f"started as one of {_launched_size()} processes, but Horovod is not installed ({error}).\n"
            "Install it with scripts/install_horovod.sh, or start "
            "a single process without mpirun."
        ) from error
    before = _threads()
    horovod.init()
    _give_way(_threads() - before)
    return horovod


def _threads() -> set[str]:
    """Ids of this process's threads; none where the system does not tell."""
    try:
        return set(os.listdir("/proc/self/task"))
    except OSError:
        return set()


def _give_way(threads: set[str]) -> None:
    """Lets Horovod's threads run after the computation where a rank has one core for both.

    Horovod's thread asks the other ranks a thousand times a second whether a gradient is ready, and MPI waits
    for the answers by polling. On a core of its own that costs nothing; on the only core of a rank it took a
    third of the training speed (`benchmarks/scaling.py`). Once a step's gradients are ready the core is free.
    With several cores a rank, as beside a card, nothing is changed: there it must not wait for the input's
    threads.
    """
    if not threads or cores() > 1:
        return
    for thread in threads:
        # It may have ended; a system that forbids the change trains slower, not wrong.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread), _LOWEST)


def init() -> None:
    """Connects the processes. Call once, before the first TensorFlow operation."""
    _horovod()


def rank() -> int:
    """Number of this process over all hosts, 0-based."""
    horovod = _horovod()
    return 0 if horovod is None else int(horovod.rank())


def local_rank() -> int:
    """Number of this process on its host: the card that it takes."""
    horovod = _horovod()
    return 0 if horovod is None else int(horovod.local_rank())


def size() -> int:
    """Number of processes over all hosts."""
    horovod = _horovod()
    return 1 if horovod is None else int(horovod.size())


def is_chief() -> bool:
    """Whether this process writes checkpoints, summaries and progress."""
    return rank() == 0


def average_gradients(
    gradients_and_variables: Sequence[tuple[tf.Tensor | None, tf.Variable]],
) -> list[tuple[Any, tf.Variable]]:
    """The pairs with each gradient averaged over all processes: a Keras `gradient_aggregator`."""
    horovod = _horovod()
    if horovod is None:
        return list(gradients_and_variables)
    return [
        (
            gradient
            if gradient is None
            else horovod.allreduce(gradient, op=horovod.Average, name=f"gradient_{number}"),
            variable,
        )
        for number, (gradient, variable) in enumerate(gradients_and_variables)
    ]


def broadcast(variables: Sequence[tf.Variable]) -> None:
    """Overwrites the variables of every process with the chief's."""
    horovod = _horovod()
    if horovod is not None:
        horovod.broadcast_variables(list(variables), root_rank=0)


def average_variables(variables: Sequence[tf.Variable]) -> None:
    """Sets float variables to their mean over all processes, e.g. the moving figures of batch norm.

    Each rank's own see its share of the data alone; without this a checkpoint would hold the chief's.
    """
    horovod = _horovod()
    if horovod is None:
        return
    for number, variable in enumerate(variables):
        if variable.dtype.is_floating:
            name = f"variable_{number}"
            variable.assign(horovod.allreduce(variable.value(), op=horovod.Average, name=name))


def of_chief(value: Any) -> Any:
    """What the chief passed, given to all."""
    return gather(value)[0]


def gather(value: Any) -> list[Any]:
    """What every process passed, by rank, given to all."""
    horovod = _horovod()
    return [value] if horovod is None else list(horovod.allgather_object(value))


def barrier() -> None:
    """Waits until all processes are here."""
    gather(None)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in at least one process; the same answer in all."""
    return any(gather(bool(flag)))
