"""Synthetic streets: the same seed gives the same street, and its labels say what stands there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.errors import UsageError
from doubtmap.streets import synthetic
from doubtmap.streets.synthetic import SyntheticStreets

SMALL = (96, 192)


def same(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.label, other.label)


def test_is_a_dataset():
    streets = SyntheticStreets(3, seed=4, size=SMALL)
    assert isinstance(streets, Dataset)
    assert streets.name == "synthetic:3"
    assert len(streets) == len(list(streets)) == 3
    assert [streets.sample_name(i) for i in range(3)] == [sample.name for sample in streets]


def test_a_scene_depends_on_its_seed_and_number_alone():
    forwards = [SyntheticStreets(4, seed=1, size=SMALL)[i] for i in range(4)]
    synthetic._drawn.cache_clear()
    streets = SyntheticStreets(9, seed=1, size=SMALL)
    backwards = [streets[i] for i in reversed(range(4))][::-1]
    assert all(map(same, forwards, backwards))
    assert not any(same(forwards[0], other) for other in forwards[1:])
    assert not same(forwards[0], SyntheticStreets(4, seed=2, size=SMALL)[0])


@pytest.fixture(scope="module")
def twenty():
    streets = SyntheticStreets(20, size=SMALL)
    return [streets[i] for i in range(20)]


def test_labels_are_classes_unknown_or_void(twenty):
    classes = len(SyntheticStreets(1).class_names)
    seen = torch.cat([sample.label.flatten() for sample in twenty]).unique().tolist()
    assert seen == [VOID, UNKNOWN, *range(classes)]


def test_images_are_bytes_with_light_and_dark(twenty):
    assert {sample.image.dtype for sample in twenty} == {torch.uint8}
    assert {sample.label.dtype for sample in twenty} == {torch.int16}
    assert all(sample.image.float().std() > 10 for sample in twenty)


def test_every_scene_has_unknown_things_when_asked(twenty):
    assert all((sample.label == UNKNOWN).sum() >= 4 for sample in twenty)
    streets = SyntheticStreets(20, size=SMALL, unknowns=False)
    assert not any((streets[i].label == UNKNOWN).any() for i in range(20))


@pytest.mark.parametrize("weather", ["night", "fog", "rain"])
def test_weather_grows_from_clear_and_leaves_the_labels(weather):
    clear = SyntheticStreets(1, seed=3, size=SMALL, weather="clear")[0]
    none, half, full = (
        SyntheticStreets(1, seed=3, size=SMALL, weather=weather, strength=strength)[0]
        for strength in (0.0, 0.5, 1.0)
    )
    assert same(clear, none)
    assert torch.equal(clear.label, full.label)
    change = [(clear.image.float() - one.image.float()).abs().mean() for one in (half, full)]
    assert 1 < change[0] < change[1]


@settings(max_examples=8, deadline=None)
@given(st.integers(64, 150), st.integers(64, 300), st.integers(0, 10_000))
def test_any_size_and_seed(height, width, seed):
    sample = SyntheticStreets(1, seed=seed, size=(height, width))[0]
    assert sample.image.shape == (3, height, width)
    assert sample.label.shape == (height, width)
    assert VOID <= sample.label.min() <= sample.label.max() < 8


def test_the_same_street_at_two_sizes():
    coarse, fine = (
        SyntheticStreets(1, seed=5, size=size, weather="clear")[0].label
        for size in ((128, 256), (256, 512))
    )
    assert (fine[::2, ::2] == coarse).float().mean() > 0.9


def test_component_sizes_grow_with_the_image():
    small, large = (SyntheticStreets(1, size=size).component_sizes for size in (SMALL, (512, 1024)))
    assert 0 < small.labelled <= small.predicted < large.labelled < large.predicted


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 0}, "at least 1 scene"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "size": (63, 200)}, "64x64"),
        ({"count": 1, "weather": "hail"}, "no weather 'hail'"),
        ({"count": 1, "weather": "fog", "strength": 1.1}, r"strength in \[0, 1\]"),
    ],
)
def test_wrong_requests_are_told(arguments, says):
    with pytest.raises(UsageError, match=says):
        SyntheticStreets(**arguments)


def test_a_scene_that_is_not_there():
    with pytest.raises(IndexError):
        SyntheticStreets(2)[2]
