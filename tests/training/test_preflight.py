"""The preflight: a model without a fault passes, and each fault is found by exactly the check it is for."""

import json
import pathlib
import time

import commands
import numpy as np
import pytest
import tensorflow as tf
from official.core import base_task, config_definitions

from training import config, device
from training.errors import UserError
from training.preflight import checks, cost, feed, gaudi, report, step
from training.preflight.__main__ import inspect

ROOT = pathlib.Path(__file__).parents[2]
BATCH, SIDE, FILTERS = 4, 16, 64
layers = tf.keras.layers


class Tiny(base_task.Task):
    """A convolution, a mean and a product, with room for one fault."""

    def __init__(self, fault=lambda x: x, filters=FILTERS, width=64):
        super().__init__(config_definitions.TaskConfig())
        self.fault, self.filters, self.width = fault, filters, width

    def build_model(self):
        image = tf.keras.Input((None, None, 64))
        x = layers.Conv2D(self.filters, 3, padding="same", activation="relu", use_bias=False, name="first")(
            image
        )
        x = tf.reduce_mean(self.fault(x), axis=(1, 2))
        return tf.keras.Model(image, layers.Dense(self.width, name="last", dtype=None)(x))

    def build_inputs(self, params, input_context=None):
        raise NotImplementedError("the step is traced from a specification")

    def build_losses(self, labels, model_outputs, aux_losses=None):
        return tf.reduce_mean(tf.square(tf.cast(model_outputs, tf.float32) - labels))


def traced(task=None, sides=(SIDE, SIDE), precision="bfloat16", optimizer="sgd"):
    device.set_precision(precision)
    try:
        task = task or Tiny()
        spec = (
            tf.TensorSpec([BATCH, *sides, 64], tf.float32),
            tf.TensorSpec([BATCH, task.width], tf.float32),
        )
        made = {"sgd": tf.keras.optimizers.legacy.SGD, "adam": tf.keras.optimizers.legacy.Adam}[optimizer]()
        return step.trace(task, task.build_model(), made, spec, BATCH)
    finally:
        device.set_precision("float32")


def faults(found):
    return {finding.check: finding for finding in found if finding.level not in (checks.OK, checks.NOTE)}


def six_dimensions(x):
    x = tf.reshape(x, [BATCH, SIDE, 1, SIDE, 1, FILTERS])
    return tf.reshape(tf.tile(x, [1, 1, 2, 1, 2, 1]), [BATCH, 2 * SIDE, 2 * SIDE, FILTERS])


def in_double(x):
    return tf.cast(tf.square(tf.cast(x, tf.float64)), x.dtype)


def by_value(x):
    flat = tf.reshape(x, [-1, FILTERS])
    kept = tf.gather(flat, tf.where(tf.reduce_max(flat, -1) > 0)[:, 0])
    return tf.reshape(tf.reduce_sum(kept, 0), [1, 1, 1, FILTERS]) + x


@tf.custom_gradient
def through_python(x):
    return tf.ensure_shape(tf.numpy_function(np.copy, [x], x.dtype), x.shape), lambda g: g


def test_a_model_without_a_fault_passes():
    assert faults(checks.check_graph(traced())) == {}


@pytest.mark.parametrize(
    ("fault", "check", "level", "named"),
    [
        (six_dimensions, "ranks", "BLOCK", "Tile"),
        (in_double, "dtypes", "BLOCK", "float64"),
        (layers.Lambda(through_python), "ops", "BLOCK", "PyFunc"),
        (tf.math.erfc, "ops", "warn", "Erfc"),
    ],
)
def test_a_fault_is_found_by_its_check_alone_and_named(fault, check, level, named):
    found = faults(checks.check_graph(traced(Tiny(fault))))
    assert set(found) == {check}
    assert found[check].level == level
    assert any(named in line for line in found[check].where), found[check].where
    assert found[check].advice


def test_an_image_of_any_size_is_a_dynamic_shape():
    found = faults(checks.check_graph(traced(sides=(None, None))))
    assert set(found) == {"shapes"}
    assert found["shapes"].where == ("input 0: [4,?,?,64]",)


def test_a_shape_that_values_decide_is_found_with_its_layer():
    found = faults(checks.check_graph(traced(Tiny(by_value))))
    assert found["shapes"].level == "BLOCK"
    assert any("(Where): gives [?,1]" in line for line in found["shapes"].where)


def test_channels_that_fill_no_tile_are_named_with_their_share():
    found = faults(checks.check_graph(traced(Tiny(filters=48))))
    assert set(found) == {"channels"}
    assert "first/Conv2D" in found["channels"].where[0]
    assert "48 channels" in found["channels"].where[0]


def test_filters_that_nobody_can_round_up_are_no_fault():
    def fixed(x):
        return tf.nn.conv2d(x, tf.ones([11, 11, 64, 16], x.dtype), 1, "SAME")

    assert checks.check_channels(traced(Tiny(fixed))).level == "ok"


