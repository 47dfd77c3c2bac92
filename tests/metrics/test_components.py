"""Components against one loop per component, cases by hand, and the merging law."""

import math

import numpy as np
import pytest
import torch
from flood_fill import pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doubtmap.errors import UsageError
from doubtmap.metrics import Components
from doubtmap.metrics.components import THRESHOLDS, component_figures


def masks(*pictures):
    """Bool masks from drawings: `#` is true."""
    return [np.array([[c == "#" for c in row] for row in p.split()]) for p in pictures]


def brute_force(predicted, unknown, valid, smallest_predicted, smallest_labelled):
    guesses = [g for g in pieces(predicted & valid) if len(g) >= smallest_predicted]
    things = pieces(unknown & valid)
    ignored = set().union(*(t for t in things if len(t) < smallest_labelled))
    things = [t for t in things if len(t) >= smallest_labelled]
    guesses = [g - ignored for g in guesses if g - ignored]
    anywhere = set().union(*things)
    siou = []
    for k in things:
        p = set().union(*(g for g in guesses if g & k))
        elsewhere = p & (anywhere - k)
        siou.append(len(p & k) / (len(p) + len(k) - len(p & k) - len(elsewhere)))
    return sorted(siou), sorted(len(g & anywhere) / len(g) for g in guesses)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    data=st.data(),
    smallest=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_figures_equal_a_loop_over_components(shape, data, smallest):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    share = data.draw(st.sampled_from([0.2, 0.4, 0.7]))
    unknown, predicted = rng.random((2, *shape)) < share
    valid = rng.random(shape) < data.draw(st.sampled_from([0.6, 0.9, 1.0]))
    if data.draw(st.booleans()):
        predicted = data.draw(hnp.arrays(bool, shape))
    siou, ppv = component_figures(predicted, unknown, valid, *smallest)
    expected = brute_force(predicted, unknown, valid, *smallest)
    np.testing.assert_allclose(sorted(siou), expected[0], atol=1e-12)
    np.testing.assert_allclose(sorted(ppv), expected[1], atol=1e-12)


def test_a_large_frame_equals_a_loop_over_components():
    rng = np.random.default_rng(0)
    coarse = rng.random((2, 12, 16)) < 0.3
    unknown, predicted = coarse.repeat(5, 1).repeat(5, 2) ^ (rng.random((2, 60, 80)) < 0.03)
    valid = rng.random((60, 80)) < 0.98
    siou, ppv = component_figures(predicted, unknown, valid, 20, 10)
    expected = brute_force(predicted, unknown, valid, 20, 10)
    assert len(siou) > 3 and len(ppv) > 3
    np.testing.assert_allclose(sorted(siou), expected[0])
    np.testing.assert_allclose(sorted(ppv), expected[1])


def boxes():
    """Two labelled boxes of 10 x 20, one predicted box of 10 x 40 over half of both."""
    predicted, unknown = np.zeros((2, 20, 60), bool)
    unknown[5:15, 5:25] = unknown[5:15, 35:55] = True
    predicted[5:15, 10:50] = True
    return predicted, unknown, np.ones((20, 60), bool)


def components_of(*frame):
    components = Components()
    components.update(*frame)
    return components


def test_the_worked_case_of_the_benchmark():
    siou, ppv = component_figures(*boxes())
    assert siou.tolist() == [0.5, 0.5] and ppv.tolist() == [0.75]
    components = components_of(*boxes())
    assert (components.siou, components.ppv) == (0.5, 0.75)
    # sIoU reaches 0.25, 0.30 ... 0.50, six of eleven thresholds; 0.75 is never below 0.75
    assert components.f1 == pytest.approx(6 / 11)


def test_f1_by_hand():
    # sIoU 1 and 0; PPV 1 and 0: one found, one missed, one spurious, at every threshold
    predicted, unknown = masks("##.... ...... ....##", "##.... ......  ##....")
    components = components_of(predicted, unknown, np.ones_like(unknown))
    assert components.f1 == pytest.approx(2 / (2 + 1 + 1))
    assert (components.siou, components.ppv) == (0.5, 0.5)


def test_a_figure_at_the_threshold_reaches_it():
    # one labelled component of 10 pixels of which 5 are predicted: sIoU 1/2, PPV 1
    unknown = np.ones((1, 10), bool)
    predicted = np.arange(10)[None] < 5
    components = components_of(predicted, unknown, unknown)
    assert components.found.tolist() == [1] * 6 + [0] * 5
    # the mirror: PPV 1/2 is spurious only above one half
    components = components_of(unknown, predicted, unknown)
    assert components.spurious.tolist() == [0] * 6 + [1] * 5
    np.testing.assert_allclose(THRESHOLDS, np.arange(25, 80, 5) / 100)


