"""The share of an image's pixels that are bad and outside its most doubtful fifth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubtmap.evaluation.tally import IS_UNKNOWN, RIGHT, WRONG, image_figures
from doubtmap.metrics.histogram import keyed, sums_of


def missed(values, kind):
    values, kind = np.asarray(values, np.float32), np.asarray(kind, np.uint8)
    own = keyed(values)
    return image_figures(sums_of(own, 1024, 5, kind), own, values, kind).get("missed")


@pytest.mark.parametrize(
    ("doubt", "share"), [(99, 0.0), (85, 0.0), (80, 0.0), (79, 0.01), (5, 0.01)]
)
@pytest.mark.parametrize("bad", [WRONG, IS_UNKNOWN])
def test_a_bad_pixel_is_missed_below_the_most_doubtful_fifth(doubt, share, bad):
    kind = np.full(100, RIGHT)
    kind[doubt] = bad
    assert missed(np.arange(100), kind) == share


def test_of_bad_pixels_throughout_four_fifths_are_missed():
    assert missed(np.arange(100), np.full(100, WRONG)) == 0.8


def test_where_nothing_is_bad_nothing_is_said():
    assert missed(np.arange(10), np.full(10, RIGHT)) is None


@given(
    st.lists(st.sampled_from([-1e9, -2.5, 0.0, 1e-12, 0.1, 0.1 + 1e-8, 0.7, 3.0]), min_size=1),
    st.integers(0, 4**20),
)
def test_it_is_what_the_quantile_of_all_values_says(values, code):
    values = np.float32(values)
    kind = np.array([code >> 2 * (at % 20) & 3 for at in range(len(values))], np.uint8)
    bad = (kind == WRONG) | (kind == IS_UNKNOWN)
    below = values[bad] < np.quantile(values, 0.8)
    assert missed(values, kind) == (below.sum() / values.size if bad.any() else None)
