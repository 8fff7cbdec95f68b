"""cpu, gpu or hpu: the only file that imports `habana_frameworks`.

Sources for Gaudi: SynapseAI 1.14.0 documentation, TensorFlow section; Habana's Model-References. One
process takes the card of its local rank, which is `/device:HPU:0` in that process. Habana's module is
loaded before the first operation and before Horovod starts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import shutil
from typing import TYPE_CHECKING

from training.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

CHOICES = ("auto", "cpu", "gpu", "hpu")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# PCI's number for Habana, as the kernel shows it.
_HABANA = "0x1da3"
# What multiplies bfloat16 matrices in hardware; without it bfloat16 on a CPU is slower than float32.
_BFLOAT16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
# The last SynapseAI with TensorFlow, and the TensorFlow that it is built for.
SUPPORTED = {"SynapseAI": "1.14.0", "TensorFlow": "2.15.0"}
# Habana's own conversion of the graph to bfloat16; together with a Keras policy its result is undefined.
_CONVERSION = "TF_BF16_CONVERSION"
# A folder on a local disk where compiled graphs wait for the next process.
_RECIPE_CACHE = "TF_RECIPE_CACHE_PATH"
_OWN_RECIPES = "signver_recipes"


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
    if kind == "hpu" or (kind == "auto" and _card_files()):
        found, name = "hpu", _load_hpu()
    elif kind == "gpu" or (kind == "auto" and _devices("GPU")):
        if not _devices("GPU"):
            raise UserError("--device gpu: TensorFlow sees no GPU here. Use --device cpu or auto.")
        found, name = "gpu", "/device:GPU:0"
    else:
        found, name = "cpu", "/device:CPU:0"
    chosen, why = (precision, "asked for") if precision != "auto" else _best_precision(found)
    if found == "hpu":
        _check_hpu_precision(chosen)
    versions = f", {_hpu_versions()}" if found == "hpu" else ""
    return Device(
        found,
        name,
        chosen,
        f"device {found} ({'found' if kind == 'auto' else 'asked for'}){versions}, {chosen} ({why})",
    )


def clear_recipe_cache() -> None:
    """Empties the folder of compiled graphs: recipes of another version or config are never found again.

    To be called by one process a host, before the barrier after which all of them compile. A folder of
    another name than the launch script gives it is somebody's own, and left alone.
    """
    # The variable may carry options of the cache after a comma.
    path = pathlib.Path(os.environ.get(_RECIPE_CACHE, "").partition(",")[0])
    if path.name != _OWN_RECIPES:
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)


def set_precision(precision: str) -> None:
    """Sets the Keras policy; bfloat16 means `mixed_bfloat16`: float32 weights, bfloat16 arithmetic."""
    import tensorflow as tf

    tf.keras.mixed_precision.set_global_policy("float32" if precision == "float32" else f"mixed_{precision}")


def expect_idle_weights() -> None:
    """Keeps Keras from warning at every trace: MobileNet's last normalisation feeds nothing in a pyramid."""
    import tensorflow as tf

    tf.get_logger().addFilter(lambda line: "Gradients do not exist" not in line.getMessage())


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


def _card_files(root: pathlib.Path = pathlib.Path("/")) -> bool:
    """Whether the driver shows a card: /dev/hl0, or with later drivers /dev/accel/accel0 of Habana's.

    The kernel names other makers' accelerators, such as the NPU of many a laptop, alike.
    """
    if (root / "dev/hl0").exists():
        return True
    nodes = [node.name for node in root.glob("dev/accel/accel[0-9]*")]
    makers = {_first_line(root / "sys/class/accel" / name / "device/vendor") for name in nodes}
    # Where a container does not show the maker, whoever has Habana's package has the card.
    return _HABANA in makers or ("" in makers and importlib.util.find_spec("habana_frameworks") is not None)


def _first_line(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""


def _load_hpu() -> str:
    try:
        from habana_frameworks.tensorflow import load_habana_module
    except ImportError as error:
        raise UserError(
            f"--device hpu: habana-tensorflow is not installed ({error}).\n"
            f"Run in the {_supported()} image (Dockerfile.habana), or use --device cpu."
        ) from error
    try:
        load_habana_module()
    except Exception as error:  # the bridge raises what its libraries raise
        raise UserError(
            f"--device hpu: Habana's module does not load ({str(error).splitlines()[0]}).\n"
            f"Found {_hpu_versions()}; supported: {_supported()}."
        ) from error
    if not _devices("HPU"):
        raise UserError(
            "--device hpu: Habana's module is loaded but no card is visible; `hl-smi` lists cards.\n"
            f"Found {_hpu_versions()}; supported: {_supported()}."
        )
    return "/device:HPU:0"


def _check_hpu_precision(precision: str) -> None:
    if precision == "float16":
        raise UserError("runtime.mixed_precision_dtype: Gaudi has no float16; take bfloat16 or float32.")
    if precision == "bfloat16" and os.environ.get(_CONVERSION, "0") not in ("", "0"):
        raise UserError(
            f"{_CONVERSION}={os.environ[_CONVERSION]} and runtime.mixed_precision_dtype bfloat16 are both "
            "set, which Habana leaves undefined.\n"
            f"Unset {_CONVERSION}; the Keras policy is the way for these models."
        )


def _hpu_versions() -> str:
    import importlib.metadata

    found = []
    for label, package in (("habana-tensorflow", "habana-tensorflow"), ("TensorFlow", "tensorflow")):
        for name in (package, f"{package}-cpu"):
            try:
                found.append(f"{label} {importlib.metadata.version(name)}")
                break
            except importlib.metadata.PackageNotFoundError:
                continue
        else:
            found.append(f"no {label}")
    return " with ".join(found)


def _supported() -> str:
    return " with ".join(f"{name} {version}" for name, version in SUPPORTED.items())
