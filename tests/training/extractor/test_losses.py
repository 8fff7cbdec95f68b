"""Losses: small where genuine pairs are near and forgeries far, large the other way; descent parts them."""

import numpy as np
import pytest
import tensorflow as tf

from training.extractor.experiment import LOSS_NAMES
from training.extractor.losses import LOSSES

WRITERS = tf.constant([0, 0, 0, 1, 1, 1])
FORGED = tf.constant([0, 0, 1, 0, 0, 1])
SETTINGS = {"scale": 12.0, "margin": 0.2, "skilled": 4.0}


def value(name, angles, writers=WRITERS, forged=FORGED, **options):
    embeddings = tf.stack([tf.cos(angles), tf.sin(angles)], axis=1)
    return float(LOSSES[name](embeddings, writers, forged, **(SETTINGS | options)))


def test_the_config_knows_every_loss():
    assert set(LOSS_NAMES) == set(LOSSES)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_order_of_good_and_bad(name):
    good = value(name, tf.constant([0.0, 0.05, 1.5, 3.0, 3.05, 4.6]))
    forged_near = value(name, tf.constant([0.0, 0.05, 0.02, 3.0, 3.05, 4.6]))
    writers_near = value(name, tf.constant([0.0, 0.05, 1.5, 0.02, 0.03, 4.6]))
    genuine_apart = value(name, tf.constant([0.0, 1.5, 3.0, 3.6, 5.1, 2.3]))
    assert good < min(forged_near, writers_near, genuine_apart)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_forgeries_are_no_anchors_and_no_friends(name):
    """Two forgeries of one writer may lie anywhere: moving one about, far from all, changes nothing."""
    writers, forged = tf.constant([0, 0, 0, 0, 1, 1]), tf.constant([0, 0, 1, 1, 0, 0])
    far = value(name, tf.constant([0.0, 0.1, 2.9, 3.0, 1.5, 1.6]), writers, forged, scale=60.0)
    apart = value(name, tf.constant([0.0, 0.1, 2.9, 3.3, 1.5, 1.6]), writers, forged, scale=60.0)
    assert far == pytest.approx(apart, abs=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_skilled_forgery_counts_as_much_as_it_is_told_to(name):
    angles = tf.constant([0.0, 0.3, 0.2, 3.0, 3.3, 3.2])
    assert (
        value(name, angles, skilled=8.0) > value(name, angles, skilled=1.0) > value(name, angles, skilled=0.1)
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(
    ("writers", "forged"),
    [([0, 1, 2, 3], [0, 0, 0, 0]), ([0, 0, 0, 0], [1, 1, 1, 1]), ([0, 0, 1, 1], [0] * 4)],
)
def test_a_batch_without_some_kind_of_pair_has_a_finite_loss_and_slope(name, writers, forged):
    raw = tf.Variable(tf.random.stateless_normal([4, 8], [1, 2]))
    with tf.GradientTape() as tape:
        loss = LOSSES[name](
            tf.math.l2_normalize(raw, 1), tf.constant(writers), tf.constant(forged), **SETTINGS
        )
    gradient = tape.gradient(loss, raw)
    assert np.isfinite(loss.numpy())
    assert np.isfinite(gradient.numpy()).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_descent_parts_forgeries_from_genuine(name):
    settings = SETTINGS | ({"margin": 1.0} if name == "contrastive" else {})  # it stops at its margin
    raw = tf.Variable(tf.random.stateless_normal([6, 8], [3, 4]))
    optimizer = tf.keras.optimizers.legacy.Adam(0.05)
    for _ in range(150):
        with tf.GradientTape() as tape:
            loss = LOSSES[name](tf.math.l2_normalize(raw, 1), WRITERS, FORGED, **settings)
        optimizer.apply_gradients([(tape.gradient(loss, raw), raw)])
    unit = tf.math.l2_normalize(raw, 1).numpy()
    cosine = unit @ unit.T
    assert min(cosine[0, 1], cosine[3, 4]) > max(cosine[0, 2], cosine[1, 2], cosine[0, 3], cosine[3, 5]) + 0.3