def test_what_learns_counts_three_times():
    def odd(x):
        """A fifth of the first convolution's arithmetic forward, by 120 channels, and no gradient."""
        rows = tf.stop_gradient(tf.reshape(x, [BATCH, SIDE * SIDE, 64]))
        product = tf.matmul(rows, rows[:, :120], transpose_b=True)
        return x + tf.reduce_mean(product, axis=(1, 2), keepdims=True)[..., tf.newaxis]

    finding = checks.check_channels(traced(Tiny(odd)))
    assert finding.level == "ok"
    assert finding.summary.endswith("6% in neither")


def test_fixed_filters_in_float32_are_told_apart():
    def fixed(x):
        exact = tf.cast(tf.stop_gradient(x), tf.float32)
        return x + tf.cast(tf.nn.conv2d(exact, tf.ones([3, 3, 64, 64]), 1, "SAME"), x.dtype)

    finding = checks.check_precision(traced(Tiny(fixed)))
    assert finding.level == "ok"
    # The first convolution runs twice, since nothing before it learns.
    assert finding.summary == "100% of the arithmetic is in bfloat16; fixed filters in float32 add 50%"


def test_float32_arithmetic_is_said():
    found = faults(checks.check_graph(traced(precision="float32")))
    assert set(found) == {"precision"}
    assert found["precision"].summary.startswith("0%")


def test_what_only_the_counter_needs_is_no_fault():
    """The step counter is int64 in every optimizer; it stays on the host."""
    nodes = traced(optimizer="adam").nodes
    assert any(value.dtype == "int64" for node in nodes for value in node.outputs)
    assert checks.check_dtypes(traced(optimizer="adam")).level == "ok"


@pytest.mark.parametrize(
    ("batch", "cards", "level", "advice"),
    [(64, 8, "ok", ""), (60, 8, "BLOCK", "56 or 64"), (3, 8, "BLOCK", "8 or 8")],
)
def test_the_batch_divides_by_the_cards(batch, cards, level, advice):
    finding = checks.check_batch(batch, cards)
    assert finding.level == level
    assert advice in finding.advice


def test_memory_is_the_sum_of_what_one_can_count_by_hand():
    memory = cost.memory(traced(optimizer="adam", precision="float32"))
    weights = 4 * (3 * 3 * 64 * FILTERS + FILTERS * 64 + 64)
    assert memory["weights"] == memory["gradients"] == weights
    assert memory["optimizer"] == 2 * weights + 8  # Adam's two slots, and its counter
    # The relu's answer for its own gradient, the mean for the product's, the answer for the loss's.
    relu, mean, difference = 4 * BATCH * SIDE * SIDE * FILTERS, 4 * BATCH * FILTERS, 4 * BATCH * 64
    assert memory["activations"] == relu + mean + difference


def test_memory_beyond_the_card_blocks():
    memory = cost.memory(traced())
    assert checks.check_memory(memory, 2 * memory["total"]).level == "ok"
    assert checks.check_memory(memory, 1.1 * memory["total"]).level == "warn"
    assert checks.check_memory(memory, 0.9 * memory["total"]).level == "BLOCK"


def test_arithmetic_is_that_of_a_convolution_and_a_product():
    forward, total = cost.arithmetic(traced())
    convolution, product = 2 * SIDE * SIDE * FILTERS * 9 * 64, 2 * FILTERS * 64
    assert forward == convolution + product
    # Backwards the first layer needs no gradient of its input.
    assert total == 2 * convolution + 3 * product


def test_transposed_and_depthwise_convolutions_count_their_own_arithmetic():
    def both(x):
        x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", use_bias=False)(x)
        return layers.DepthwiseConv2D(5, padding="same", use_bias=False)(x)

    plain, _ = cost.arithmetic(traced(Tiny(width=1)))
    forward, _ = cost.arithmetic(traced(Tiny(both, width=1)))
    transposed = 2 * SIDE * SIDE * FILTERS * 9 * 32
    depthwise = 2 * (2 * SIDE) ** 2 * 32 * 25
    assert forward - plain == transposed + depthwise - 2 * FILTERS + 2 * 32


def test_resnet_50_takes_its_published_arithmetic():
    model = tf.keras.applications.ResNet50(weights=None)

    class Whole(Tiny):
        def build_model(self):
            return model

    task = Whole(width=1000)
    spec = (tf.TensorSpec([1, 224, 224, 3]), tf.TensorSpec([1, 1000]))
    found = step.trace(task, model, tf.keras.optimizers.legacy.SGD(0.1), spec, 1)
    forward, total = cost.arithmetic(found)
    assert forward == pytest.approx(2 * 3.86e9, rel=0.02)  # keras.io and He et al. 2016: 3.8 G multiply-adds
    assert 2.9 < total / forward < 3.0


