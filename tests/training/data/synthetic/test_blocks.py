"""Where people sign: what is labelled there is what they signed, nothing that is only read."""

import collections

import numpy as np
import pytest

from training.data.synthetic import blocks, text
from training.data.synthetic import sheet as pages


def blank(seed):
    paper = np.full((1000, 780, 3), 255, np.uint8)
    return pages.Sheet(paper, np.random.default_rng(seed), 0, text.SERIF[0], 14)


@pytest.mark.parametrize("seed", range(12))
def test_a_notary_signs_once_below_gaps_that_others_filled_in(seed):
    sheet = blank(seed)
    below = blocks.sworn(sheet, 80, 300, 600)
    assert [label for label, _ in sheet.labelled] == [pages.SIGNATURE]
    corners = sheet.labelled[0][1]
    # Under the typed lines and their gaps, which begin at 300, and above what comes next.
    assert corners[:, 1].max() > 300 + 5 * sheet.line
    assert corners[:, 1].mean() < below
    assert (sheet.paper[300 : round(below), :] < 128).any(axis=(0, 2)).sum() > 200


def test_signers_stand_apart_and_some_have_not_signed():
    counts, overlaps = collections.Counter(), []
    for seed in range(30):
        sheet = blank(seed)
        blocks.signers(sheet, 80, 200, 240)
        counts.update(label for label, _ in sheet.labelled)
        middles = [corners[:, 1].mean() for label, corners in sheet.labelled if label == pages.SIGNATURE]
        overlaps += list(np.diff(middles))
    assert set(counts) == {pages.SIGNATURE, pages.DATE}
    # A row each: two names never fall on one line.
    assert min(overlaps) > 0
    # A third of the groups have a place for the day, most of them filled in.
    assert 0.15 < counts[pages.DATE] / counts[pages.SIGNATURE] < 0.6
    assert 40 < counts[pages.SIGNATURE] < 30 * 5
