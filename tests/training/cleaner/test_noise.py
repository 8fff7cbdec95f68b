"""Paired noise: keyed, in bounds, ink kept, every layer does something and none touches the target."""

import dataclasses

import cv2
import numpy as np
import pytest

from training.cleaner.noise import SIDE, Draws, NoiseLevels, make_pair
from training.data import signatures

NONE = {field.name: 0.0 for field in dataclasses.fields(NoiseLevels)}
LAYERS = ["lines", "text", "stamp", "neighbour", "bleed", "speckle", "paper", "jpeg"]


@pytest.fixture(scope="module")
def ink():
    page = signatures.synthesize(1, 3, 0, signatures.GENUINE)
    found = next(signatures.inked([page]))
    scale = 300 / max(found.shape)
    return cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def pair(ink, key, **changes):
    noisy, clean = np.zeros((2, SIDE, SIDE), np.uint8)
    make_pair(ink, NoiseLevels(**changes), Draws(*key), noisy, clean)
    return noisy, clean


def test_the_key_decides_the_pair(ink):
    first, again = pair(ink, (5, 17)), pair(ink, (5, 17))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    others = [pair(ink, key)[0] for key in ((5, 18), (6, 17), (17, 5))]
    assert not any(np.array_equal(first[0], other) for other in others)


def test_the_draws_are_uniform_for_neighbouring_keys():
    values = np.array([Draws(3, key).uniform() for key in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("key", range(20))
def test_without_noise_input_and_target_are_one(ink, key):
    noisy, clean = pair(ink, (0, key), **NONE)
    assert np.array_equal(noisy, clean)
    # All of the ink is in the crop, dark on white, and nothing is stretched out of the square.
    assert clean.min() < 160
    assert (clean == 255).mean() > 0.5


@pytest.mark.parametrize("key", range(20))
def test_untouched_crops_stay_clean_whatever_else_is_asked_for(ink, key):
    noisy, clean = pair(ink, (1, key), **(dict.fromkeys(NONE, 1.0) | {"bilevel": key % 2}))
    assert np.array_equal(noisy, clean)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_changes_the_input_and_never_the_target(ink, layer):
    changed = 0
    for key in range(12):
        noisy, clean = pair(ink, (2, key), **(NONE | {layer: 1.0}))
        bare = pair(ink, (2, key), **NONE)[1]
        changed += not np.array_equal(noisy, clean)
        # The same key draws the same signature, whatever is laid over it.
        assert np.array_equal(clean, bare)
    assert changed >= 9


@pytest.mark.parametrize("layer", ["lines", "text", "stamp"])
def test_noise_crosses_the_ink_and_darkens_it(ink, layer):
    crossed = 0
    for key in range(30):
        noisy, clean = pair(ink, (3, key), **(NONE | {layer: 1.0}))
        stroke = (clean < 200) & (clean > 40)
        assert (noisy <= clean.astype(int) + 1).all(), "what is laid over paper never brightens it"
        crossed += bool((noisy[stroke] < clean[stroke].astype(int) - 5).any())
    assert crossed >= 8


def test_a_bilevel_scan_is_black_and_white_in_both(ink):
    for key in range(10):
        noisy, clean = pair(ink, (4, key), **(NONE | {"bilevel": 1.0}))
        for image in (noisy, clean):
            # Reduced from one and a half times the size, edges may be grey; areas may not.
            assert ((image < 10) | (image > 245)).mean() > 0.85


def test_a_padded_crop_keeps_its_shape_and_white_around(ink):
    wide = ink[: ink.shape[0] // 2] if ink.shape[0] > ink.shape[1] else ink
    for key in range(10):
        noisy, _ = pair(wide, (5, key), **(NONE | {"padded": 1.0, "paper": 1.0, "speckle": 1.0}))
        outside = (noisy == 255).all(axis=1)
        assert outside[0] or outside[-1]


def test_extreme_signatures_are_no_trouble():
    for shape in ((1, 1), (1, 320), (320, 1), (3, 3)):
        noisy, clean = pair(np.zeros(shape, np.uint8), (6, *shape))
        assert noisy.shape == clean.shape == (SIDE, SIDE)
