"""The two networks, their figures, and a small training of each."""

import json
import pathlib

import commands
import numpy as np
import pytest
import sets
import tensorflow as tf

from training import config
from training.cleaner import metrics, model
from training.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]


def multiplications(network):
    """Multiply-adds of one image, counted over convolutions."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.Conv2DTranspose):
            _, height, width, _ = layer.input_shape
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, tf.keras.layers.Conv2D):
            _, height, width, _ = layer.output_shape
            total += height * width * int(np.prod(layer.kernel.shape))
    return total


def test_the_autoencoder_is_the_seeds():
    seed = model.autoencoder()
    assert seed.count_params() == 2_106_051
    assert seed.input_shape == seed.output_shape == (None, 224, 224, 3)
    assert [layer.name.rstrip("_0123456789") for layer in seed.layers].count("conv2d_transpose") == 3


def test_the_unet_takes_a_tenth_of_its_arithmetic_at_most():
    assert multiplications(model.unet()) * 10 <= multiplications(model.autoencoder())


def test_an_untrained_unet_leaves_a_crop_nearly_as_it_is():
    crop = np.full((1, 224, 224, 3), 1.0, np.float32)
    crop[:, 100:110, 50:170] = 0.2
    answer = model.unet()(crop, training=False).numpy()
    assert np.abs(answer - crop).max() < 0.15
    assert np.array_equal(answer[..., 0], answer[..., 2])


def test_ssim_is_that_of_tensorflow():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (64, 80), np.uint8)
    second = np.clip(first + rng.normal(0, 30, first.shape), 0, 255).astype(np.uint8)
    reference = tf.image.ssim(first[..., None], second[..., None], 255).numpy()
    assert metrics.ssim(first, second) == pytest.approx(float(reference), abs=1e-4)
    assert metrics.ssim(first, first) == pytest.approx(1.0)


def test_figures_of_known_answers():
    clean = np.full((50, 50), 255, np.uint8)
    clean[10:20, 10:30] = 0
    half = clean.copy()
    half[10:15, 10:30] = 255
    found = metrics.measure([(half, clean, False), (clean, clean, True)])
    assert found["ink_precision"] == 1.0
    assert found["ink_recall"] == pytest.approx(0.5)
    assert found["ink_f1"] == pytest.approx(2 / 3)
    assert found["psnr"] == pytest.approx(10 * np.log10(2500 / 100))
    assert found["ink_f1_untouched"] == 1.0
    assert np.isfinite(found["psnr_untouched"])


def test_totals_of_ranks_add_up():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 2, 40, 40), np.uint8)
    whole, parts = metrics.Totals(), [metrics.Totals(), metrics.Totals()]
    for number, (found, clean) in enumerate(images):
        whole.add(found, clean)
        parts[number % 2].add(found, clean)
    assert (parts[0] + parts[1]).figures() == pytest.approx(whole.figures())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sets.of_sixteen_writers(tmp_path_factory.mktemp("signatures") / "set")


def train(data, model_dir, experiment, *flags, task=None, **changes):
    inputs = {
        "train_data": {"input_path": f"{data}/train*"},
        "validation_data": {"input_path": f"{data}/eval*"},
    }
    override = {"task": inputs | (task or {})} | changes
    options = ["--config_file=configs/cleaner/smoke.yaml", f"--params_override={json.dumps(override)}"]
    options += [*flags, f"--model_dir={model_dir}"]
    commands.run("training.train", f"--experiment={experiment}", *options, timeout=300)
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return {phase: [line for line in lines if line["phase"] == phase] for phase in ("train", "eval")}


def test_the_unet_learns_and_its_figures_are_all_there(data, tmp_path):
    settings = {"trainer": {"train_steps": 60}, "schedule": {"learning_rate": 0.01, "decay": "constant"}}
    lines = train(data, tmp_path, "cleaner_unet", **settings)
    losses = [line["training_loss"] for line in lines["train"]]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    found = lines["eval"][-1]
    names = ("psnr", "ssim", "rmse", "ink_precision", "ink_recall", "ink_f1")
    for name in (*names, *(f"{name}_untouched" for name in names)):
        assert np.isfinite(found[name])
    commands.run("training.train", "--experiment=cleaner_unet", "--mode=eval", f"--model_dir={tmp_path}")
    evaluated = json.loads((tmp_path / "measured.jsonl").read_text())
    for name in names:
        assert evaluated[name] == pytest.approx(found[name], rel=1e-5)


def test_the_autoencoder_trains_by_the_same_command(data, tmp_path):
    lines = train(data, tmp_path, "cleaner_autoencoder", trainer={"train_steps": 2})
    assert np.isfinite(lines["eval"][-1]["psnr"])


@pytest.mark.slow
def test_a_process_ends_when_its_training_does(data, tmp_path):
    """Also where pairs are still made ahead: the last of four workers is not even up after one step."""
    one = {"task": {"workers": 4}, "trainer": {"train_steps": 1}}
    assert train(data, tmp_path, "cleaner_unet", "--mode=train", **one)["train"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{task: {loss: huber}}", "task.loss must be one of"),
        ("{task: {model: {kind: gan}}}", "autoencoder or unet"),
        ("{task: {model: {filters: [8, 8, 8, 8, 8, 8]}}}", "1 to 5 positive numbers"),
        ("{task: {noise: {text: 1.5}}}", "task.noise.text is a probability"),
        ("{task: {noise: {txt: 0.5}}}", "Did you mean 'text'"),
    ],
)
def test_senseless_configs_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        config.build_task("cleaner_unet", config.load("cleaner_unet", [], override))


@pytest.mark.parametrize("name", ["cpu", "smoke", "1hpu", "8hpu"])
@pytest.mark.parametrize("experiment", ["cleaner_unet", "cleaner_autoencoder"])
def test_shipped_configs_load(name, experiment):
    loaded = config.load(experiment, [str(ROOT / f"configs/cleaner/{name}.yaml")])
    assert config.build_task(experiment, loaded)
