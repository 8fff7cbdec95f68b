"""cpu, gpu or hpu: the only file that imports `habana_frameworks`.

Sources for Gaudi: SynapseAI 1.14.0 documentation, TensorFlow section. One process takes one card,
which is `/device:HPU:0` in that process; Habana's module must be loaded before the first operation.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from training.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

CHOICES = ("auto", "cpu", "gpu", "hpu")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# What multiplies bfloat16 matrices in hardware; without it bfloat16 on a CPU is slower than float32.
_BFLOAT16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclasses.dataclass(frozen=True)
class Device:
    """A chosen device.

    Attributes:
      kind: cpu, gpu or hpu.
      name: TensorFlow's device name.
      precision: float32, bfloat16 or float16, the value that `runtime.mixed_precision_dtype` takes.
      reason: one line that says what was chosen and why, for the log and for run.json.
    """

    kind: str
    name: str
    precision: str
    reason: str


def choose(kind: str, precision: str) -> Device:
    """Picks the device and the precision; "auto" takes the best that is there and says so.

    Raises:
      UserError: an unknown name, or a device that was asked for by name is absent.
    """
    if kind not in CHOICES:
        raise UserError(f"--device {kind}: choose one of {', '.join(CHOICES)}.")
    if precision not in PRECISIONS:
        raise UserError(
            f"runtime.mixed_precision_dtype: '{precision}' is not one of {', '.join(PRECISIONS)}."
        )
    if kind == "hpu" or (kind == "auto" and pathlib.Path("/dev/accel/accel0").exists()):
        found, name = "hpu", _load_hpu()
    elif kind == "gpu" or (kind == "auto" and _devices("GPU")):
        if not _devices("GPU"):
            raise UserError("--device gpu: TensorFlow sees no GPU here. Use --device cpu or auto.")
        found, name = "gpu", "/device:GPU:0"
    else:
        found, name = "cpu", "/device:CPU:0"
    chosen, why = (precision, "asked for") if precision != "auto" else _best_precision(found)
    return Device(
        found,
        name,
        chosen,
        f"device {found} ({'found' if kind == 'auto' else 'asked for'}), {chosen} ({why})",
    )


def set_precision(precision: str) -> None:
    """Sets the Keras policy; bfloat16 means `mixed_bfloat16`: float32 weights, bfloat16 arithmetic."""
    import tensorflow as tf

    tf.keras.mixed_precision.set_global_policy("float32" if precision == "float32" else f"mixed_{precision}")


def prefetch(dataset: tf.data.Dataset, device: Device) -> tf.data.Dataset:
    """Last stage of an input pipeline: to the card's memory on HPU, in host memory elsewhere."""
    import tensorflow as tf

    if device.kind == "hpu":
        return dataset.apply(tf.data.experimental.prefetch_to_device(device.name))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _best_precision(kind: str) -> tuple[str, str]:
    if kind == "hpu":
        return "bfloat16", "Gaudi's native type"
    if kind == "gpu":
        return "float32", "the type that needs no loss scaling"
    flags = _cpu_flags()
    for flag in _BFLOAT16_CPU_FLAGS:
        if flag in flags:
            return "bfloat16", f"this CPU has {flag}"
    return "float32", f"this CPU has none of {', '.join(_BFLOAT16_CPU_FLAGS)}"


def _cpu_flags() -> set[str]:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def _devices(kind: str) -> list[tf.config.PhysicalDevice]:
    import tensorflow as tf

    return list(tf.config.list_physical_devices(kind))


def _load_hpu() -> str:
    try:
        from habana_frameworks.tensorflow import load_habana_module
    except ImportError as error:
        raise UserError(
            f"--device hpu: habana-tensorflow is not installed ({error}).\n"
            "Run in the SynapseAI 1.14.0 TensorFlow image, or use --device cpu."
        ) from error
    load_habana_module()
    if not _devices("HPU"):
        raise UserError(
            "--device hpu: Habana's module is loaded but no card is visible; `hl-smi` lists cards."
        )
    return "/device:HPU:0"
