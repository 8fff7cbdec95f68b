"""The PyTorch Siamese verifier and SigNet to ONNX, with the names and shapes that the .NET SDK loads.

Needs the extra `[siamese]` (PyTorch). Checkpoints are read as weights only: a pickle that would run code is
refused by PyTorch's own reader.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from export.onnx_files import OPSET, SIAMESE_METADATA, save, stamp
from signver import siamese as sdk
from training.errors import UserError
from training.files import sha256

if TYPE_CHECKING:
    import torch

EMBEDDING = 2048
# Largest difference between PyTorch and ONNX Runtime of an embedding or a logit.
LIMIT = 1e-4
# A pair proves something where its embeddings are this far apart.
_APART = 1e-3
# (name, inputs, outputs, kernel, stride, padding, pooled afterwards)
_CONVOLUTIONS = (
    ("conv1", 1, 96, 11, 4, 0, True),
    ("conv2", 96, 256, 5, 1, 2, True),
    ("conv3", 256, 384, 3, 1, 1, False),
    ("conv4", 384, 384, 3, 1, 1, False),
    ("conv5", 384, 256, 3, 1, 1, True),
)
_DENSE = (("fc1", 256 * 3 * 5, EMBEDDING), ("fc2", EMBEDDING, EMBEDDING))
_NORM = ("weight", "bias", "running_mean", "running_var")
# The heads that are in circulation, by the shape of `probs.weight`.
_HEADS = {(1, 2 * EMBEDDING): "concatenated embeddings", (1, 4): "projected embeddings"}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights of a known layout.

    Attributes:
      weights: name -> tensor, SigNet's names (`conv_layers.…`, `fc_layers.…`) and the head's.
      head: "concatenated embeddings", "projected embeddings", or "" for SigNet, which has none.
      activation: "mish", or "relu" for SigNet.
    """

    weights: dict[str, torch.Tensor]
    head: str
    activation: str


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads `{"model": state_dict}`, SigNet's `(state_dict, layer, layer)`, a state dict, or safetensors.

    Raises:
      UserError: no PyTorch, an unreadable file, one that holds more than weights, or keys and shapes that no
        known layout has; one line for each wrong key.
    """
    weights = _tensors(pathlib.Path(path))
    signet = not any(key.startswith(("model.", "probs.")) for key in weights)
    found = {key.removeprefix("model."): value for key, value in weights.items()}
    found = {key: value for key, value in found.items() if not key.endswith("num_batches_tracked")}
    head = "" if signet else _HEADS.get(tuple(getattr(found.get("probs.weight"), "shape", ())), "unknown")
    expected = _backbone_shapes() | ({} if signet else _head_shapes(head))
    problems = [f"missing: {_say(key, signet)} {list(expected[key])}" for key in expected if key not in found]
    for key, value in found.items():
        if key not in expected:
            problems.append(f"unknown: {_say(key, signet)} {list(value.shape)}")
        elif tuple(value.shape) not in (expected[key], *_alternatives(key)):
            shapes = f"{list(value.shape)}, expected {list(expected[key])}"
            problems.append(f"wrong shape: {_say(key, signet)} {shapes}")
        elif not bool(value.isfinite().all()):
            problems.append(f"not finite: {_say(key, signet)}")
    if problems:
        raise UserError("\n  ".join([f"{path}: not the Siamese verifier nor SigNet:", *problems]))
    return Checkpoint(
        {key: value.float() for key, value in found.items()}, head, "relu" if signet else "mish"
    )


def convert(
    checkpoint: Checkpoint, output: str | os.PathLike[str], source: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes the pair form: `input0`, `input1` uint8 [150, 220] to `output0`, `output1`, `output2`.

    Args:
      checkpoint: one with a head.
      output: file to write.
      source: the checkpoint's file, whose hash goes into the metadata.

    Raises:
      UserError: SigNet, which has no head, or the file cannot be written.
    """
    if not checkpoint.head:
        raise UserError(
            "SigNet has no head that compares two signatures; give --embedding_output, for its embedding, "
            "instead of --output."
        )
    example = tuple(_uint8(sdk.INPUT) for _ in range(2))
    names = (["input0", "input1"], ["output0", "output1", "output2"])
    return _export(pair_network(checkpoint), example, names, None, output, source, "siamese", checkpoint)


