"""From a trained model to one ONNX file that says of itself all that a caller must know."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from export.bundle import DEFAULT_SCORE
from export.onnx_files import OPSET, SIAMESE_METADATA, save, stamp
from export.saved_model import DETECTOR_OUTPUTS, DetectorModule, load_served
from training import record
from training.cleaner.noise import SIDE
from training.errors import UserError
from training.extractor.preprocessing import BALANCE, ENLARGE_BELOW, FLATTEST, HEIGHT, SPREAD, WIDTH
from training.files import sha256
from training.runner import LoadedModel

# A file may be this much larger than the weights in it: graph, names and metadata.
SIZE_LIMIT = 1.1
# And by this much: a graph, and constants that are no weights, as the extractor's places (55 kB).
GRAPH_BYTES = 163_840

_CLEANER_METADATA = {
    "signver.input_size": json.dumps([SIDE, SIDE]),
    "signver.preprocessing": json.dumps(
        {
            "outside": "fit the crop into the square, aspect ratio kept, centred on white; RGB over 255; "
            "dark ink on white"
        }
    ),
}


def convert_detector(
    loaded: LoadedModel,
    output: str | os.PathLike[str],
    *,
    dynamic_batch: bool = False,
    score_threshold: float = DEFAULT_SCORE,
) -> pathlib.Path:
    """Writes a detector as ONNX.

    Args:
      loaded: the trained model.
      output: file to write.
      dynamic_batch: a free batch dimension instead of 1.
      score_threshold: what a caller should keep, recorded in the metadata; the graph returns all.

    Raises:
      UserError: the file cannot be written, or it is larger than its weights explain.
    """
    module = DetectorModule(loaded, batch=None if dynamic_batch else 1)
    model, _ = tf2onnx.convert.from_function(
        module.__call__, input_signature=[module.input_signature], opset=OPSET, output_path=None
    )
    shapes = _detector_shapes(loaded, "batch" if dynamic_batch else 1)
    metadata = _detector_metadata(loaded, score_threshold)
    kept = weight_bytes(loaded.model) + _anchor_bytes(loaded)
    return _write(model, output, ["image"], DETECTOR_OUTPUTS, shapes, metadata, kept)


def convert_cleaner(
    loaded: LoadedModel, output: str | os.PathLike[str], *, dynamic_batch: bool = False, **_: Any
) -> pathlib.Path:
    """Writes a cleaner as ONNX: `input` to `output`, float32 [1, 224, 224, 3], dark ink on white, 0..1.

    Args:
      loaded: the trained model.
      output: file to write.
      dynamic_batch: a free batch dimension instead of 1.

    Raises:
      UserError: the file cannot be written, or it is larger than its weights explain.
    """
    metadata = _common_metadata(loaded, "cleaner") | _CLEANER_METADATA

    def clean(image: tf.Tensor) -> tf.Tensor:
        return loaded.model(image, training=False)

    return _convert_cleaner(clean, output, dynamic_batch, metadata, weight_bytes(loaded.model))


def convert_saved_model(
    folder: str | os.PathLike[str], output: str | os.PathLike[str], *, dynamic_batch: bool = False
) -> pathlib.Path:
    """Writes a cleaner that somebody else saved, such as SignVer's training script does.

    Args:
      folder: a SavedModel whose serving_default takes one image batch of 224×224×3 and gives one like it.
      output: file to write; names, batch dimension and metadata are those of `convert_cleaner`.
      dynamic_batch: a free batch dimension instead of 1.

    Raises:
      UserError: no SavedModel, or one with another signature.
    """
    saved = load_served(folder)
    served = saved.signatures["serving_default"]
    inputs = served.structured_input_signature[1]
    outputs = served.structured_outputs
    specs = [*inputs.values(), *outputs.values()]
    fits = all(spec.dtype == tf.float32 and spec.shape[1:] == (SIDE, SIDE, 3) for spec in specs)
    if len(inputs) != 1 or len(outputs) != 1 or not fits:
        found = ", ".join(
            f"{name} {spec.dtype.name} {spec.shape}" for name, spec in [*inputs.items(), *outputs.items()]
        )
        raise UserError(
            f"--saved_model {os.fspath(folder)}: a cleaner takes and gives float32 "
            f"[batch, {SIDE}, {SIDE}, 3]; found {found}."
        )
    (argument,), (result,) = inputs, outputs

    def clean(image: tf.Tensor) -> tf.Tensor:
        return served(**{argument: image})[result]

    metadata = {"signver.model": "cleaner", "signver.source": "SavedModel"} | _CLEANER_METADATA
    return _convert_cleaner(clean, output, dynamic_batch, metadata, _bytes_of(served.variables))


def convert_extractor(loaded: LoadedModel, output: str | os.PathLike[str], **_: Any) -> pathlib.Path:
    """Writes an extractor as ONNX: `image` float32 [batch, 192, 384, 1] to `embedding` float32 [batch, d].

    The batch dimension is always free: one page may hold several signatures.

    Args:
      loaded: the trained model.
      output: file to write.

    Raises:
      UserError: the file cannot be written, or it is larger than its weights explain.
    """
    size = loaded.params.task.model.embedding
    metadata = _common_metadata(loaded, "extractor") | {
        "signver.input_size": json.dumps([HEIGHT, WIDTH]),
        "signver.enlarge_below": str(ENLARGE_BELOW),
        "signver.embedding": str(size),
        **_verification_metadata(loaded),
        "signver.preprocessing": json.dumps(
            {
                "outside": f"grey; enlarged by the least power of two with which the longer side is "
                f"{ENLARGE_BELOW} pixels, bicubic; ink is at or below Otsu's threshold; with a = "
                f"{HEIGHT / 2:g} / ({SPREAD[0]} standard deviations of the ink's rows) and b = "
                f"{WIDTH / 2:g} / ({SPREAD[1]} of its columns), 1/12 added to either variance and neither "
                f"deviation less than {FLATTEST:g} times the other, height times "
                f"a^{(1 + BALANCE) / 2:g} b^{(1 - BALANCE) / 2:g}, width times "
                f"b^{(1 + BALANCE) / 2:g} a^{(1 - BALANCE) / 2:g}, averaged by area, the ink's mean "
                f"in the middle of {HEIGHT}x{WIDTH}; 1 is ink, 0 is paper"
            }
        ),
    }
    spec = tf.TensorSpec([None, HEIGHT, WIDTH, 1], tf.float32, name="image")
    model = _from_function(lambda image: loaded.model(image, training=False), [spec])
    shapes: dict[str, list[int | str]] = {"image": ["batch", HEIGHT, WIDTH, 1], "embedding": ["batch", size]}
    return _write(model, output, ["image"], ["embedding"], shapes, metadata, weight_bytes(loaded.model))


def convert_siamese(loaded: LoadedModel, output: str | os.PathLike[str], **_: Any) -> pathlib.Path:
    """Writes a Siamese verifier as ONNX, with the names and shapes that the .NET SDK loads.

    `input0`, `input1` uint8 [150, 220] to `output0`, `output1` float32 [1, 2048], the embeddings, and
    `output2` float32 [1, 1], the logit of "forged".

    Args:
      loaded: the trained model.
      output: file to write.

    Raises:
      UserError: the file cannot be written, or it is larger than its weights explain.
    """
    from training.extractor.siamese import EMBEDDING, INPUT

    signature = [tf.TensorSpec(INPUT, tf.uint8, name=name) for name in ("input0", "input1")]

    def compare(input0: tf.Tensor, input1: tf.Tensor) -> tuple[tf.Tensor, ...]:
        both = tf.cast(tf.stack([input0, input1]), tf.float32)[..., tf.newaxis] / 255.0
        found = loaded.model(both, training=False)
        logit = found[:1, EMBEDDING : EMBEDDING + 1] + found[1:, EMBEDDING + 1 :]
        return found[:1, :EMBEDDING], found[1:, :EMBEDDING], logit

    model = _from_function(compare, signature)
    metadata = _common_metadata(loaded, "siamese") | SIAMESE_METADATA
    metadata["signver.head"] = "concatenated embeddings"
    metadata |= _verification_metadata(loaded)
    shapes: dict[str, list[int | str]] = {"input0": list(INPUT), "input1": list(INPUT)}
    shapes |= {"output0": [1, EMBEDDING], "output1": [1, EMBEDDING], "output2": [1, 1]}
    names = (["input0", "input1"], ["output0", "output1", "output2"])
    return _write(model, output, *names, shapes, metadata, weight_bytes(loaded.model))


def _verification_metadata(loaded: LoadedModel) -> dict[str, str]:
    """Threshold, calibration and consistency on the run's validation writers, of the exported checkpoint.

    The threshold is the cosine at the equal error rate; the calibration makes a probability of "genuine" of a
    cosine; the consistency is the mean cosine of a writer's genuine signatures.
    """
    found = record.evaluation_of(loaded.model_dir, loaded.step, "threshold_skilled")
    if not found:
        raise UserError(
            f"{loaded.model_dir / 'metrics.jsonl'}: no evaluation with forgeries, so no threshold; train "
            "with --mode=train_and_eval on a set that has them."
        )
    metadata = {"signver.threshold": repr(float(found["threshold_skilled"]))}
    if found.get("calibration_slope") is not None:
        fitted = {key: found[f"calibration_{key}"] for key in ("slope", "offset")}
        metadata["signver.calibration"] = json.dumps(fitted)
    if found.get("consistency") is not None:
        metadata["signver.consistency"] = repr(float(found["consistency"]))
    return metadata


def _convert_cleaner(
    clean: Callable[[tf.Tensor], tf.Tensor],
    output: str | os.PathLike[str],
    dynamic_batch: bool,
    metadata: dict[str, str],
    weights: int,
) -> pathlib.Path:
    batch = None if dynamic_batch else 1
    spec = tf.TensorSpec([batch, SIDE, SIDE, 3], tf.float32, name="input")
    model = _from_function(clean, [spec])
    shape: list[int | str] = ["batch" if dynamic_batch else 1, SIDE, SIDE, 3]
    return _write(model, output, ["input"], ["output"], {"input": shape, "output": shape}, metadata, weights)


def _from_function(function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> onnx.ModelProto:
    # There is no `if` on tensors in any of them, and AutoGraph would rewrite the source of every layer.
    traced = tf.function(function, input_signature=signature, autograph=False)
    return tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET, output_path=None)[0]


def _write(
    model: onnx.ModelProto,
    output: str | os.PathLike[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: dict[str, list[int | str]],
    metadata: dict[str, str],
    weights: int,
) -> pathlib.Path:
    """Puts names, shapes and metadata right, checks the graph and its size, and writes it."""
    _rename_values(model, inputs, outputs)
    _set_shapes(model, shapes)
    _modernise_resize(model)
    _share_initializers(model)
    _number_names(model)
    stamp(model, metadata)
    _check_size(model, weights)
    return save(model, output)


def weight_bytes(model: tf.keras.Model) -> int:
    """Bytes of a model's variables, trainable or not, in float32."""
    return _bytes_of(model.variables)


