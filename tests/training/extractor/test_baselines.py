"""Direction histograms say what direction strokes have, where; and nothing of how they were drawn."""

import cv2
import numpy as np

from training.extractor.baselines import direction_histograms


def stroke(start, end, width=3):
    image = np.zeros((192, 384), np.uint8)
    cv2.line(image, *(tuple(2 * place for place in end) for end in (start, end)), 255, 2 * width)
    return image


def test_a_direction_fills_its_own_bins():
    level, upright, rising = direction_histograms(
        np.stack([stroke((40, 48), (150, 48)), stroke((96, 10), (96, 86)), stroke((60, 80), (130, 10))])
    ).reshape(3, 8, -1)
    strongest = [int(found.sum(axis=1).argmax()) for found in (level, upright, rising)]
    # The gradient of a level stroke points down: a quarter turn from that of an upright one.
    assert strongest[:2] == [4, 0]
    assert strongest[2] in (1, 2)


def test_what_moves_little_or_is_thicker_stays_near():
    base, near, thick, far = direction_histograms(
        np.stack(
            [
                stroke((40, 48), (150, 48)),
                stroke((43, 50), (152, 49)),
                stroke((40, 48), (150, 48), 5),
                stroke((40, 20), (150, 80)),
            ]
        )
    )
    assert abs(np.linalg.norm(base) - 1) < 1e-5
    assert min(base @ near, base @ thick) > 0.9 > base @ far


def test_a_picture_without_ink_is_no_number_lost():
    assert np.array_equal(direction_histograms(np.zeros((1, 192, 384), np.uint8)), np.zeros((1, 576)))
