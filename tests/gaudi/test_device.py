"""What touches Habana's module, in real processes with a stand-in package on the path."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from training import device

ROOT = pathlib.Path(__file__).parents[2]
STAND_IN = pathlib.Path(__file__).parent / "stand_in"


def run(code, tmp_path, stand_in=True, **environment):
    """Runs Python code; returns the finished process and the stand-in's record."""
    log = tmp_path / "log.jsonl"
    log.touch()
    path = os.pathsep.join([str(STAND_IN)] * stand_in + [str(ROOT)])
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "OMPI_", "HABANA"))}
    settings = (
        kept | {"PYTHONPATH": path, "STAND_IN_LOG": str(log), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=settings,
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done, [json.loads(line) for line in log.read_text().splitlines()]


CHOOSE = """
from training import device
from training.errors import UserError
try:
    print(device.choose("hpu", {precision!r}))
except UserError as error:
    print("refused:", error)
"""


def test_the_module_is_loaded_first_and_the_card_is_named(tmp_path):
    done, log = run(CHOOSE.format(precision="auto"), tmp_path)
    assert "name='/device:HPU:0'" in done.stdout
    assert "bfloat16 (Gaudi's native type)" in done.stdout
    assert "TensorFlow 2.15" in done.stdout
    assert [line["event"] for line in log][:2] == ["load", "list"]
    assert not log[0]["after_operations"]


def test_the_runner_loads_the_module_before_horovod_and_clears_the_recipes(tmp_path):
    """One process of two asks for its card; the order is Habana's: module, Horovod, model."""
    recipes = tmp_path / "signver_recipes"
    recipes.mkdir()
    (recipes / "old.recipe").write_text("of another config")
    code = f"""
from training import config, device, distribution, runner
order = []
def watch(module, name):
    original = getattr(module, name)
    def watched(*arguments, **options):
        order.append(name)
        return original(*arguments, **options)
    setattr(module, name, watched)
for module, name in ((device, "choose"), (distribution, "init"), (device, "clear_recipe_cache"),
                     (distribution, "barrier"), (device, "set_precision"), (config, "build_task")):
    watch(module, name)
experiment = config.load("cleaner_unet", [], "{{task: {{train_data: {{input_path: /nothing*}}}}}}")
try:
    runner.run("cleaner_unet", experiment, "train", {str(tmp_path / "run")!r}, "hpu")
except Exception as error:
    print(type(error).__name__, error)
print("order:", *order)
"""
    done, log = run(code, tmp_path, TF_RECIPE_CACHE_PATH=str(recipes))
    assert "order: choose init clear_recipe_cache barrier set_precision build_task" in done.stdout, (
        done.stderr
    )
    assert log[0]["event"] == "load"
    assert not log[0]["horovod"]
    assert list(recipes.iterdir()) == []


def test_a_folder_that_is_not_ours_is_never_cleared(tmp_path):
    mine = tmp_path / "home"
    mine.mkdir()
    (mine / "thesis").write_text("years")
    code = "from training import device; device.clear_recipe_cache()"
    done, _ = run(code, tmp_path, TF_RECIPE_CACHE_PATH=str(mine))
    assert done.returncode == 0, done.stderr
    assert (mine / "thesis").exists()


@pytest.mark.parametrize(
    ("precision", "environment", "message"),
    [
        ("bfloat16", {"TF_BF16_CONVERSION": "full"}, "are both set, which Habana leaves undefined"),
        ("auto", {"TF_BF16_CONVERSION": "1"}, "are both set"),
        ("float16", {}, "Gaudi has no float16"),
        ("auto", {"STAND_IN_CARDS": "0"}, "no card is visible"),
        ("auto", {"STAND_IN_CARDS": "broken"}, "does not load (libsynapse.so: version mismatch)"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(tmp_path, precision, environment, message):
    done, _ = run(CHOOSE.format(precision=precision), tmp_path, **environment)
    assert done.stdout.startswith("refused:"), done.stdout + done.stderr
    assert message in done.stdout


def test_float32_and_the_graph_conversion_go_together(tmp_path):
    done, _ = run(CHOOSE.format(precision="float32"), tmp_path, TF_BF16_CONVERSION="full")
    assert "precision='float32'" in done.stdout


def test_without_habanas_package_the_image_is_named(tmp_path):
    done, _ = run(CHOOSE.format(precision="auto"), tmp_path, stand_in=False)
    assert "habana-tensorflow is not installed" in done.stdout
    assert "SynapseAI 1.14.0" in done.stdout


def test_an_operation_before_the_module_is_found_out(tmp_path):
    code = "import tensorflow as tf; tf.constant(1) + 1\n" + CHOOSE.format(precision="auto")
    done, log = run(code, tmp_path)
    assert log[0]["after_operations"]
    assert "must be called before TensorFlow operations" in done.stdout


def test_on_a_cpu_nothing_of_habana_is_imported(tmp_path):
    code = """
import sys
from training import device
chosen = device.choose("auto", "auto")
print(chosen.kind, any(name.startswith("habana") for name in sys.modules))
"""
    done, log = run(code, tmp_path)
    assert done.stdout.split() == ["cpu", "False"], done.stderr
    assert log == []


@pytest.mark.parametrize(
    ("files", "card"),
    [
        ({}, False),
        ({"dev/hl0": ""}, True),
        ({"dev/accel/accel0": "", "sys/class/accel/accel0/device/vendor": "0x1da3\n"}, True),
        ({"dev/accel/accel0": "", "sys/class/accel/accel0/device/vendor": "0x8086\n"}, False),
        ({"dev/accel/accel0": ""}, False),  # no maker shown, and no package of Habana's here
    ],
)
def test_another_maker_s_accelerator_is_no_card(tmp_path, files, card):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert device._card_files(tmp_path) is card


def test_data_goes_to_the_card_last(tmp_path):
    code = """
import tensorflow as tf
from training import device
applied = []
tf.data.experimental.prefetch_to_device = lambda name: applied.append(name) or (lambda dataset: dataset)
device.prefetch(tf.data.Dataset.range(3), device.Device("hpu", "/device:HPU:0", "bfloat16", ""))
print(applied)
"""
    done, _ = run(code, tmp_path)
    assert done.stdout.strip() == "['/device:HPU:0']", done.stderr
