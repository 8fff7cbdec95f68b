"""Opens an exported ONNX file and reads what it says of itself."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from signver.errors import SignVerError

if TYPE_CHECKING:
    import onnxruntime

# What `signver.format` must say; it changes when a caller written for an older file would go wrong.
FORMAT = "1"


def open_model(
    path: str | os.PathLike[str], kind: str, threads: int = 0, sha256: str | None = None
) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """A session and the file's metadata.

    Args:
      path: the ONNX file.
      kind: what `signver.model` must say, e.g. "detector".
      threads: cores that one call may use; 0 lets ONNX Runtime take all.
      sha256: of the file, hexadecimal, where a manifest says it; ONNX Runtime then gets the very bytes that
        were compared.

    Raises:
      SignVerError: the file is missing, damaged, changed, of another kind or of another format.
    """
    import onnxruntime

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise SignVerError(f"{name}: no such file.")
    source: str | bytes = name
    if sha256 is not None:
        source = _unchanged(name, sha256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin while they wait doubled the processor time of a page (30 ms for 15): it goes through
    # three sessions in turn, and the waiting pools of two take the cores from the third.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Pages have many sizes; the arena would keep the memory of the largest. Asking for it anew costs nothing
    # that could be measured.
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen classes without a common base
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise SignVerError(f"{name}: not a model that ONNX Runtime loads ({reason}).") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if metadata.get("signver.model") != kind:
        raise SignVerError(f"{name}: no signver {kind}; its metadata lack signver.model={kind}.")
    if metadata.get("signver.format") != FORMAT:
        raise SignVerError(
            f"{name}: format {metadata.get('signver.format')} of the metadata; this SDK reads {FORMAT}. "
            "Export the model anew or take the SDK of its release."
        )
    return session, metadata


def _unchanged(name: str, sha256: str) -> bytes:
    try:
        with open(name, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise SignVerError(f"{name}: cannot read this file ({error.strerror}).") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SignVerError(f"{name}: changed since its bundle was opened; open the bundle anew.")
    return content
