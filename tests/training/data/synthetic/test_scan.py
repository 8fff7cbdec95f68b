"""What scanners do: points stay on the ink they belong to, dirt only darkens, thresholds leave two greys."""

import numpy as np
import pytest

from training.data.synthetic import scan


def _page_with_dots():
    page = np.full((400, 300, 3), 255, np.uint8)
    dots = [(60, 80), (200, 90), (150, 330)]
    for x, y in dots:
        page[y - 3 : y + 4, x - 3 : x + 4] = 0
    return page, [np.array([[x, y]], float) for x, y in dots]


@pytest.mark.parametrize("move", [scan.skew, scan.mount])
@pytest.mark.parametrize("seed", range(6))
def test_points_move_with_the_ink(move, seed):
    page, points = _page_with_dots()
    moved, places = move(page, points, np.random.default_rng(seed))
    assert moved.shape == page.shape
    for ((x, y),) in places:
        around = moved[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert around.min() < 60
        assert np.ptp(moved) > 150


def test_a_mounted_sheet_is_smaller_than_its_bed():
    spans = []
    for seed in range(8):
        page, points = _page_with_dots()
        _, places = scan.mount(page, points, np.random.default_rng(seed))
        spans.append(np.ptp([place[0, 1] for place in places]) / 250)
    assert 0.5 < min(spans) <= max(spans) < 1.05


def test_grains_and_the_other_side_only_darken():
    for dirty in (scan.dither, scan.show_through):
        page, _ = _page_with_dots()
        before = page.copy()
        dirty(page, np.random.default_rng(3))
        assert (page <= before).all()
        assert (page < before).any()


def test_a_bilevel_scan_is_black_or_white_but_for_edges():
    page, _ = _page_with_dots()
    scanned = scan.bilevel(page, np.random.default_rng(0))
    assert np.isin(scanned, (0, 255)).mean() > 0.95
    assert (scanned[..., 0] == scanned[..., 2]).all()