def test_touching_diagonally_is_one_component():
    predicted, unknown = masks("#.. .#. ..#", "#.# ... ...")
    siou, ppv = component_figures(predicted, unknown, np.ones((3, 3), bool))
    assert ppv.tolist() == [1 / 3]
    assert sorted(siou) == [0, 1 / 3]


def test_void_splits_a_component():
    predicted, unknown, valid = masks("#####", "#####", "##.##")
    siou, ppv = component_figures(predicted, unknown, valid)
    assert siou.tolist() == [1, 1] and ppv.tolist() == [1, 1]


def test_prediction_in_void_is_none():
    predicted, unknown, valid = masks("..##", "....", "##..")
    assert [len(figures) for figures in component_figures(predicted, unknown, valid)] == [0, 0]


def test_prediction_in_a_labelled_component_that_is_too_small_vanishes():
    predicted, unknown = masks("##...#", "##...#")
    valid = np.ones_like(unknown)
    siou, ppv = component_figures(predicted, unknown, valid, 0, 2)
    assert siou.tolist() == [1] and ppv.tolist() == [1]
    # what reaches beyond stays, without the part inside, and keeps being one component
    predicted, unknown = masks("##.###", "##..#.")
    siou, ppv = component_figures(predicted, unknown, valid, 3, 2)
    assert siou.tolist() == [0] and ppv.tolist() == [0]


@pytest.mark.parametrize(("smallest", "left"), [(0, 1), (1, 1), (3, 1), (4, 0)])
def test_only_strictly_smaller_components_are_dropped(smallest, left):
    (mask,), valid = masks("###.."), np.ones((1, 5), bool)
    siou, ppv = component_figures(mask, mask, valid, smallest, 0)
    assert (len(siou), len(ppv)) == (1, left)
    siou, ppv = component_figures(mask, mask, valid, 0, smallest)
    assert (len(siou), len(ppv)) == (left, left)


def test_size_of_a_prediction_is_taken_without_void_but_with_what_will_be_ignored():
    predicted, unknown, valid = masks("####", "...#", "###.")
    assert len(component_figures(predicted, unknown, valid, 4)[1]) == 0
    assert len(component_figures(predicted, unknown, np.ones((1, 4), bool), 4, 2)[1]) == 1


def test_no_prediction_and_no_label_at_all():
    nothing, something, valid = np.zeros((3, 3), bool), np.eye(3, dtype=bool), np.ones((3, 3), bool)
    missed = components_of(nothing, something, valid)
    assert (missed.siou, missed.f1) == (0, 0) and math.isnan(missed.ppv)
    spurious = components_of(something, nothing, valid)
    assert (spurious.ppv, spurious.f1) == (0, 0) and math.isnan(spurious.siou)
    empty = components_of(nothing, nothing, valid)
    assert all(map(math.isnan, (empty.siou, empty.ppv, empty.f1)))


def test_tensors_and_arrays_of_numbers_are_taken():
    arrays = boxes()
    for convert in (torch.tensor, lambda a: a.astype(np.uint8)):
        assert components_of(*map(convert, arrays)).f1 == components_of(*arrays).f1


def test_arrays_of_other_shapes_are_a_usage_error():
    predicted, unknown, valid = boxes()
    with pytest.raises(UsageError, match="one shape"):
        components_of(predicted[:-1], unknown, valid)


def test_sums_pool_the_components_of_all_frames():
    rng = np.random.default_rng(0)
    frames = rng.random((4, 3, 12, 12)) < np.array([0.3, 0.3, 0.95])[:, None, None]
    total, whole = Components(), Components()
    siou, ppv = [], []
    for frame in frames[[2, 0, 3, 1]]:
        total = total + components_of(*frame, 2, 2)
    for frame in frames:
        whole.update(*frame, 2, 2)
        more = component_figures(*frame, 2, 2)
        siou.extend(more[0])
        ppv.extend(more[1])
    restored = Components(**total.state())
    for found in (total, whole, restored):
        assert found.siou == pytest.approx(np.mean(siou))
        assert found.ppv == pytest.approx(np.mean(ppv))
        f1 = []
        for t in THRESHOLDS:
            hit, missed = (np.array(siou) >= t).sum(), (np.array(siou) < t).sum()
            f1.append(2 * hit / (2 * hit + missed + (np.array(ppv) < t).sum()))
        assert found.f1 == pytest.approx(np.mean(f1))
