"""What the extractor knows before it is trained, and how density changes a cosine."""

import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.data import signatures
from training.extractor import metrics
from training.extractor import model as network
from training.extractor.preprocessing import normalise

KNOWN = {"histograms": 1.0, "hinges": 1.4, "pairs": 1.0, "shapes": 1.0}


def written(writers, count):
    """Genuine signatures as `start_from` takes them."""
    pages = [
        signatures.synthesize(3, writer, number, signatures.GENUINE)
        for writer in writers
        for number in range(count)
    ]
    greys = [np.asarray(Image.open(io.BytesIO(page.image)).convert("L")) for page in pages]
    images = np.stack([np.round(normalise(grey) * 255) for grey in greys]).astype(np.uint8)
    return images, np.repeat(np.array(writers), count), np.zeros(len(images), bool)


@pytest.fixture(scope="module")
def some():
    """Two signatures each of twenty writers."""
    return written(range(20), 2)


@pytest.fixture(scope="module")
def images(some):
    return some[0]


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def scatter(rows):
    """How far the two signatures of a writer are apart, against two of different writers."""
    alike, writers = cosines(rows), np.arange(len(rows)) // 2
    own = alike[np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)]
    return (1 - own.mean()) / (1 - alike[writers[:, np.newaxis] != writers].mean())


def drawn(*lines):
    """White lines on a black picture, float32 [1, 192, 384, 1]: each a list of (x, y)."""
    picture = np.zeros((192, 384), np.uint8)
    for line in lines:
        cv2.polylines(picture, [np.array(line, np.int32)], False, 255, 6, cv2.LINE_AA)
    return picture[np.newaxis, ..., np.newaxis].astype(np.float32) / 255


def test_hinges_say_how_strokes_bend_and_not_where():
    hinges = network.Hinges()
    corner = hinges(drawn([(80, 40), (80, 120), (180, 120)]))[0].numpy()
    moved = hinges(drawn([(160, 60), (160, 140), (260, 140)]))[0].numpy()
    # The second stroke turns back instead of aside.
    sharp = hinges(drawn([(80, 40), (80, 120), (160, 50)]))[0].numpy()
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


def test_pairs_are_directions_some_way_apart():
    strokes = np.random.default_rng(0).random((2, 24, 48, 8)).astype(np.float32)
    found = network.Pairs()(strokes).numpy().reshape(2, 8, 8, 8)
    np.testing.assert_allclose(np.linalg.norm(found.reshape(2, -1), axis=1), 1, atol=1e-5)
    counts = np.zeros((8, 8, 8))
    for way, (down, across) in enumerate([(0, 2), (2, 0), (2, 2), (2, -2), (0, 4), (4, 0), (4, 4), (4, -4)]):
        for row in range(24 - down):
            for column in range(max(0, -across), 48 - max(0, across)):
                counts[..., way] += np.outer(strokes[1, row, column], strokes[1, row + down, column + across])
    expected = np.sqrt(counts)
    np.testing.assert_allclose(found[1], expected / np.linalg.norm(expected), atol=1e-5)


def strokes_of(images):
    return network.StrokeDirections()(images[..., np.newaxis].astype(np.float32) / 255).numpy()


def test_shapes_are_summed_by_kind(images):
    """Against descriptors written out cell by cell."""
    strokes = strokes_of(images)
    layer = network.Shapes()
    layer(strokes[:1])
    layer.learn(strokes)
    axes, middle, sharpness, kinds = layer.get_weights()
    assert axes.shape == (72, 40)
    assert kinds.shape == (64, 42)
    total, away = np.zeros(64), np.zeros((64, 42))
    # The lower right border averages what there is.
    soft = np.zeros((48, 96, 8))
    for row, column in np.ndindex(48, 96):
        soft[row, column] = strokes[0, row : row + 2, column : column + 2].mean(axis=(0, 1)) + 1e-6
    for row, column in np.ndindex(48, 96):
        cells = [(row + down, column + across) for down in (-2, 0, 2) for across in (-2, 0, 2)]
        nine = [soft[y, x] if 0 <= y < 48 and 0 <= x < 96 else np.zeros(8) for y, x in cells]
        shape = np.sqrt(np.concatenate(nine))
        place = 1.5 * (2 * row - 47) / 48, 1.5 * (2 * column - 95) / 96
        values = np.concatenate([shape / np.linalg.norm(shape) @ axes + middle, place])
        near = np.exp(-sharpness * ((values - kinds) ** 2).sum(axis=1))
        shares = near / near.sum() * (shape**2).sum()
        total += shares
        away += shares[:, np.newaxis] * (values - kinds)
    away /= np.sqrt(total + 1e-3)[:, np.newaxis]
    expected = (away / np.sqrt(np.abs(away) + 1e-2)).ravel()
    found = layer(strokes[:1]).numpy()[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-4)


