"""What every exported ONNX file has in common: versions, marks that the SDK asks for, how it is written."""

from __future__ import annotations

import os
import pathlib

import onnx

from training.files import atomic_file

# Opset 17 and IR 8 load in ONNX Runtime from 1.14 on, the oldest that .NET users are known to run.
OPSET = 17
IR_VERSION = 8
# What the SDK asks for under `signver.format`, see `signver.model_file`.
FORMAT = "1"
# Of the Siamese verifier, whoever trained it.
SIAMESE_METADATA = {
    "signver.input_size": "[150, 220]",
    "signver.decision": "cosine of output0 and output1; output2 is the logit of forged",
}


def stamp(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Says in the file what it is, and checks the graph."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "signver-harness", ""
    model.graph.name, model.graph.doc_string = metadata["signver.model"], ""
    onnx.helper.set_model_props(model, {"signver.format": FORMAT, **metadata})
    onnx.checker.check_model(model, full_check=True)


def save(model: onnx.ModelProto, output: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a model, the same one to the same bytes.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(output)
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return path
