"""Movements obey the kinematic model; writers repeat themselves and differ from each other."""

import cv2
import numpy as np
import pytest

from training.data.synthetic import letters
from training.data.synthetic.handwriting import _MU, Writer, lognormal, render


def _shape(trajectory, hand):
    """A signature's ink in a 24 x 64 box, blurred: enough to tell shapes apart."""
    ink = render(trajectory, hand, 12.0, pen=2.0, margin=0)
    return cv2.GaussianBlur(cv2.resize(ink, (64, 24), interpolation=cv2.INTER_AREA), (0, 0), 2.0)


def _distance(a, b):
    return 1 - float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("sigma", [0.2, 0.35])
def test_a_stroke_is_a_lognormal_bell_that_covers_its_length_once(sigma):
    times = np.arange(0, 3, 0.001)
    progress, bells = lognormal(times, np.array([0.2]), _MU, sigma)
    assert (bells >= 0).all()
    assert progress[0, 0] == pytest.approx(0, abs=1e-9)
    assert progress[-1, 0] == pytest.approx(1, abs=1e-6)
    assert np.trapz(bells[:, 0], times) == pytest.approx(1, abs=1e-3)
    peak = 0.2 + np.exp(_MU - sigma**2)  # the mode of a lognormal
    assert times[bells[:, 0].argmax()] == pytest.approx(peak, abs=2e-3)
    assert np.allclose(np.gradient(progress[:, 0], times)[5:], bells[5:, 0], atol=0.05)


def test_the_same_seed_gives_the_same_signature():
    first, again = (Writer(5).signature(np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.points, again.points)


def test_a_writer_varies_less_than_writers_differ():
    writers = [Writer(number) for number in range(12)]
    shapes = [
        [_shape(w.signature(np.random.default_rng([n, k])), w.hand) for k in range(3)]
        for n, w in enumerate(writers)
    ]
    within = [_distance(shape[0], shape[k]) for shape in shapes for k in (1, 2)]
    between = [_distance(a[0], b[0]) for n, a in enumerate(shapes) for b in shapes[n + 1 :]]
    assert min(within) > 0
    assert np.median(within) < 0.5 * np.median(between)


def test_a_forgery_is_near_but_slower_and_rougher():
    rng = np.random.default_rng(3)
    closer = slower = 0
    for number in range(10):
        owner, forger = Writer(number), Writer(1000 + number)
        genuine = owner.signature(rng)
        forged = forger.forge(owner, rng)
        slower += len(forged.points) > len(genuine.points)
        own = _shape(forger.signature(rng), forger.hand)
        reference = _shape(genuine, owner.hand)
        closer += _distance(_shape(forged, forger.hand), reference) < _distance(own, reference)
    # The best forgers write as fluently as the owner.
    assert slower >= 8
    assert closer >= 9


@pytest.mark.parametrize("text", ["12/03/95", "7", "a b", "2026-01-31"])
def test_rendered_ink_is_within_its_array(text):
    writer = Writer(2)
    ink = render(writer.write(text, np.random.default_rng(0)), writer.hand, 10.0)
    assert ink.dtype == np.float32
    assert ink.max() > 0.5
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assert border.max() == 0


def _spelled(words, writer=None):
    return (writer or Writer(2)).spell(words, np.random.default_rng(0))


def test_letters_rise_and_fall_as_they_should():
    tops = {word: _spelled(word).points[:, 1].min() for word in ("lll", "aaa", "ggg")}
    bottoms = {word: _spelled(word).points[:, 1].max() for word in ("lll", "aaa", "ggg")}
    assert tops["lll"] < 1.4 * tops["aaa"]
    assert tops["ggg"] == pytest.approx(tops["aaa"], abs=0.4)
    assert bottoms["ggg"] > bottoms["aaa"] + 0.4


def test_every_letter_leaves_ink_and_goes_to_the_right():
    for letter in (*letters.SMALL, *letters.CAPITAL):
        ends = [_spelled(letter * count).points[:, 0].max() for count in (1, 4)]
        assert ends[1] > ends[0] + 0.8, letter
        assert _spelled(letter).pen_down.any(), letter


def test_what_cannot_be_spelled_is_left_out_and_nothing_at_all_is_a_stroke():
    assert np.array_equal(_spelled("a§b").points, _spelled("ab").points)
    assert render(_spelled("§"), Writer(2).hand, 10.0).max() > 0.2


@pytest.mark.parametrize("digit", ["0", "6", "8", "9"])
def test_a_digit_that_is_round_encloses_paper(digit):
    closed = 0
    for number in range(12):
        writer = Writer(number)
        ink = render(writer.write(digit, np.random.default_rng(0)), writer.hand, 40.0, pen=4.0)
        # The paper around is one region; each further region is enclosed. A gap of a stroke's end is no gap.
        joined = cv2.morphologyEx((ink > 0.3).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((25, 25), np.uint8))
        regions, _, stats, _ = cv2.connectedComponentsWithStats(1 - joined)
        closed += regions > 2 and stats[2:, cv2.CC_STAT_AREA].max() > 60
    assert closed >= 6


def test_a_signed_name_is_repeatable_and_taller_in_its_capitals():
    first, again = (Writer(5).sign_name("Anna Vance", np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.points, again.points)
    heights = [np.ptp(Writer(n).sign_name("A", np.random.default_rng(n)).points[:, 1]) for n in range(9)]
    small = [np.ptp(Writer(n).spell("a", np.random.default_rng(n)).points[:, 1]) for n in range(9)]
    assert np.median(heights) > 1.5 * np.median(small)
