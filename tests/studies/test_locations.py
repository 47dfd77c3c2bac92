"""Class means at distant places: made-up features whose dependence is known."""

import numpy as np
import pytest
import torch

from doubtmap.errors import UsageError
from doubtmap.studies.locations import Locations

CLASSES, CHANNELS, GRID = 3, 5, 4


def scene(means, drift, seed=0, size=(32, 32)):
    """Features that are the class's mean, plus `drift` times the column."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (2, *size), generator=generator)
    z = means[label].permute(0, 3, 1, 2)
    columns = torch.arange(size[1]) * GRID // size[1]
    return z + drift * columns, label


def summed(drift, least=5):
    torch.manual_seed(0)
    means = torch.randn(CLASSES, CHANNELS)
    locations = Locations(CLASSES, CHANNELS, GRID, least)
    locations.update(*scene(means, drift))
    return means, locations


def test_features_that_know_no_place():
    means, locations = summed(drift=0.0)
    figures = locations.figures()
    assert figures.same == pytest.approx(0, abs=1e-6)
    expected = torch.cdist(means, means)
    np.testing.assert_allclose(figures.distances, expected, atol=1e-5)
    assert figures.nearest_is_same == 1
    assert figures.ratio == pytest.approx(0, abs=1e-6)


def test_features_that_know_only_the_place():
    _, locations = summed(drift=100.0)
    figures = locations.figures()
    assert figures.ratio == pytest.approx(1, abs=0.05)


def test_merged_sums_are_the_whole():
    torch.manual_seed(0)
    means = torch.randn(CLASSES, CHANNELS)
    parts = []
    whole = Locations(CLASSES, CHANNELS, GRID)
    for seed in range(3):
        frame = scene(means, 0.3, seed)
        part = Locations(CLASSES, CHANNELS, GRID)
        part.update(*frame)
        whole.update(*frame)
        parts.append(part)
    merged = parts[0] + parts[1] + parts[2]
    torch.testing.assert_close(merged.sums, whole.sums)
    assert torch.equal(merged.counts, whole.counts)


def test_void_counts_for_nothing():
    means, _ = summed(0.0)
    features, label = scene(means, 0.0)
    features[:, :, :16] = torch.nan
    label[:, :16] = -2
    locations = Locations(CLASSES, CHANNELS, GRID)
    locations.update(features, label)
    assert locations.sums.isfinite().all()
    assert locations.counts.sum() == 2 * 16 * 32


def test_classes_seen_at_one_place_have_no_distances():
    features, label = torch.ones(1, CHANNELS, 32, 32), torch.full((1, 32, 32), -2)
    label[:, :4, :4] = 1
    locations = Locations(CLASSES, CHANNELS, GRID, least=1)
    locations.update(features, label)
    figures = locations.figures()
    assert np.isnan(figures.distances).all()
    assert np.isnan(figures.same)


def test_cells_cover_the_image_and_not_the_padding():
    means, _ = summed(0.0)
    features, label = scene(means, 0.0, size=(16, 16))
    padded = torch.zeros(2, CHANNELS, 40, 24)
    padded[..., :16, :16] = features
    framed = torch.full((2, 40, 24), -2)
    framed[:, :16, :16] = label
    plain, within = Locations(CLASSES, CHANNELS, GRID), Locations(CLASSES, CHANNELS, GRID)
    plain.update(features, label)
    within.update(padded, framed, (16, 16))
    assert torch.equal(plain.counts, within.counts)
    torch.testing.assert_close(plain.sums, within.sums)


def test_a_grid_of_one_has_no_distant_cells():
    with pytest.raises(UsageError, match="grid of at least 2"):
        Locations(CLASSES, CHANNELS, 1)
