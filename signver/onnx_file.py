"""What an ONNX file says of itself, read from its bytes: no onnx package, nothing is executed.

A protocol buffer is a row of (field number, wire type, value); the few fields that matter here are named
below by their numbers in onnx.proto3. Weights are stepped over, so a file of 100 MB takes milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from signver.errors import SignVerError

# Domains of operators that every ONNX Runtime build has.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
# Of ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, OperatorSetIdProto and
# StringStringEntryProto.
_IR_VERSION, _OPSETS, _GRAPH, _FUNCTIONS, _METADATA = 1, 8, 7, 25, 14
_NODES, _INITIALIZERS, _SPARSE = 1, 5, 15
_OP_TYPE, _ATTRIBUTES, _NODE_DOMAIN = 4, 5, 7
_SUBGRAPHS, _TENSORS, _SPARSE_TENSORS = (6, 11), (5, 10), (22, 23)
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DOMAIN, _VERSION = 1, 2
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 8


@dataclasses.dataclass
class OnnxFile:
    """The header of a model.

    Attributes:
      ir_version: of the file format.
      opsets: domain to version; "" is the standard domain.
      operators: "Conv", or "domain:Name" outside the standard domain.
      external_data: whether weights lie in other files.
      functions: whether it defines functions of its own.
      metadata: what the exporter wrote of the model.
    """

    ir_version: int = 0
    opsets: dict[str, int] = dataclasses.field(default_factory=dict)
    operators: set[str] = dataclasses.field(default_factory=set)
    external_data: bool = False
    functions: bool = False
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def custom_operators(self) -> list[str]:
        """Operators that a plain ONNX Runtime does not have, by name."""
        return sorted(name for name in self.operators if ":" in name)


def read_header(content: bytes) -> OnnxFile:
    """Reads the header of an ONNX file.

    Raises:
      SignVerError: the bytes are no protocol buffer of a model.
    """
    found = OnnxFile()
    for number, value in _fields(memoryview(content)):
        if number == _IR_VERSION and isinstance(value, int):
            found.ir_version = value
        elif number == _OPSETS:
            fields = dict(_fields(_message(value)))
            version = fields.get(_VERSION, 0)
            found.opsets[_text(fields.get(_DOMAIN))] = version if isinstance(version, int) else 0
        elif number == _GRAPH:
            _read_graph(_message(value), found, 0)
        elif number == _METADATA:
            fields = dict(_fields(_message(value)))
            found.metadata[_text(fields.get(_KEY))] = _text(fields.get(_VALUE))
        elif number == _FUNCTIONS:
            found.functions = True
    if not found.ir_version or not found.opsets or not found.operators:
        raise SignVerError("not an ONNX model: no IR version, operator set or node in it.")
    return found


def _read_graph(graph: memoryview, found: OnnxFile, depth: int) -> None:
    if depth > _DEEPEST:
        raise SignVerError(f"not a usable ONNX model: graphs nested deeper than {_DEEPEST}.")
    for number, value in _fields(graph):
        if number == _NODES:
            _read_node(_message(value), found, depth)
        elif number == _INITIALIZERS:
            _read_tensor(_message(value), found)
        elif number == _SPARSE:
            _read_sparse(_message(value), found)


def _read_node(node: memoryview, found: OnnxFile, depth: int) -> None:
    name, domain = "", ""
    for number, value in _fields(node):
        if number == _OP_TYPE:
            name = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _ATTRIBUTES:
            for inner, part in _fields(_message(value)):
                if inner in _SUBGRAPHS:
                    _read_graph(_message(part), found, depth + 1)
                elif inner in _TENSORS:
                    _read_tensor(_message(part), found)
                elif inner in _SPARSE_TENSORS:
                    _read_sparse(_message(part), found)
    found.operators.add(name if domain in STANDARD_DOMAINS else f"{domain}:{name}")


def _read_tensor(tensor: memoryview, found: OnnxFile) -> None:
    for number, value in _fields(tensor):
        if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
            found.external_data = True


def _read_sparse(sparse: memoryview, found: OnnxFile) -> None:
    for _, value in _fields(sparse):
        if isinstance(value, memoryview):
            _read_tensor(value, found)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; varints as int, everything else as its bytes."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == _BYTES:
            size, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise SignVerError(f"not an ONNX model: wire type {wire} at byte {place}.")
        if size > end - place:
            raise SignVerError("not an ONNX model: a field is longer than the file; is it cut off?")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise SignVerError("not an ONNX model: a number has no end; is the file cut off?")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise SignVerError("not an ONNX model: a number where a message belongs.")
    return value


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""
