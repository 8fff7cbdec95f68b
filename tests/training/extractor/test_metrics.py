"""Error rates against what one can count by hand, or what a normal distribution says."""

import itertools
import math

import numpy as np
import pytest

from signver.index import Template
from training.data import leaks
from training.extractor import metrics, shortcuts


def normal(seed=0, apart=2.0, count=40_000):
    rng = np.random.default_rng(seed)
    return rng.normal(apart, 1, count), rng.normal(0, 1, count)


def test_rates_of_a_handful_of_scores():
    positive, negative = np.array([0.9, 0.8, 0.4]), np.array([0.7, 0.3, 0.2, 0.1])
    assert metrics.area_under_curve(positive, negative) == pytest.approx(11 / 12)
    # At 0.4 nothing genuine is rejected and one of four accepted; above it one of three is rejected.
    rate, threshold = metrics.equal_error_rate(positive, negative)
    assert 0.4 <= threshold <= 0.7
    assert rate == pytest.approx(0.25)
    assert metrics.acceptance_at(positive, negative, 0.01) == 0.25


def test_two_normal_distributions_have_the_rate_of_the_book():
    positive, negative = normal()
    expected = 0.5 * math.erfc(1 / math.sqrt(2))  # half the distance lies at one standard deviation
    rate, threshold = metrics.equal_error_rate(positive, negative)
    assert rate == pytest.approx(expected, abs=0.004)
    assert threshold == pytest.approx(1.0, abs=0.03)
    assert metrics.area_under_curve(positive, negative) == pytest.approx(0.5 * math.erfc(-2 / 2), abs=0.004)


@pytest.mark.parametrize(("apart", "rate"), [(100.0, 0.0), (-100.0, 1.0), (0.0, 0.5)])
def test_the_ends_of_the_scale(apart, rate):
    assert metrics.equal_error_rate(*normal(apart=apart, count=2000))[0] == pytest.approx(rate, abs=0.02)


def test_all_scores_alike_tell_nothing():
    same = np.full(10, 0.3)
    assert metrics.equal_error_rate(same, same)[0] == pytest.approx(0.5)
    assert metrics.area_under_curve(same, same) == 0.5
    assert math.isnan(metrics.equal_error_rate(same, np.empty(0))[0])


def embeddings():
    """Three writers on their own axes, two forgeries each halfway to the next axis."""
    axes = np.eye(3)
    rows, writers, forged = [], [], []
    for writer in range(3):
        for number in range(6):
            rows.append(axes[writer] + 0.01 * number * axes[(writer + 1) % 3])
            writers.append(writer)
            forged.append(False)
        for _ in range(2):
            rows.append(axes[writer] + axes[(writer + 1) % 3])
            writers.append(writer)
            forged.append(True)
    return np.array(rows), np.array(writers), np.array(forged)


def test_pairs_are_counted_once_and_by_kind():
    scores = metrics.pair_scores(*embeddings())
    assert [len(one.genuine) for one in scores] == [15, 15, 15]
    assert [len(one.skilled) for one in scores] == [12, 12, 12]
    assert [len(one.random) for one in scores] == [72, 72, 72]
    assert min(one.genuine.min() for one in scores) > 0.99
    assert np.allclose(np.concatenate([one.skilled for one in scores]), 1 / math.sqrt(2), atol=0.04)
    figures = metrics.summarise(scores)
    assert figures["eer_skilled"] == figures["eer_random"] == 0
    assert figures["writers"] == 3


def test_references_are_averaged_and_never_compared_with_themselves():
    scores = metrics.pair_scores(*embeddings(), references=5)
    assert [len(one.genuine) for one in scores] == [10, 10, 10]  # ten enrolments leave one each
    assert metrics.pair_scores(*embeddings(), references=6) == []