def convert_embedding(
    checkpoint: Checkpoint, output: str | os.PathLike[str], source: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes the batched form: `image` uint8 [batch, 150, 220] to `embedding` float32 [batch, 2048].

    Raises:
      UserError: the file cannot be written.
    """
    example = (_uint8((2, *sdk.INPUT)),)
    names, axes = (["image"], ["embedding"]), {"image": {0: "batch"}, "embedding": {0: "batch"}}
    network = embedding_network(checkpoint)
    return _export(network, example, names, axes, output, source, "siamese_embedding", checkpoint)


def largest_difference(
    checkpoint: Checkpoint,
    onnx_file: str | os.PathLike[str],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> float:
    """Largest difference of any output between PyTorch and ONNX Runtime.

    Args:
      checkpoint: what the file was made of.
      onnx_file: either form.
      pairs: uint8 [150, 220] twice, of real or synthetic signatures.

    Raises:
      UserError: the pairs' embeddings are alike, so that their equality proves nothing.
    """
    import torch

    session = onnxruntime.InferenceSession(os.fspath(onnx_file), providers=["CPUExecutionProvider"])
    single = len(session.get_inputs()) == 1
    network = embedding_network(checkpoint) if single else pair_network(checkpoint)
    worst, apart = 0.0, 0
    for one, two in pairs:
        inputs = [np.stack([one, two])] if single else [one, two]
        with torch.no_grad():
            theirs = network(*(torch.from_numpy(value) for value in inputs))
        expected = [value.numpy() for value in ([theirs] if single else theirs)]
        given = dict(zip((value.name for value in session.get_inputs()), inputs, strict=True))
        for ours, right in zip(session.run(None, given), expected, strict=True):
            difference = (
                float(np.abs(ours.astype(np.float64) - right).max()) if ours.shape == right.shape else np.inf
            )
            worst = max(worst, difference if np.isfinite(difference) else np.inf)
        first, second = expected[0] if single else (expected[0][0], expected[1][0])
        apart += bool(np.abs(first - second).max() > _APART)
    if apart < max(1, len(pairs) // 2):
        raise UserError(
            f"only {apart} of {len(pairs)} pairs have embeddings that differ; equal ones prove nothing."
        )
    return worst


def embedding_network(checkpoint: Checkpoint) -> torch.nn.Module:
    """uint8 [b, 150, 220] to float32 [b, 2048], in evaluation mode."""
    from torch import nn

    active: Callable[[], nn.Module] = nn.Mish if checkpoint.activation == "mish" else nn.ReLU
    steps: list[nn.Module] = []
    for name, inputs, outputs, kernel, stride, padding, pooled in _CONVOLUTIONS:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        norm = nn.BatchNorm2d(outputs)
        _fill(checkpoint, f"conv_layers.{name}", "conv", convolution, norm)
        steps += [convolution, norm, active(), *([nn.MaxPool2d(3, 2)] if pooled else [])]
    steps.append(nn.Flatten())
    for name, inputs, outputs in _DENSE:
        dense, norm1 = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
        _fill(checkpoint, f"fc_layers.{name}", "fc", dense, norm1)
        steps += [dense, norm1, active()]

    class Embedding(nn.Module):
        """Scales the pixels, then the layers."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*steps)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layers(image.view(-1, 1, *sdk.INPUT).float() / 255.0)

    return Embedding().eval()


def pair_network(checkpoint: Checkpoint) -> torch.nn.Module:
    """uint8 [150, 220] twice to (embedding [1, 2048], embedding [1, 2048], logit of "forged" [1, 1])."""
    import torch
    from torch import nn

    backbone = embedding_network(checkpoint)
    weights = {key: nn.Parameter(value, requires_grad=False) for key, value in checkpoint.weights.items()}
    projected = checkpoint.head == "projected embeddings"

    class Pair(nn.Module):
        """Two embeddings and the head on them; the order of the two matters to the head."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
            both = [self.backbone(image) for image in (first, second)]
            seen = both
            if projected:
                seen = [
                    nn.functional.linear(value, weights["projection2d.weight"], weights["projection2d.bias"])
                    for value in both
                ]
            logit = nn.functional.linear(torch.cat(seen, 1), weights["probs.weight"], weights["probs.bias"])
            return (*both, logit)

    return Pair().eval()


def run(arguments: argparse.Namespace) -> int:
    """Converts and proves; returns the exit code: 1 where a file differs from PyTorch."""
    if not arguments.output and not arguments.embedding_output:
        raise UserError("siamese: nothing to write; give --output, --embedding_output or both.")
    checkpoint = read_checkpoint(arguments.checkpoint)
    pairs = _pairs(arguments.signatures)
    worst = 0.0
    for path, function in ((arguments.output, convert), (arguments.embedding_output, convert_embedding)):
        if path is None:
            continue
        written = function(checkpoint, path, arguments.checkpoint)
        difference = largest_difference(checkpoint, written, pairs)
        worst = max(worst, difference)
        verdict = "PASSED" if difference <= LIMIT else "FAILED"
        print(
            f"{written}: {written.stat().st_size / 1e6:.1f} MB; largest difference from PyTorch on "
            f"{len(pairs)} pairs {difference:.2g}, the limit is {LIMIT:g}: {verdict}"
        )
    return 0 if worst <= LIMIT else 1


def _tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """The state dict in a file."""
    try:
        import torch
    except ImportError as error:
        raise UserError("PyTorch is not installed; pip install '.[siamese]' adds it.") from error
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"{path}: the package safetensors is missing; pip install '.[siamese]'.") from error
    except pickle.UnpicklingError as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise UserError(
            f"{path}: holds more than weights, or is damaged; such a file is never run ({reason})."
        ) from error
    except Exception as error:  # zip, EOF, key and safetensors' own errors have no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}).") from error
    if isinstance(content, tuple | list) and content:
        content = content[0]
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UserError(
            f"{path}: expected a state dict, {{'model': state_dict}} or a tuple that begins with one."
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _backbone_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs, kernel, *_ in _CONVOLUTIONS:
        shapes[f"conv_layers.{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        shapes |= {f"conv_layers.{name}.bn.{part}": (outputs,) for part in _NORM}
    for name, inputs, outputs in _DENSE:
        shapes[f"fc_layers.{name}.fc.weight"] = (outputs, inputs)
        shapes |= {f"fc_layers.{name}.bn.{part}": (outputs,) for part in _NORM}
    return shapes


def _head_shapes(head: str) -> dict[str, tuple[int, ...]]:
    wide = 4 if head == "projected embeddings" else 2 * EMBEDDING
    return {
        "probs.weight": (1, wide),
        "probs.bias": (1,),
        "projection2d.weight": (2, EMBEDDING),
        "projection2d.bias": (2,),
    }


def _alternatives(key: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_HEADS) if key == "probs.weight" else ()


def _say(key: str, signet: bool) -> str:
    """A key as the file has it."""
    return key if signet or key.startswith(("probs", "projection2d")) else f"model.{key}"


def _fill(checkpoint: Checkpoint, block: str, kind: str, layer: Any, norm: Any) -> None:
    layer.load_state_dict({"weight": checkpoint.weights[f"{block}.{kind}.weight"]})
    norm.load_state_dict({part: checkpoint.weights[f"{block}.bn.{part}"] for part in _NORM}, strict=False)


def _uint8(shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.zeros(shape, dtype=torch.uint8)


def _export(
    network: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    names: tuple[list[str], list[str]],
    axes: dict[str, dict[int, str]] | None,
    output: str | os.PathLike[str],
    source: str | os.PathLike[str],
    kind: str,
    checkpoint: Checkpoint,
) -> pathlib.Path:
    """Traces the network, writes one file with the metadata, and checks it."""
    import warnings

    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The tracing exporter: the newer one needs onnxscript, which wants a newer onnx than TensorFlow 2.15.
        torch.onnx.export(
            network, example, buffer, input_names=names[0], output_names=names[1],
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    digest = sha256(pathlib.Path(source))
    metadata = {"signver.model": kind, "signver.source": f"PyTorch checkpoint, sha256 {digest}"}
    stamp(model, metadata | SIAMESE_METADATA | {"signver.head": checkpoint.head or "none"})
    return save(model, output)


def _pairs(folder: pathlib.Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Twelve pairs of prepared signatures, neighbours in a folder or of synthetic writers."""
    from signver.errors import SignVerError
    from training.data import signatures

    pictures: list[Any]
    if folder is None:
        from PIL import Image

        pages = [signatures.synthesize(3, n // 2, n, signatures.GENUINE) for n in range(24)]
        pictures = [Image.open(io.BytesIO(page.image)) for page in pages]
    else:
        files = signatures.read_signatures(folder)
        pictures = [file.path for file in files[:: max(1, len(files) // 24)][:24]]
    prepared = []
    for picture in pictures:
        try:
            prepared.append(sdk.prepare(picture))
        except SignVerError:
            continue
    if len(prepared) < 2:
        raise UserError(f"{folder}: fewer than two signatures with ink.")
    return list(zip(prepared[::2], prepared[1::2], strict=False))
