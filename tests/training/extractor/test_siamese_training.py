"""The Siamese verifier trained here: the published layers, one preprocessing, the .NET SDK's contract."""

import json

import commands
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from signver import SiameseVerifier
from signver import siamese as sdk
from training.data import signatures
from training.extractor import losses, siamese


def grey(writer, number=0):
    import io

    from PIL import Image

    page = signatures.synthesize(4, writer, number, signatures.GENUINE)
    return np.asarray(Image.open(io.BytesIO(page.image)).convert("L"))


@pytest.mark.parametrize("writer", range(5))
def test_training_and_sdk_prepare_alike(writer):
    ours, theirs = sdk.prepare(grey(writer)).astype(int), siamese.prepare(grey(writer)).astype(int)
    assert theirs.shape == (150, 220)
    assert np.abs(ours - theirs).max() <= 1  # whole numbers are cut on either side
    assert (ours != theirs).mean() < 0.001


def test_training_and_sdk_prepare_real_signatures_alike(shared_data):
    from PIL import Image

    for path in sorted((shared_data / "cedar").glob("full_*/*.png"))[::400]:
        picture = np.asarray(Image.open(path).convert("L"))
        assert np.abs(sdk.prepare(picture).astype(int) - siamese.prepare(picture)).max() <= 1


def test_without_ink_all_is_black():
    assert not siamese.prepare(np.full((50, 80), 255, np.uint8)).any()


def test_the_layers_are_the_published_ones():
    """15,800,355 trainable parameters there, of which the unused projection to two values has 4,098."""
    network = siamese.network()
    assert sum(int(tf.size(v)) for v in network.trainable_variables) == 15_800_355 - (2048 * 2 + 2)
    assert network.output_shape == (None, 2050)


def test_the_logit_of_a_pair_is_the_head_on_both_embeddings():
    network = siamese.network()
    images = np.random.default_rng(0).random((3, 150, 220, 1), np.float32)
    outputs = network(images).numpy()
    weights = np.concatenate([network.get_layer(n).get_weights()[0] for n in ("first", "second")])[:, 0]
    bias = network.get_layer("second").get_weights()[1][0]
    logits = siamese.pair_logits(tf.constant(outputs)).numpy()
    for one, two in ((0, 1), (1, 0), (2, 2)):
        pair = np.concatenate([outputs[one, :2048], outputs[two, :2048]])
        assert logits[one, two] == pytest.approx(float(pair @ weights + bias), abs=1e-4)


def test_the_head_is_told_what_is_forged():
    writers, forged = tf.constant([0, 0, 0, 1, 1]), tf.constant([0, 0, 1, 0, 0])
    right = np.full((5, 5), 9.0, np.float32)
    right[0, 1] = right[1, 0] = right[3, 4] = right[4, 3] = -9.0
    good = losses.pair_cross_entropy(tf.constant(right), writers, forged)
    assert float(good) < 0.01
    for row, column in ((0, 1), (0, 2), (0, 3)):
        wrong = right.copy()
        wrong[row, column] *= -1
        assert float(losses.pair_cross_entropy(tf.constant(wrong), writers, forged)) > float(good) + 0.4


@pytest.mark.slow
def test_it_trains_exports_and_is_proven_equal(tmp_path):
    data = signatures.write_samples(tmp_path, writers=6, genuine=4, forged=2)
    override = {
        "task": {
            "train_data": {"input_path": data, "global_batch_size": 12},
            "validation_data": {"input_path": data},
        },
        "trainer": {"train_steps": 8},
        "schedule": {"evaluations": 1, "base_batch": 12},
    }

    def command(*arguments):
        return commands.run(*arguments, timeout=400).stdout

    run, file = f"--model_dir={tmp_path}/run", tmp_path / "verifier.onnx"
    command(
        "training.train",
        "--experiment=extractor_siamese",
        "--config_file=configs/extractor/siamese.yaml",
        run,
        f"--params_override={json.dumps(override)}",
        "--device=cpu",
    )
    command("export", "onnx", run, "--checkpoint=last", f"--output={file}")
    # Eight steps part no embeddings; the values and the random pixels tell.
    options = ("--checkpoint=last", f"--onnx={file}", "--synthetic=12", "--minimum_detections=0")
    out = command("export", "validate", run, *options)
    assert "PASSED" in out
    session = onnxruntime.InferenceSession(str(file))
    assert [(v.name, v.type, v.shape) for v in session.get_inputs()] == [
        (name, "tensor(uint8)", [150, 220]) for name in ("input0", "input1")
    ]
    assert [(v.name, v.shape) for v in session.get_outputs()] == [
        ("output0", [1, 2048]),
        ("output1", [1, 2048]),
        ("output2", [1, 1]),
    ]
    assert SiameseVerifier().load(file).compare(grey(0), grey(0)).cosine == pytest.approx(1.0)
