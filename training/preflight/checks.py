"""Judges a traced step: what a card refuses, what it runs badly, and where in the model it stands."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping

from training.preflight import cost, gaudi
from training.preflight.step import GRADIENTS, Node, Step, Value

OK, NOTE, WARN, BLOCK = "ok", "note", "warn", "BLOCK"
_VIEW_DTYPES = ("resource", "variant")
# They read or write a counter or hand a value on; the card computes nothing.
_CARRIERS = frozenset(
    ("AssignAddVariableOp", "AssignVariableOp", "Cast", "Const", "Identity", "IdentityN", "NoOp")
) | {"ReadVariableOp"}
_CONVOLUTIONS = frozenset(("Conv2D", "MatMul", "BatchMatMulV2"))


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
      check: its name.
      level: ok, note, warn or BLOCK.
      summary: one line.
      where: op and layer names, the worst first.
      advice: what to do; empty where there is nothing to do.
    """

    check: str
    level: str
    summary: str
    where: tuple[str, ...] = ()
    advice: str = ""


def check_graph(step: Step) -> list[Finding]:
    """All checks of the graph, in the order of the report."""
    checks: tuple[Callable[[Step], Finding], ...] = (
        check_shapes,
        check_dtypes,
        check_ranks,
        check_ops,
        check_precision,
        check_channels,
    )
    return [check(step) for check in checks]


