"""Images chosen to look at: the shape of their doubt, and how unlike they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import doubtmap as dm
from doubtmap.segments.choosing import unlike
from doubtmap.segments.shapes import ABOVE, SHAPES, moran, patch

MAPS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=20),
    elements=st.floats(0, 1, width=32),
)


@given(MAPS)
@settings(max_examples=40, deadline=None)
def test_shapes_are_finite_and_within_their_ranges(doubt):
    for name, shape in SHAPES.items():
        low, high = (-1.1, 1.1) if name == "moran" else (0, 1)  # n / (n - 1) cos(pi / (n + 1))
        assert low - 1e-6 <= shape(doubt) <= high + 1e-6, name
        assert shape(doubt) == pytest.approx(shape(doubt[::-1, ::-1]), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
def test_a_flat_map_is_its_value(value):
    doubt = np.full((16, 24), value, np.float32)
    for name in ("mean", "quantile", "patch"):
        assert SHAPES[name](doubt) == pytest.approx(value)
    assert SHAPES["mass"](doubt) == pytest.approx(value if value > ABOVE else 0)
    assert moran(doubt) == 0


def test_the_patch_is_the_largest_mean_of_a_square():
    doubt = np.random.default_rng(0).random((32, 40)).astype(np.float32)
    means = [doubt[y : y + 4, x : x + 4].mean() for y in range(29) for x in range(37)]
    assert patch(doubt) == pytest.approx(max(means), rel=1e-6)


def test_stripes_are_alike_and_a_chessboard_is_not():
    rows, columns = np.indices((16, 16))
    assert moran(((rows + columns) % 2).astype(np.float32)) == pytest.approx(-1)
    assert moran((rows < 8).astype(np.float32)) > 0.8


NAMES = [f"drive_{k:03d}" for k in range(40)]


def test_unlike_images_are_chosen_of_as_many_places_as_there_are():
    place = np.repeat(np.arange(4), 10)
    features = np.eye(4)[place]
    badness = np.concatenate([np.linspace(1, 2, 10), np.linspace(0, 1, 30)])
    chosen = unlike(badness, features, NAMES, 4)
    assert chosen[0] == 9
    assert {*place[chosen]} == {0, 1, 2, 3}
    assert {*place[np.argsort(-badness)[:4]]} == {0}


def test_neighbouring_frames_are_left_out_until_no_others_are_there():
    badness, features = np.arange(40.0), np.zeros((40, 1))
    assert (np.diff(np.sort(unlike(badness, features, NAMES, 8))) > 1).all()
    assert sorted(unlike(badness, features, NAMES, 40)) == [*range(40)]
    assert sorted(unlike(badness, features, NAMES, 99)) == [*range(40)]


def test_no_budget_is_refused():
    with pytest.raises(dm.UsageError, match="budget from 1 on"):
        unlike(np.zeros(3), np.zeros((3, 1)), NAMES[:3], 0)
