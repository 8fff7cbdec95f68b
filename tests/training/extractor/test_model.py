"""What the extractor knows before it is trained, and how density changes a cosine."""

import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.data import signatures
from training.extractor import model as network
from training.extractor.preprocessing import normalise

KNOWN = ("histograms", "hinges")


@pytest.fixture(scope="module")
def images():
    pages = [
        signatures.synthesize(3, writer, number, signatures.GENUINE)
        for writer in range(20)
        for number in range(2)
    ]
    greys = [np.asarray(Image.open(io.BytesIO(page.image)).convert("L")) for page in pages]
    return np.stack([np.round(normalise(grey) * 255) for grey in greys]).astype(np.uint8)


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def drawn(*lines):
    """White lines on a black picture, float32 [1, 96, 192, 1]: each a list of (x, y)."""
    picture = np.zeros((96, 192), np.uint8)
    for line in lines:
        cv2.polylines(picture, [np.array(line, np.int32)], False, 255, 3, cv2.LINE_AA)
    return picture[np.newaxis, ..., np.newaxis].astype(np.float32) / 255


def test_hinges_say_how_strokes_bend_and_not_where():
    hinges = network.Hinges()
    corner = hinges(drawn([(40, 20), (40, 60), (90, 60)]))[0].numpy()
    moved = hinges(drawn([(80, 30), (80, 70), (130, 70)]))[0].numpy()
    # The second stroke turns back instead of aside.
    sharp = hinges(drawn([(40, 20), (40, 60), (80, 25)]))[0].numpy()
    assert corner.shape == (120,)
    assert np.linalg.norm(corner) == pytest.approx(1, abs=1e-5)
    assert corner @ moved > 0.999
    assert corner @ sharp < 0.95
    pairs = dict(zip(zip(*np.triu_indices(16, 1), strict=True), corner, strict=True))
    # Rays go clockwise from the right by 22.5 degrees. Both strokes' own ways on outweigh a way that neither
    # goes, and the corner that is there one that is not.
    assert pairs[4, 12] > 3 * pairs[2, 10]
    assert pairs[0, 8] > 3 * pairs[2, 10]
    assert pairs[0, 12] > pairs[4, 8]


@pytest.mark.parametrize("filters", [[8, 8], []])
def test_the_embedding_starts_as_the_principal_components_of_what_is_known(images, filters):
    model = network.extractor(filters, embedding=64)
    network.start_from(model, images)
    pixels = images[..., np.newaxis].astype(np.float32) / 255
    known = [tf.keras.Model(model.input, model.get_layer(name).output)(pixels).numpy() for name in KNOWN]
    found = model(pixels).numpy()
    assert found.shape == (40, 64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    # Forty pictures differ in 39 directions, which 63 components hold.
    # Hinges count half as far.
    spread = [part - part.mean(axis=0) for part in known]
    spread = [part / np.sqrt(np.mean(np.sum(part**2, axis=1))) for part in spread]
    expected = cosines(np.concatenate([spread[0], 0.5 * spread[1]], axis=1))
    np.testing.assert_allclose(cosines(found[:, :-1]), expected, atol=1e-3)
    spread = model.get_layer("embedding").get_weights()[0]
    assert np.trace(spread) == pytest.approx(1, abs=1e-4)
    # Signatures of one writer are nearer than those of two before anything is learned.
    near = cosines(found)
    pairs = np.array([near[2 * writer, 2 * writer + 1] for writer in range(20)])
    others = near[~np.kron(np.eye(20, dtype=bool), np.ones((2, 2), bool))]
    assert np.median(pairs) > np.quantile(others, 0.95)


def test_an_embedding_may_be_longer_than_what_is_known(images):
    model = network.extractor([8], embedding=800)
    network.start_from(model, images)
    found = model(images[:3, ..., np.newaxis].astype(np.float32) / 255).numpy()
    assert found.shape == (3, 800)
    assert np.isfinite(found).all()


def test_an_empty_picture_has_a_defined_embedding(images):
    model = network.extractor([8, 8], embedding=64)
    network.start_from(model, images)
    for level in (0.0, 1.0):
        found = model(np.full((1, 96, 192, 1), level, np.float32)).numpy()
        assert np.isfinite(found).all()
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-4)


def test_among_many_alike_a_cosine_counts_for_less():
    layer = network.Density()
    rows = np.zeros((4, 6), np.float32)
    # Two pairs of one cosine, 0.8: among directions that strangers take often, and among rare ones.
    rows[0, 0], rows[1, :2] = 1, (0.8, 0.6)
    rows[2, 3], rows[3, 3:5] = 1, (0.8, 0.6)
    layer(rows)
    layer.set_weights([np.diag([0.04, 0.04, 0.04, 0.0025, 0.0025, 0.0025]).astype(np.float32)])
    found = layer(rows).numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    common, rare = found[0] @ found[1], found[2] @ found[3]
    assert common < rare - 0.03
    share = 0.5 * (1 - 2 * 0.2) ** -0.75
    assert common == pytest.approx(0.8 * share**2 + 1 - share**2, abs=1e-5)


def test_density_is_learned_in_training_alone():
    layer = network.Density()
    rows = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32) * (3, 1, 1, 1, 1)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    layer(rows)
    assert not layer.get_weights()[0].any()
    for _ in range(400):
        layer(rows, training=True)
    np.testing.assert_allclose(layer.get_weights()[0], rows.T @ rows / 500, atol=0.02)


def test_the_whole_of_density_can_be_learned_through():
    """Slopes stay finite for what is most and least dense."""
    layer = network.Density()
    rows = tf.constant(np.eye(3, dtype=np.float32))
    layer(rows)
    layer.set_weights([np.diag([1.0, 0.0, 0.1]).astype(np.float32)])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        found = layer(rows)
        loss = tf.reduce_sum(found * tf.constant(np.arange(12, dtype=np.float32).reshape(3, 4)))
    assert np.isfinite(tape.gradient(loss, rows).numpy()).all()
