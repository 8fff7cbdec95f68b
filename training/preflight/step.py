"""Traces the real train step and flattens it into a list of nodes that checks can read.

The graph is the one that training runs: the task, model, optimizer and config come from the same calls as
in `training/runner.py`. Nothing of it is executed, so a card's whole batch fits on a laptop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

# They look at a shape, not at values: what follows is arithmetic of the compiler, not of the card.
_SHAPE_OPS = frozenset(("Shape", "ShapeN", "Size", "Rank"))
# What stands before the path of an operation of the gradients.
GRADIENTS = "gradient_tape/"
_CALLS = frozenset(("PartitionedCall", "StatefulPartitionedCall"))
_BRANCHES = frozenset(("If", "StatelessIf", "While", "StatelessWhile"))
# The same memory under another name.
_ALIASES = frozenset(("Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "StopGradient"))


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor: dtype name and shape; a dimension or the whole shape is None where unknown."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def count(self) -> int:
        """Elements; unknown dimensions count as one."""
        size = 1
        for side in self.shape or ():
            size *= 1 if side is None else side
        return size

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * (tf.as_dtype(self.dtype).size or 0)

    @property
    def static(self) -> bool:
        """Whether all of the shape is known."""
        return self.shape is not None and None not in self.shape


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of the step.

    Attributes:
      name: path of layers and the op, as in TensorBoard.
      type: op type.
      inputs, outputs: tensors, resources left out.
      on_card: whether its values come from the batch or from weights; the rest is small arithmetic on
        shapes, counters and the learning rate.
      backward: whether it belongs to the gradients.
      fixed: whether its last input, a convolution's kernel, is a constant of the graph.
      attributes: those that checks read.
    """

    name: str
    type: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    on_card: bool
    backward: bool
    fixed: bool
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """The train step of one card.

    Attributes:
      nodes: every operation, called functions unfolded.
      batch: images of one card's batch.
      inputs: the batch's tensors.
      trainable, parameters, slots: bytes of trainable weights, of all weights, of the optimizer's own.
      kept: bytes of values that the forward pass leaves for the backward pass.
    """

    nodes: tuple[Node, ...]
    batch: int
    inputs: tuple[Value, ...]
    trainable: int
    parameters: int
    slots: int
    kept: int

    def card_nodes(self) -> Iterator[Node]:
        """Those that run on the card."""
        return (node for node in self.nodes if node.on_card)


def trace(task: Any, model: tf.keras.Model, optimizer: Any, element_spec: Any, batch: int) -> Step:
    """Traces `task.train_step` for batches of `element_spec`.

    Args:
      task: a tf-models task.
      model: what `task.build_model()` gave.
      optimizer: as the runner builds it.
      element_spec: `Dataset.element_spec` of one card's input.
      batch: images in it.
    """
    metrics = task.build_metrics(training=True)

    @tf.function(autograph=False)
    def step(inputs: Any) -> Any:
        return task.train_step(inputs, model=model, optimizer=optimizer, metrics=metrics)

    graph = step.get_concrete_function(element_spec).graph
    walk = _Walk()
    captured = {id(inner) for _, inner in graph.captures}
    walk.graph(graph, [id(tensor) not in captured for tensor in graph.inputs], "", False)
    weights = {id(variable) for variable in model.variables}
    slots = [v for v in _optimizer_variables(optimizer) if id(v) not in weights]
    return Step(
        nodes=tuple(walk.nodes),
        batch=batch,
        inputs=tuple(_value(tensor) for tensor in graph.inputs if id(tensor) not in captured),
        trainable=_bytes(model.trainable_variables),
        parameters=_bytes(model.variables),
        slots=_bytes(slots),
        kept=walk.kept(),
    )


