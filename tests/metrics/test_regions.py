"""Boundary band and patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import doubtmap as dm
from doubtmap.metrics import boundary_band, random_patches


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 9]))
def test_the_band_is_what_its_definition_says(seed, width):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(-1, 3, (1, 6, 7), generator=generator)
    found = boundary_band(label, width)[0]
    rows = label[0].tolist()
    for i in range(6):
        for j in range(7):
            near = [
                rows[i + di][j + dj]
                for di, dj in [
                    *((k, 0) for k in range(-width, width + 1)),
                    *((0, k) for k in range(-width, width + 1)),
                ]
                if 0 <= i + di < 6 and 0 <= j + dj < 7
            ]
            expected = rows[i][j] >= 0 and any(v >= 0 and v != rows[i][j] for v in near)
            assert bool(found[i, j]) == expected


def test_void_has_no_boundary():
    label = torch.tensor([[[1, 1, -2, -2, 1, 1]]])
    assert not boundary_band(label, 2).any()


def test_a_band_wider_than_the_image_takes_no_longer():
    label = torch.tensor([[[0, 1, -1]]])
    assert boundary_band(label, 10**12).tolist() == [[[True, True, False]]]


def test_a_band_has_a_width():
    with pytest.raises(dm.UsageError, match="at least 1"):
        boundary_band(torch.zeros(1, 2, 2), 0)


def test_patches_lie_inside_and_are_seeded():
    places = random_patches((100, 90), 50, 30, seed=3)
    assert places == random_patches((100, 90), 50, 30, seed=3)
    assert places != random_patches((100, 90), 50, 30, seed=4)
    map_ = torch.zeros(100, 90)
    for rows, columns in places:
        assert map_[rows, columns].shape == (30, 30)
    (place,) = random_patches((10, 90), 1, 30)
    assert map_[:10][place].shape == (10, 30)
    with pytest.raises(dm.UsageError, match="above 0"):
        random_patches((10, 10), 0)