def test_averaging_is_two_rings():
    gigabyte = 1e9
    assert cost.all_reduce_seconds(gigabyte, 1, 1) == 0
    eight = cost.all_reduce_seconds(gigabyte, 8, 1)
    assert eight == pytest.approx(2 * 7 / 8 * 8e9 / gaudi.CARD_LINK_BITS)
    assert cost.all_reduce_seconds(gigabyte, 16, 2) == pytest.approx(eight + 8e9 / gaudi.HOST_LINK_BITS)


def test_gradients_larger_than_the_work_are_warned_of():
    large = cost.run_cost(traced(Tiny(width=100_000)), cost.Cards(cards=8), 10, 32, 100)
    assert checks.check_all_reduce(large).level == "warn"
    alone = cost.run_cost(traced(Tiny(width=100_000)), cost.Cards(cards=1), 10, 32, 100)
    assert checks.check_all_reduce(alone).level == "ok"


def test_hours_and_dollars_follow_from_the_steps():
    cards = cost.Cards(cards=16, hosts=2, utilization=0.5, price=10.0)
    run = cost.run_cost(traced(), cards, steps=1000, global_batch=64, records=6400)
    assert run["epochs"] == 10
    assert run["hours"] == pytest.approx(1000 * run["step_seconds"] / 3600)
    assert run["dollars"] == pytest.approx(20 * run["hours"])
    assert run["images_per_second"] == pytest.approx(64 / run["step_seconds"])


def test_the_input_is_timed_by_the_processor_time_it_takes():
    def images():
        while True:
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
            yield np.zeros(3, np.float32)

    data = tf.data.Dataset.from_generator(images, output_signature=tf.TensorSpec([3])).batch(4)
    found = feed.measure(data, 4, 0.3)
    assert found["cpu_seconds_per_image"] >= 0.01 * (1 - 1e-6)  # differences of floats
    assert found["images_per_second"] <= 101


@pytest.mark.parametrize(("needed", "level"), [(50, "ok"), (120, "warn"), (250, "BLOCK")])
def test_processors_that_cannot_feed_the_cards_are_said(needed, level):
    assert checks.check_input(needed, 96).level == level


@pytest.mark.parametrize(
    ("name", "model", "cards"),
    [
        ("retinanet_signverod", "detector", 1),
        ("retinanet_signverod", "detector", 8),
        ("cleaner_unet", "cleaner", 1),
        ("cleaner_unet", "cleaner", 8),
        ("cleaner_autoencoder", "cleaner", 8),
        ("extractor_metric", "extractor", 1),
        ("extractor_metric", "extractor", 8),
    ],
)
def test_the_shipped_configs_pass(name, model, cards):
    file = ROOT / "configs" / model / f"{cards}hpu.yaml"
    experiment = config.load(name, [str(file)], "{task: {train_data: {input_path: /nothing/here*}}}")
    try:
        # To time the input of a card takes half a minute, and depends on what else this machine does.
        findings, figures = inspect(name, experiment, cost.Cards(cards=cards), seconds=0)
    finally:
        device.set_precision("float32")
    assert faults(findings) == {}
    assert figures["input"]["sample_data"]
    assert 0.05e9 < figures["memory"]["total"] < 0.8 * gaudi.MEMORY_BYTES


def preflight(*arguments):
    return commands.run("training.preflight", *arguments, code=None, timeout=300)


def test_a_blocked_config_ends_with_one_and_names_the_layer():
    override = (
        "{runtime: {mixed_precision_dtype: bfloat16}, task: {train_data: {input_path: /nothing*}, "
        "model: {decoder: {fpn: {use_keras_layer: false}}}}}"
    )
    done = preflight(
        "--experiment=retinanet_signverod",
        "--config_file=configs/detector/smoke.yaml",
        f"--params_override={override}",
        "--seconds=0.1",
        "--json",
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    ranks = next(row for row in found["findings"] if row["check"] == "ranks")
    assert found["blocked"]
    assert ranks["level"] == "BLOCK"
    assert any("fpn" in line for line in ranks["where"])
    assert found["run"]["dollars"] > 0
    assert found["input"]["images_per_second"] > 0
    assert found["input"]["vcpus_needed"] > 0


def test_a_report_for_people_says_what_was_not_timed():
    experiment = config.load(
        "extractor_metric",
        [str(ROOT / "configs/extractor/smoke.yaml")],
        "{task: {train_data: {input_path: /nothing*}}}",
    )
    cards = cost.Cards()
    text = report.to_text("preflight", *inspect("extractor_metric", experiment, cards, seconds=0), cards)
    assert "not timed" in text
    assert "images (assumed)" in text


def test_mistakes_in_the_command_are_said_in_a_line():
    done = preflight("--experiment=cleaner_unet", "--config_file=configs/nothing.yaml")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --config_file configs/nothing.yaml: No such file or directory."
    assert preflight("--experiment=cleaner_unet", "--cards=0").returncode == 2


def test_a_wrong_config_is_refused_before_anything_is_made():
    with pytest.raises(UserError, match=r"unknown key 'task\.modle'"):
        config.load("cleaner_unet", [], "{task: {modle: 3}}")