def check_batch(global_batch: int, cards: int) -> Finding:
    """Every card gets the same number of images, in every step."""
    if global_batch % cards:
        lower = max(cards, global_batch // cards * cards)
        return Finding(
            "batch",
            BLOCK,
            f"global batch {global_batch} is not divisible by {cards} cards",
            advice=f"task.train_data.global_batch_size: {lower} or {(global_batch // cards + 1) * cards}",
        )
    return Finding(
        "batch", OK, f"global batch {global_batch}, {global_batch // cards} images on each of {cards} cards"
    )


def check_shapes(step: Step) -> Finding:
    """Every shape is known before the first step."""
    choosing = [node for node in step.card_nodes() if node.type in gaudi.DATA_DEPENDENT_OPS]
    unknown = [
        node
        for node in step.card_nodes()
        if node.type not in gaudi.DATA_DEPENDENT_OPS | gaudi.HOST_ONLY_OPS
        and not all(value.static for value in node.outputs)
    ]
    fed = [f"input {number}: {_shape(v)}" for number, v in enumerate(step.inputs) if not v.static]
    if fed:
        return Finding(
            "shapes",
            BLOCK,
            f"{len(fed)} inputs of the step have no fixed shape",
            tuple(fed),
            "give the input pipeline fixed shapes: batches without a smaller last one, one image size",
        )
    if choosing or unknown:
        return Finding(
            "shapes",
            BLOCK,
            f"{len(choosing)} ops whose shape depends on values, {len(unknown)} ops of unknown shape: "
            "a graph would be compiled anew for each shape",
            _names([*choosing, *unknown], lambda node: f"gives {', '.join(map(_shape, node.outputs))}"),
            "use masks (tf.where with three arguments) and fixed sizes instead of selecting",
        )
    return Finding("shapes", OK, "all shapes are fixed")


def check_dtypes(step: Step) -> Finding:
    """The card computes in float32, bfloat16, int32, int8 and bool."""
    strange = [
        node
        for node in step.card_nodes()
        if node.type not in _CARRIERS and any(_foreign(value) for value in (*node.inputs, *node.outputs))
    ]
    if not strange:
        return Finding("dtypes", OK, "float32, bfloat16, int32, int8 and bool alone")
    kinds = sorted({v.dtype for node in strange for v in (*node.inputs, *node.outputs) if _foreign(v)})
    return Finding(
        "dtypes",
        BLOCK,
        f"{len(strange)} ops compute in {', '.join(kinds)}, which the card has not",
        _names(strange, lambda node: ", ".join(f"{v.dtype} {_shape(v)}" for v in node.outputs)),
        "cast to float32 or int32 in the input pipeline, on the host",
    )


def check_ranks(step: Step) -> Finding:
    """A kernel of the card takes at most five dimensions."""
    high = [
        node
        for node in step.card_nodes()
        if any(
            value.shape is not None and len(value.shape) > gaudi.MAXIMUM_RANK
            for value in (*node.inputs, *node.outputs)
        )
    ]
    if not high:
        return Finding("ranks", OK, f"no tensor has more than {gaudi.MAXIMUM_RANK} dimensions")
    return Finding(
        "ranks",
        BLOCK,
        f"{len(high)} ops on tensors of more than {gaudi.MAXIMUM_RANK} dimensions",
        _names(high, lambda node: ", ".join(map(_shape, node.outputs))),
        "merge dimensions; task.model.decoder.fpn.use_keras_layer: true upsamples in four dimensions",
    )


def check_ops(step: Step) -> Finding:
    """Every op inside the step has a kernel on the card."""
    found = collections.defaultdict(list)
    for node in step.card_nodes():
        found[node.type].append(node)
    host = {kind: nodes for kind, nodes in found.items() if kind in gaudi.HOST_ONLY_OPS}
    # Ops whose shape depends on values are judged with the shapes.
    known = gaudi.SUPPORTED_OPS | gaudi.HOST_ONLY_OPS | gaudi.DATA_DEPENDENT_OPS
    unknown = {kind: nodes for kind, nodes in found.items() if kind not in known}
    if host:
        return Finding(
            "ops",
            BLOCK,
            f"{', '.join(sorted(host))} never run on a card: each step would wait for the host",
            _names([node for nodes in host.values() for node in nodes], lambda node: node.type),
            "move them into the input pipeline or out of the training step",
        )
    if unknown:
        return Finding(
            "ops",
            WARN,
            f"{', '.join(sorted(unknown))}: not known to have a kernel; they may fall to the CPU, in silence",
            _names([node for nodes in unknown.values() for node in nodes], lambda node: node.type),
            "prove it on a card with TF_CPU_RUNTIME_FALLBACK=forbid and ten steps",
        )
    return Finding("ops", OK, f"{len(found)} kinds of op, all with a kernel on the card")


def check_precision(step: Step) -> Finding:
    """Matrix arithmetic in bfloat16 fills the matrix engine; float32 is many times slower.

    Fixed filters in float32 need it, no setting changes that; they are told apart.
    """
    half = exact = fixed = 0.0
    slow = []
    for node in step.card_nodes():
        flops = cost.flops(node)
        if not flops:
            continue
        if node.outputs[0].dtype == "bfloat16":
            half += flops
        elif node.fixed:
            fixed += flops
        else:
            exact += flops
            slow.append((flops, node))
    share = half / max(1.0, half + exact)
    summary = f"{share:.0%} of the arithmetic is in bfloat16"
    if half and fixed:
        summary += f"; fixed filters in float32 add {fixed / (half + exact):.0%}"
    if share >= 0.9:
        return Finding("precision", OK, summary)
    slow.sort(key=lambda pair: -pair[0])
    return Finding(
        "precision",
        WARN,
        summary,
        _names([node for _, node in slow], lambda node: node.outputs[0].dtype),
        "runtime.mixed_precision_dtype: bfloat16",
    )


def check_channels(step: Step) -> Finding:
    """Channels in multiples of 128, or at least 64, fill the matrix engine.

    Fixed filters are what they are, nobody can round them up; they are left out. What learns runs three
    times: forward, and for the gradients of values and of weights.
    """
    total, odd = 0.0, []
    by_multiple: dict[int, float] = collections.defaultdict(float)
    nodes = list(step.card_nodes())
    learning = {node.name.replace(GRADIENTS, "", 1).rpartition("/")[0] for node in nodes if node.backward}
    for node in nodes:
        flops = cost.flops(node)
        if not flops or node.backward or node.type not in _CONVOLUTIONS or not node.outputs[0].shape:
            continue
        if node.fixed:
            continue
        flops *= 3 if node.name in learning else 1
        total += flops
        channels = node.outputs[0].shape[-1] or 1
        fitting = next((m for m in gaudi.CHANNEL_MULTIPLES if channels % m == 0), 0)
        by_multiple[fitting] += flops
        if not fitting:
            odd.append((flops, channels, node))
    if not total:
        return Finding("channels", NOTE, "no convolution and no matrix product in the step")
    parts = [f"{by_multiple[multiple] / total:.0%} in multiples of {multiple}" for multiple in (128, 64)]
    summary = f"of the arithmetic {', '.join(parts)}, {by_multiple[0] / total:.0%} in neither"
    if by_multiple[0] <= 0.1 * total:
        return Finding("channels", OK, summary)
    odd.sort(key=lambda item: -item[0])
    channels_of = {node.name: count for _, count, node in odd}
    return Finding(
        "channels",
        WARN,
        summary,
        _names([node for _, _, node in odd], lambda node: f"{channels_of[node.name]} channels"),
        "round filters up to 64 or 128: the card pays for them anyway",
    )


def check_memory(memory: Mapping[str, float], limit: float) -> Finding:
    """Weights, optimizer and activations of one card's batch fit its memory."""
    share = memory["total"] / limit
    summary = f"{memory['total'] / 1e9:.2f} GB of {limit / 1e9:.0f} GB ({share:.0%}), estimated"
    advice = "a smaller global batch, smaller images, or more cards"
    if share > 1:
        return Finding("memory", BLOCK, summary, advice=advice)
    # Padding and the compiler's own buffers are not in the estimate.
    return Finding("memory", WARN if share > 0.8 else OK, summary, advice=advice if share > 0.8 else "")


def check_input(vcpus_needed: float | None, vcpus: int) -> Finding:
    """The host's processors make images as fast as its cards eat them; None is not timed."""
    if vcpus_needed is None:
        return Finding("input", NOTE, "not timed")
    summary = f"{vcpus_needed:.1f} of {vcpus} vCPUs a host are needed to feed the cards"
    if vcpus_needed > vcpus:
        idle = 1 - vcpus / vcpus_needed
        return Finding(
            "input",
            BLOCK if idle > 0.5 else WARN,
            f"{summary}: the cards would wait {idle:.0%} of the time",
            advice="smaller stored images (convert --max_side), less augmentation, or fewer cards",
        )
    return Finding("input", OK, summary)


def check_all_reduce(run: Mapping[str, float]) -> Finding:
    """Averaging gradients is a small part of a step."""
    share = run["all_reduce_seconds"] / max(run["step_seconds"], 1e-12)
    if not run["all_reduce_bytes"]:
        return Finding("all-reduce", OK, "one card: nothing to average")
    summary = f"{share:.1%} of a step, if nothing overlaps"
    if share <= 0.1:
        return Finding("all-reduce", OK, summary)
    return Finding(
        "all-reduce", WARN, summary, advice="a larger batch a card: more images for the same bytes"
    )


def _foreign(value: Value) -> bool:
    return value.dtype not in gaudi.COMPUTE_DTYPES and value.dtype not in _VIEW_DTYPES


def _shape(value: Value) -> str:
    return (
        "[?]"
        if value.shape is None
        else f"[{','.join('?' if side is None else str(side) for side in value.shape)}]"
    )


def _names(nodes: Iterable[Node], what: Callable[[Node], str], limit: int = 8) -> tuple[str, ...]:
    listed = list(nodes)
    lines = [f"{node.name} ({node.type}): {what(node)}" for node in listed[:limit]]
    return (*lines, f"and {len(listed) - limit} more") if len(listed) > limit else tuple(lines)