def test_more_references_help_where_noise_is_the_trouble():
    rng = np.random.default_rng(0)
    writers = np.repeat(np.arange(20), 16)
    forged = np.tile(np.arange(16) >= 12, 20)
    centres = rng.normal(size=(20, 32))
    rows = centres[writers] + rng.normal(0, 1.2, (320, 32))
    rows[forged] += 0.9 * rng.normal(size=(20, 32))[writers[forged]]
    one, ten = (metrics.skilled_eer(metrics.pair_scores(rows, writers, forged, k)) for k in (1, 10))
    assert ten < one - 0.03


def uneven(writers=30, each=16, length=32):
    """Half of the writers sign nearly the same each time, half vary; so do their forgers."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(writers), each)
    forged = np.tile(np.arange(each) >= 10, writers)
    spread = np.where(np.arange(writers) % 2, 0.3, 1.0)[owners, np.newaxis]
    rows = rng.normal(size=(writers, length))[owners] + spread * rng.normal(0, 1, (len(owners), length))
    rows[forged] += spread[forged] * 1.8 * rng.normal(size=(writers, length))[owners[forged]]
    return rows, owners, forged


def test_what_is_subtracted_tells_steady_hands_from_others():
    usual = metrics.consistency(metrics.pair_scores(*uneven()))
    for references in (3, 5):
        plain, held = (
            metrics.skilled_eer(metrics.pair_scores(*uneven(), references, usual=value))
            for value in (None, usual)
        )
        assert held < 0.7 * plain


def test_several_references_score_as_in_the_sdk():
    rows, _, _ = uneven()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for count, usual in itertools.product((2, 3, 7), (None, 0.6)):
        theirs = Template(unit[:count], usual)
        expected = [theirs.similarity(row) for row in unit[20:40]]
        np.testing.assert_allclose(
            metrics._similarities(unit[:count], unit[20:40], usual), expected, atol=1e-12
        )


def test_intervals_resample_writers():
    """One bad writer of four moves the figure; resampling pairs would hide how much."""
    good, bad = np.linspace(0.8, 1, 50), np.linspace(0, 0.2, 50)
    fine = [metrics.Scores(n, good, bad, bad) for n in range(3)]
    low, high = metrics.interval([*fine, metrics.Scores(3, bad, good, bad)], metrics.skilled_eer)
    assert low == 0
    assert high >= 0.5
    assert metrics.interval(fine, metrics.skilled_eer) == (0, 0)


def test_a_calibrated_probability_is_right_as_often_as_it_says():
    positive, negative = normal(seed=1)
    found = metrics.calibrate(positive, negative)
    # For equal variances the log odds are apart * score - apart² / 2.
    assert found.slope == pytest.approx(2.0, rel=0.05)
    assert found.offset == pytest.approx(-2.0, rel=0.05)
    new_positive, new_negative = normal(seed=2)
    said = found.probability(np.concatenate([new_positive, new_negative]))
    truth = np.repeat([1.0, 0.0], len(new_positive))
    rows, error = metrics.reliability(said, truth)
    assert error < 0.02
    assert sum(count for _, _, count in rows) == len(said)


def test_a_calibration_of_scores_that_part_entirely_stays_finite():
    found = metrics.calibrate(np.linspace(0.8, 1, 9), np.linspace(-1, 0.2, 9))
    assert np.isfinite([found.slope, found.offset]).all()
    assert found.probability(np.array([1.0]))[0] > found.probability(np.array([0.0]))[0]


def test_a_cue_that_tells_the_label_is_a_leak():
    rng = np.random.default_rng(0)
    forged = np.arange(400) % 2 == 1
    writers = np.repeat(np.arange(20), 20)
    telling, blind = forged + rng.normal(0, 0.2, 400), rng.normal(0, 1, 400)
    assert leaks.separation(telling, forged) > 0.99
    assert leaks.separation(-telling, forged) > 0.99
    assert leaks.separation(blind, forged) < 0.6
    assert metrics.skilled_eer(shortcuts.cue_scores(telling, writers, forged)) < 0.1
    assert metrics.skilled_eer(shortcuts.cue_scores(blind, writers, forged)) > 0.4
