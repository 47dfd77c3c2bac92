"""Parting images into folds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubtmap import UsageError
from doubtmap.engine.splitting import folds_of, named_sequences


def drives(*lengths):
    return [f"{chr(97 + k)}_{frame:04d}" for k, n in enumerate(lengths) for frame in range(n)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(2, 6))
def test_every_image_is_in_one_fold(lengths, count):
    names = drives(*lengths)
    if len(names) < 2:
        return
    folds, _ = folds_of(names, count)
    assert sorted(index for fold in folds for index in fold) == list(range(len(names)))
    assert len(folds) == count
    if len(names) >= count and len(lengths) == 1:
        assert all(folds)


@pytest.mark.parametrize("lengths", [(20,) * 5, (20,) * 6, (3, 9, 4, 8, 5, 7)])
def test_sequences_stay_whole_where_there_are_enough(lengths):
    names = drives(*lengths)
    folds, whole = folds_of(names, 5)
    assert whole
    for letter in {name[0] for name in names}:
        assert sum(any(names[i][0] == letter for i in fold) for fold in folds) == 1


@pytest.mark.parametrize("lengths", [(15,), (101,), (40, 60)])
def test_else_folds_hold_runs_of_neighbours(lengths):
    names = drives(*lengths)
    folds, whole = folds_of(names, 5)
    assert not whole
    sides = {index: k for k, fold in enumerate(folds) for index in fold}
    apart = sum(sides[i] != sides[i + 1] for i in range(len(names) - 1))
    assert apart == 5 * len(lengths) - 1


def test_one_image_cannot_be_parted():
    with pytest.raises(UsageError, match="at least 2 images"):
        folds_of(["a"], 5)


def test_sequences_are_called_by_what_their_names_share():
    names = ["a_01_007", "a_01_008", "a_02_001", "b-3"]
    assert named_sequences(names) == {"a_01": [0, 1], "a_02_001": [2], "b-3": [3]}
    assert named_sequences(["x1", "x2"]) == named_sequences(["a1", "b1"]) == {}