class _Walk:
    """Goes through a graph and the functions it calls, in order."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._made_forward: dict[int, tuple[int, int]] = {}  # id of a tensor -> (id of its memory, bytes)
        self._needed: dict[int, int] = {}

    def kept(self) -> int:
        """Bytes of forward values that gradients read."""
        return sum(self._needed.values())

    def graph(self, graph: Any, from_card: Sequence[bool], prefix: str, backward: bool) -> list[bool]:
        """Walks one graph; tells which of its outputs hold values of the batch or of weights."""
        card = {id(tensor): flag for tensor, flag in zip(graph.inputs, from_card, strict=True)}
        alive = _alive(graph)
        for operation in graph.get_operations():
            if operation.type == "Placeholder" or operation.name not in alive:
                continue
            gradient = backward or GRADIENTS in operation.name
            flags = [card.get(id(tensor), False) for tensor in operation.inputs]
            made = self._visit(operation, graph, flags, prefix, gradient)
            self._remember(operation, made, gradient)
            card.update((id(tensor), flag) for tensor, flag in zip(operation.outputs, made, strict=True))
        return [card.get(id(tensor), False) for tensor in graph.outputs]

    def _visit(
        self, operation: Any, graph: Any, flags: list[bool], prefix: str, backward: bool
    ) -> list[bool]:
        if operation.type in _CALLS:
            inner = _function(graph, operation.get_attr("f").name)
            return self.graph(inner, flags, f"{prefix}{operation.name}/", backward)
        if operation.type in _BRANCHES:
            return self._branches(operation, graph, flags, prefix, backward)
        on_card = _on_card(operation, any(flags))
        self.nodes.append(
            Node(
                name=prefix + operation.name,
                type=operation.type,
                inputs=tuple(_value(t) for t in operation.inputs if t.dtype != tf.resource),
                outputs=_outputs(operation),
                on_card=on_card,
                backward=backward,
                fixed=len(flags) > 1 and not flags[-1],
                attributes=_attributes(operation),
            )
        )
        return [on_card and operation.type not in _SHAPE_OPS] * len(operation.outputs)

    def _branches(
        self, operation: Any, graph: Any, flags: list[bool], prefix: str, backward: bool
    ) -> list[bool]:
        loop = operation.type.endswith("While")
        names = ("cond", "body") if loop else ("then_branch", "else_branch")
        made = [False] * len(operation.outputs)
        for name in names:
            inner = _function(graph, operation.get_attr(name).name)
            given = flags if loop else flags[1:]
            found = self.graph(inner, given, f"{prefix}{operation.name}/", backward)
            if name != "cond":
                made = [a or b for a, b in zip(made, found, strict=True)]
        return made

    def _remember(self, operation: Any, made: list[bool], backward: bool) -> None:
        """Notes what the forward pass makes and what of it the backward pass reads."""
        if backward:
            for tensor in operation.inputs:
                if id(tensor) in self._made_forward:
                    place, size = self._made_forward[id(tensor)]
                    self._needed[place] = size
            return
        if operation.type in ("ReadVariableOp", "Const", *_SHAPE_OPS):
            return
        for number, (tensor, flag) in enumerate(zip(operation.outputs, made, strict=True)):
            if not flag:
                continue
            memory = (id(tensor), _value(tensor).size)
            if operation.type in _ALIASES:
                memory = self._made_forward.get(id(operation.inputs[number]), memory)
            self._made_forward[id(tensor)] = memory


def _alive(graph: Any) -> set[str]:
    """Names of the operations that an output or a side effect needs; the rest is pruned before running."""
    waiting = [tensor.op for tensor in graph.outputs]
    waiting += [getattr(control, "op", control) for control in graph.control_outputs]
    alive = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in alive:
            alive.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
    return alive


def _outputs(operation: Any) -> tuple[Value, ...]:
    values = tuple(_value(tensor) for tensor in operation.outputs if tensor.dtype != tf.resource)
    # What batch norm hands to its own gradient is the kernel's private affair; its shape is never told.
    return values[:3] if operation.type.startswith("FusedBatchNorm") else values


def _on_card(operation: Any, fed: bool) -> bool:
    """Fed by the batch or weights, or itself a source of many numbers."""
    if operation.type == "ReadVariableOp":
        value = operation.outputs[0]
        return bool(value.dtype.is_floating and value.shape.rank)
    if "Random" in operation.type:
        return True
    return fed


def _function(graph: Any, name: str) -> Any:
    while graph is not None:
        definition = graph._functions.get(name) if hasattr(graph, "_functions") else None
        if definition is not None:
            return definition.graph
        graph = getattr(graph, "outer_graph", None)
    raise LookupError(f"function {name} is not in the traced graph")


def _value(tensor: Any) -> Value:
    shape = tensor.shape
    return Value(tensor.dtype.base_dtype.name, None if shape.rank is None else tuple(shape.as_list()))


def _attributes(operation: Any) -> dict[str, Any]:
    kept = {}
    for name in ("transpose_a", "transpose_b", "adj_x", "adj_y"):
        try:
            kept[name] = operation.get_attr(name)
        except ValueError:
            continue
    return kept


def _optimizer_variables(optimizer: Any) -> list[tf.Variable]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)


def _bytes(variables: Sequence[tf.Variable]) -> int:
    return sum(int(variable.shape.num_elements() or 0) * variable.dtype.size for variable in variables)
