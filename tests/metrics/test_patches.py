"""Patches against loops over blocks of pixels."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch

from doubtmap.errors import UsageError
from doubtmap.metrics import Patches
from doubtmap.metrics.patches import (
    at_borders,
    patch_areas,
    patch_figures,
    patch_kinds,
    patches_by_region,
)


def frames(seed, shape=(2, 19, 23)):
    """Scores in 64ths, so that means of 16 are exact and often tie."""
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, shape) / 64
    right = rng.random(shape) < 0.6
    valid = rng.random(shape) < 0.995
    return tuple(map(torch.tensor, (score.astype(np.float32), right, valid)))


def patches_of(*arrays, size=4):
    patches = Patches(size)
    patches.update(*arrays)
    return patches


def brute_force(score, right, valid, size):
    means, accurate = [], []
    for b in range(len(score)):
        for i in range(0, score.shape[1] - size + 1, size):
            for j in range(0, score.shape[2] - size + 1, size):
                block = (b, slice(i, i + size), slice(j, j + size))
                if valid[block].all():
                    means.append(score[block].double().mean().item())
                    accurate.append(right[block].sum().item() * 2 > size * size)
    return np.array(means), np.array(accurate)


def expected_figures(means, accurate, percentile):
    uncertain = means > np.percentile(means, percentile, method="inverted_cdf")
    certain = ~uncertain
    with np.errstate(invalid="ignore"):
        return (
            (accurate & certain).sum() / certain.sum(),
            (~accurate & uncertain).sum() / (~accurate).sum(),
            ((accurate & certain) | (~accurate & uncertain)).mean(),
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_figures_equal_loops_over_blocks(seed, size):
    arrays = frames(seed)
    patches = patches_of(*arrays, size=size)
    means, accurate = brute_force(*arrays, size)
    assert patches.histogram.view().counts.sum() == len(means)
    for percentile in (0, 10, 25, 50, 77, 90, 100):
        found = astuple(patches.at_percentile(percentile))
        np.testing.assert_allclose(found, expected_figures(means, accurate, percentile))
    curve = patches.curves(np.array([10, 50]))
    assert curve == [patches.at_percentile(10), patches.at_percentile(50)]


def test_the_percentile_is_exact_where_it_falls_on_a_patch():
    # 7 / 100 * 100 is above 7 in floating point
    patches = Patches(1)
    patches.add(np.arange(100, dtype=np.float32), np.ones(100, bool))
    for percentile in range(1, 101):
        certain = percentile / 100
        assert patches.at_percentile(percentile).pavpu == pytest.approx(certain, abs=1e-12)


def test_tied_patches_are_certain_together():
    patches = Patches(1)
    patches.add(np.array([1, 2, 2, 2, 3], np.float32), np.array([1, 1, 0, 1, 0], bool))
    assert astuple(patches.at_percentile(50)) == (3 / 4, 1 / 2, 4 / 5)
    assert astuple(patches.at_percentile(20)) == (1, 1, 3 / 5)


def test_exactly_half_right_is_not_accurate():
    right = torch.zeros(1, 4, 8, dtype=torch.bool)
    right[:, :2, :4] = True  # 8 of 16
    right[:, :2, 4:] = True
    right[0, 3, 7] = True  # 9 of 16
    patches = patches_of(torch.zeros(1, 4, 8), right, torch.ones_like(right))
    assert patches.histogram.view().counts.tolist() == [[1], [1]]


def test_one_void_pixel_takes_its_patch_out_whatever_it_holds():
    score, right, valid = torch.zeros(1, 4, 8), torch.ones(1, 4, 8) > 0, torch.ones(1, 4, 8) > 0
    valid[0, 1, 2] = False
    score[0, 1, 2] = torch.nan
    patches = patches_of(score, right, valid)
    assert patches.histogram.view().counts.sum() == 1


def test_frames_smaller_than_a_patch_give_none():
    for shape in ((1, 3, 9), (1, 9, 3), (2, 3, 3)):
        patches = patches_of(torch.zeros(shape), torch.ones(shape) > 0, torch.ones(shape) > 0)
        assert all(map(math.isnan, astuple(patches.at_percentile())))


def test_a_share_of_nothing_is_nan():
    patches = Patches(1)
    patches.add(np.array([1.0, 2.0]), np.array([True, True]))
    found = patches.at_percentile(50)
    assert math.isnan(found.p_uncertain_inaccurate)
    assert (found.p_accurate_certain, found.pavpu) == (1, 0.5)


def test_doubt_that_knows_the_errors_is_right_about_every_patch():
    right = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    right = right[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    patches = patches_of((~right).float(), right, torch.ones_like(right))
    share = 100 * right.float().mean().item()
    assert astuple(patches.at_percentile(share)) == (1, 1, 1)


def test_sums_and_saved_states_give_the_figures_of_all_frames():
    arrays = frames(0, (4, 16, 20))
    parts = [patches_of(*(array[i : i + 1] for array in arrays)) for i in range(4)]
    total = parts[2] + parts[0] + parts[3] + parts[1]
    restored = Patches.from_state(total.state())
    whole = patches_of(*arrays)
    for percentile in (5, 50, 95):
        assert total.at_percentile(percentile) == whole.at_percentile(percentile)
        assert restored.at_percentile(percentile) == whole.at_percentile(percentile)
    assert restored.size == 4


@pytest.mark.parametrize("percentile", [-1, 101, float("nan")])
def test_an_impossible_percentile_is_a_usage_error(percentile):
    with pytest.raises(UsageError, match="percentile"):
        Patches().at_percentile(percentile)


def test_areas_are_the_means_of_the_curves():
    patches = patches_of(*frames(0))
    means, accurate = brute_force(*frames(0), 4)
    curve = np.array([expected_figures(means, accurate, percentile) for percentile in range(101)])
    # the lowest score is certain even at percentile 0, as NumPy's inverted CDF has it too
    expected = ((curve[1:] + curve[:-1]) / 2).mean(0)
    np.testing.assert_allclose(astuple(patches.areas()), expected, rtol=1e-9)


def test_empty_bins_below_the_lowest_score_are_no_threshold():
    counts = np.array([[0, 0, 1, 3], [0, 5, 4, 0]])
    assert patch_figures(counts, 0) == patch_figures(counts[:, 1:], 0)
    assert patch_areas(counts) == patch_areas(counts[:, 1:])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_border_is_where_a_patch_or_one_around_it_holds_two_labels(size):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(-2, 2, (2, 3, 4), generator=generator)
    label = coarse.repeat_interleave(9, 1).repeat_interleave(8, 2)[:, :26, :31]
    found = at_borders(label, size)
    assert found.shape == (2, 26 // size, 31 // size)
    for b, i, j in np.ndindex(*found.shape):
        rows = slice(max(0, i - 1) * size, min(found.shape[1], i + 2) * size)
        columns = slice(max(0, j - 1) * size, min(found.shape[2], j + 2) * size)
        assert bool(found[b, i, j]) == (len(label[b, rows, columns].unique()) > 1)


def test_an_image_smaller_than_a_patch_has_no_border():
    assert not at_borders(torch.zeros(1, 3, 9), 4).numel()


def test_kinds_part_the_patches_and_unknown_pixels_are_wrong():
    """Against the three definitions, patch by patch."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(-2, 2, (3, 4, 4), generator=generator)
    label = label.repeat_interleave(15, 1).repeat_interleave(15, 2)
    classes = torch.where(torch.rand(label.shape, generator=generator) < 0.6, label, 3)
    whole, kinds = patch_kinds(classes, label, label == -1, 4)
    border, counts = at_borders(label, 4), np.zeros((6, 1))
    places = whole.nonzero().tolist()
    for kind, (b, i, j) in zip(kinds.tolist(), places):
        block = (b, slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4))
        right = (classes[block] == label[block]) & (label[block] >= 0)
        has_unknown = bool((label[block] == -1).any())
        first = 4 if has_unknown else 0 if border[b, i, j] else 2
        assert kind == first + (right.sum() > 8)
        counts[kind] += 1
    assert len(places) == sum(
        (label[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] != -2).all()
        for b, i, j in np.ndindex(*whole.shape)
    )
    parts = patches_by_region(counts)
    assert (counts > 0).sum() >= 5
    np.testing.assert_array_equal(parts["inside"] + parts["border"], parts["patches"])
    assert parts["with_unknown"].sum() == len(places)