def _bytes_of(variables: Sequence[tf.Variable]) -> int:
    return sum(4 * int(np.prod(variable.shape)) for variable in variables)


def _anchor_bytes(loaded: LoadedModel) -> int:
    """Of the boxes that a detector's answers are decoded from: constants beside the weights."""
    config = loaded.params.task.model
    height, width = config.input_size[:2]
    levels = range(config.min_level, config.max_level + 1)
    places = sum(-(-height // 2**level) * -(-width // 2**level) for level in levels)
    return 16 * places * config.anchor.num_scales * len(config.anchor.aspect_ratios)


def _detector_shapes(loaded: LoadedModel, batch: int | str) -> dict[str, list[int | str]]:
    limit = loaded.params.task.model.detection_generator.max_num_detections
    return {
        "image": [batch, "height", "width", 3],
        "detection_boxes": [batch, limit, 4],
        "detection_scores": [batch, limit],
        "detection_classes": [batch, limit],
        "num_detections": [batch],
        "raw_boxes": [batch, "anchors", 4],
        "raw_logits": [batch, "anchors", loaded.params.task.model.num_classes],
    }


def _detector_metadata(loaded: LoadedModel, score_threshold: float) -> dict[str, str]:
    task = loaded.params.task
    generator = task.model.detection_generator
    names = {str(label): name for label, name in enumerate(task.class_names, start=1)}
    return _common_metadata(loaded, "detector") | {
        "signver.classes": json.dumps(names),
        "signver.input_size": json.dumps(list(task.model.input_size[:2])),
        "signver.score_threshold": repr(float(score_threshold)),
        "signver.nms": json.dumps(
            {
                "iou_threshold": generator.nms_iou_threshold,
                "score_threshold": generator.pre_nms_score_threshold,
                "max_detections": generator.max_num_detections,
            }
        ),
        "signver.preprocessing": json.dumps(
            {
                "outside": "RGB uint8; average whole blocks of n x n pixels, n = floor(max(height / input "
                "height, width / input width) / 2), where n is at least 2",
                "inside": "fit with the aspect ratio kept, bilinear, top left; normalise; pad with the mean",
            }
        ),
        "signver.boxes": "fractions of the page, [ymin, xmin, ymax, xmax]",
    }


def _common_metadata(loaded: LoadedModel, model: str) -> dict[str, str]:
    return {
        "signver.model": model,
        "signver.experiment": loaded.experiment,
        "signver.checkpoint_sha256": _checkpoint_sha256(loaded.checkpoint),
        "signver.git_commit": record.read(loaded.model_dir).get("git", {}).get("commit", ""),
    }


def _checkpoint_sha256(checkpoint: str) -> str:
    """One digest over the digests of a checkpoint's files, in the order of their names."""
    prefix = pathlib.Path(checkpoint)
    files = sorted(prefix.parent.glob(f"{prefix.name}.*"))
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def _rename_values(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives inputs and outputs their names, everywhere in the graph; outputs come in the given order.

    The converter names the outputs of a function by the sorted keys of its result.
    """
    graph = model.graph
    found = [value.name for value in graph.output]
    renamed = dict(zip([value.name for value in graph.input], inputs, strict=True))
    renamed |= dict(zip(found, sorted(outputs), strict=True))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in [*graph.input, *graph.output]:
        value.name = renamed[value.name]
    ordered = sorted(graph.output, key=lambda value: outputs.index(value.name))
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in ordered]
    del graph.output[:]
    graph.output.extend(copies)


def _set_shapes(model: onnx.ModelProto, shapes: dict[str, list[int | str]]) -> None:
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape
        dims.ClearField("dim")
        for size in shapes[value.name]:
            if isinstance(size, str):
                dims.dim.add().dim_param = size
            else:
                dims.dim.add().dim_value = size
    # Shapes of inner values carry the converter's own placeholder names and nothing that runs needs.
    del model.graph.value_info[:]


def _modernise_resize(model: onnx.ModelProto) -> None:
    """Nearest upsampling by whole factors is a plain repetition; the converter writes it in a mode that
    opset 13 deprecated, and every load of the file would warn of it."""
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        mode = attributes.get("coordinate_transformation_mode")
        if node.op_type == "Resize" and mode is not None and mode.s == b"tf_half_pixel_for_nn":
            mode.s = b"asymmetric"
            attributes["nearest_mode"].s = b"floor"


def _share_initializers(model: onnx.ModelProto) -> None:
    """Keeps one copy of equal constants: the converter writes anchors and biases once per use."""
    graph = model.graph
    kept: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    unique = []
    for tensor in graph.initializer:
        kind = f"{tensor.data_type} {list(tensor.dims)} ".encode()
        key = kind + onnx.numpy_helper.to_array(tensor).tobytes()
        if key in kept:
            replaced[tensor.name] = kept[key]
        else:
            kept[key] = tensor.name
            unique.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
    del graph.initializer[:]
    graph.initializer.extend(unique)
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]


def _number_names(model: onnx.ModelProto) -> None:
    """Names nodes, values and constants by their order, so that the same weights give the same bytes.

    The converter and Keras number names by counters of the process that never start again.
    """
    graph = model.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        raise AssertionError("subgraphs: their names would need numbers too")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = {value.name: value.name for value in [*graph.input, *graph.output]} | {"": ""}
    used = []
    for number, node in enumerate(graph.node):
        for name in node.input:
            if name not in names:
                used.append(constants[name])
                names[name] = f"constant_{len(used)}"
        for place, name in enumerate(node.output):
            names.setdefault(name, f"{node.op_type}_{number}" + (f"_{place}" if place else ""))
        node.name, node.doc_string = f"{node.op_type}_{number}", ""
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in used]
    for tensor in kept:
        tensor.name = names[tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _check_size(model: onnx.ModelProto, weights: int) -> None:
    size = model.ByteSize()
    if size > SIZE_LIMIT * weights + GRAPH_BYTES:
        raise UserError(
            f"the ONNX file takes {size:,} bytes for {weights:,} bytes of weights; constants are doubled."
        )
