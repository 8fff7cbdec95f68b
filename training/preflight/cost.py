"""What a step costs: arithmetic, memory, traffic between cards, time and money."""

from __future__ import annotations

import dataclasses
import math

from training.preflight import gaudi
from training.preflight.step import Node, Step

# The same memory under another name, or none at all: a compiler moves no bytes for them.
_FREE = frozenset(
    ("Const", "ExpandDims", "Identity", "IdentityN", "NoOp", "ReadVariableOp", "Reshape", "Shape", "Squeeze")
)


@dataclasses.dataclass(frozen=True)
class Cards:
    """What the run is rented on.

    Attributes:
      cards: processes over all hosts.
      hosts: machines.
      utilization: share of the peak arithmetic that the model is assumed to reach.
      price: dollars an hour and host.
      memory: bytes of a card.
      vcpus: of a host.
    """

    cards: int = 1
    hosts: int = 1
    utilization: float = gaudi.DEFAULT_UTILIZATION
    price: float = gaudi.DOLLARS_PER_HOUR
    memory: float = gaudi.MEMORY_BYTES
    vcpus: int = gaudi.VCPUS


def flops(node: Node) -> float:
    """Multiplications plus additions of convolutions and matrix products; 0 for everything else."""
    if node.type in ("Conv2D", "DepthwiseConv2dNative"):
        return 2.0 * node.outputs[0].count * _per_output(node, node.inputs[1].shape)
    if node.type in ("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput"):
        return 2.0 * node.inputs[2].count * _per_output(node, node.inputs[1].shape)
    if node.type in ("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter"):
        return 2.0 * node.inputs[2].count * _per_output(node, node.outputs[0].shape)
    if node.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        left = node.inputs[0].shape or (1, 1)
        swapped = node.attributes.get("transpose_a") or node.attributes.get("adj_x")
        return 2.0 * node.outputs[0].count * ((left[-2] if swapped else left[-1]) or 1)
    return 0.0


def _per_output(node: Node, filter_shape: tuple[int | None, ...] | None) -> int:
    """Multiply-adds for one output value: height × width, × input channels where they are mixed."""
    height, width, channels, _ = (side or 1 for side in filter_shape or (1, 1, 1, 1))
    return height * width * (1 if node.type.startswith("Depthwise") else channels)


def arithmetic(step: Step) -> tuple[float, float]:
    """FLOP of one image, forward alone and with the backward pass."""
    forward = sum(flops(node) for node in step.card_nodes() if not node.backward)
    total = sum(flops(node) for node in step.card_nodes())
    return forward / step.batch, total / step.batch


def traffic(step: Step) -> float:
    """Bytes that a step would move if no two ops were fused: an upper bound."""
    moved = 0
    for node in step.card_nodes():
        if node.type not in _FREE:
            moved += sum(value.size for value in (*node.inputs, *node.outputs))
    return float(moved)


def memory(step: Step) -> dict[str, float]:
    """Bytes on a card: weights, optimizer, gradients, what the forward pass keeps, the batch twice.

    The values kept are those forward tensors that a gradient op reads, each once. A compiler that
    recomputes keeps less, one that pads keeps more; the largest single tensor is added as work space.
    """
    largest = max((v.size for node in step.card_nodes() for v in node.outputs), default=0)
    parts = {
        "weights": step.parameters,
        "optimizer": step.slots,
        "gradients": step.trainable,
        "activations": step.kept,
        "batch": 2 * sum(value.size for value in step.inputs),
        "work space": largest,
    }
    return {name: float(size) for name, size in parts.items()} | {"total": float(sum(parts.values()))}


def all_reduce_seconds(size: float, cards: int, hosts: int) -> float:
    """Seconds to average `size` bytes over all cards by rings, within a host and then between hosts.

    Each card sends 2 (n-1)/n of its bytes over its links (Patarasu and Yuan 2009); between hosts the eight
    cards share the host's network. Latency and overlap with the backward pass are left out; they pull
    in opposite directions.
    """
    local = max(1, cards // max(1, hosts))
    seconds = 2 * (local - 1) / local * size * 8 / gaudi.CARD_LINK_BITS
    if hosts > 1:
        seconds += 2 * (hosts - 1) / hosts * size * 8 / gaudi.HOST_LINK_BITS
    return seconds


def run_cost(step: Step, cards: Cards, steps: int, global_batch: int, records: int) -> dict[str, float]:
    """Time and money of the whole run, at the stated share of the peak and with nothing overlapped."""
    _, per_image = arithmetic(step)
    compute = per_image * step.batch / (gaudi.PEAK_FLOPS * cards.utilization)
    reduce = all_reduce_seconds(step.trainable, cards.cards, cards.hosts)
    seconds = compute + reduce
    hours = steps * seconds / 3600
    return {
        "compute_seconds": compute,
        "all_reduce_seconds": reduce,
        "all_reduce_bytes": float(step.trainable if cards.cards > 1 else 0),
        "memory_bound_seconds": traffic(step) / gaudi.MEMORY_BANDWIDTH,
        "step_seconds": seconds,
        "images_per_second": global_batch / seconds if seconds else math.inf,
        "steps": float(steps),
        "epochs": steps * global_batch / max(1, records),
        "hours": hours,
        "dollars": hours * cards.price * cards.hosts,
    }