def test_shapes_tell_letters_apart_wherever_they_stand(images):
    layer = network.Shapes()
    layer(strokes_of(images[:1]))
    layer.learn(strokes_of(images))

    def made(write, left):
        picture = np.zeros((192, 384), np.uint8)
        for place in range(left, left + 100, 25):
            write(picture, place)
        return layer(strokes_of(picture[np.newaxis])).numpy()[0]

    def ring(picture, left):
        cv2.circle(picture, (left, 48), 9, 255, 3, cv2.LINE_AA)

    def corner(picture, left):
        cv2.polylines(
            picture, [np.array([(left - 9, 39), (left, 57), (left + 9, 39)])], False, 255, 3, cv2.LINE_AA
        )

    assert np.linalg.norm(made(ring, 40)) == pytest.approx(1, abs=1e-5)
    assert made(ring, 40) @ made(ring, 45) > 0.8
    assert made(ring, 40) @ made(corner, 40) < 0.6


def test_too_few_shapes_leave_kinds_as_they_are(images):
    layer = network.Shapes()
    empty = np.zeros((3, 48, 96, 8), np.float32)
    layer(empty)
    before = layer.get_weights()
    layer.learn(empty)
    for found, expected in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.isfinite(layer(empty).numpy()).all()


@pytest.mark.parametrize("filters", [[8, 8], []])
def test_the_embedding_starts_as_the_principal_components_of_what_is_known(some, images, filters):
    model = network.extractor(filters, embedding=64)
    network.start_from(model, *some)
    pixels = images[..., np.newaxis].astype(np.float32) / 255
    known = [tf.keras.Model(model.input, model.get_layer(name).output)(pixels).numpy() for name in KNOWN]
    found = model(pixels).numpy()
    assert found.shape == (40, 64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    # Forty pictures differ in 39 directions, which 63 components hold.
    spread = [part - part.mean(axis=0) for part in known]
    spread = [
        weight * part / np.sqrt(np.mean(np.sum(part**2, axis=1)))
        for weight, part in zip(KNOWN.values(), spread, strict=True)
    ]
    units = tf.keras.Model(model.input, model.get_layer("whitening").input)(pixels).numpy()
    np.testing.assert_allclose(cosines(units), cosines(np.concatenate(spread, axis=1)), atol=1e-3)
    # What varies within writers counts for less against what tells them apart.
    assert scatter(found[:, :-1]) < 0.8 * scatter(units)
    spread = model.get_layer("embedding").get_weights()[0]
    assert np.trace(spread) == pytest.approx(1, abs=1e-4)
    # Signatures of one writer are nearer than those of two before anything is learned.
    near = cosines(found)
    pairs = np.array([near[2 * writer, 2 * writer + 1] for writer in range(20)])
    others = near[~np.kron(np.eye(20, dtype=bool), np.ones((2, 2), bool))]
    assert np.median(pairs) > np.quantile(others, 0.95)


def test_an_embedding_may_be_longer_than_what_is_known(some, images, monkeypatch):
    monkeypatch.setattr(network.Shapes, "_KINDS", 4)
    model = network.extractor([8], embedding=1500)
    assert model.get_layer("known").output.shape[-1] < 1499
    network.start_from(model, *some)
    found = model(images[:3, ..., np.newaxis].astype(np.float32) / 255).numpy()
    assert found.shape == (3, 1500)
    assert np.isfinite(found).all()


def test_without_two_signatures_of_a_writer_nothing_is_whitened(images):
    model = network.extractor([], embedding=64)
    network.start_from(model, images, np.arange(len(images)), np.zeros(len(images), bool))
    kernel, bias = model.get_layer("whitening").get_weights()
    np.testing.assert_allclose(kernel, kernel[0, 0] * np.eye(63), atol=1e-6)
    assert not bias.any()
    # Forgeries are not of the writer's hand.
    network.start_from(model, images, np.zeros(len(images), int), np.ones(len(images), bool))
    kernel, _ = model.get_layer("whitening").get_weights()
    np.testing.assert_allclose(kernel, kernel[0, 0] * np.eye(63), atol=1e-6)


def test_an_extractor_is_adapted_to_new_writers(some):
    model = network.extractor([], embedding=128)
    network.start_from(model, *some)
    # Other writers, on whose pictures a smear lies that is another each time: their scanner's, say.
    images, writers, forged = written(range(100, 116), 4)
    rng = np.random.default_rng(0)
    for image in images:
        left, top = int(rng.integers(0, 300)), int(rng.integers(0, 40))
        for row in (top, top + 1):
            image[row::48, left : left + 80] = 200
    learned, held = writers < 108, writers >= 108
    before = network.embed(model, images)
    network.adapt(model, images[learned], writers[learned], forged[learned])
    after = network.embed(model, images)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-4)
    assert np.trace(model.get_layer("embedding").get_weights()[0]) == pytest.approx(1, abs=1e-3)

    def error(rows):
        scores = metrics.pair_scores(rows[held], writers[held], forged[held])
        return metrics.random_eer(scores)

    assert error(before) > 0.05
    assert error(after) < 0.9 * error(before)


def test_an_empty_picture_has_a_defined_embedding(some):
    model = network.extractor([8, 8], embedding=64)
    network.start_from(model, *some)
    for level in (0.0, 1.0):
        found = model(np.full((1, 192, 384, 1), level, np.float32)).numpy()
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
