"""Corruptions: seeded, graded, labels untouched; and fingerprints of images."""

import itertools

import pytest
import torch

import doubtmap as dm
from doubtmap.datasets import CORRUPTIONS, Corrupted, corrupt, fingerprints
from doubtmap.streets.synthetic import SyntheticStreets


@pytest.fixture(scope="module")
def street():
    return SyntheticStreets(1, seed=0, size=(96, 128))[0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_strength_is_farther_from_the_image_than_the_last(kind, street):
    image = street.image
    distances = []
    for strength in range(1, 6):
        worse = corrupt(image, kind, strength)
        assert worse.shape == image.shape and worse.dtype == torch.uint8
        distances.append((worse.float() - image.float()).square().mean().item())
    assert distances[0] > 0
    assert all(a < b for a, b in itertools.pairwise(distances))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_are_settled_by_their_seed(kind, street):
    a, b = corrupt(street.image, kind, 3, seed=1), corrupt(street.image, kind, 3, seed=1)
    assert torch.equal(a, b)
    if kind in ("fog", "night", "noise"):
        assert not torch.equal(a, corrupt(street.image, kind, 3, seed=2))


def test_a_corrupted_data_set_is_the_data_set_with_other_images():
    streets = SyntheticStreets(2, seed=0, size=(64, 64))
    worse = Corrupted(streets, "noise", 4)
    assert isinstance(worse, dm.datasets.Dataset)
    assert len(worse) == 2 and worse.class_names == streets.class_names
    assert worse.name.endswith("+noise4")
    for index in range(2):
        assert torch.equal(worse[index].label, streets[index].label)
        assert torch.equal(worse[index].image, worse[index].image)
        assert not torch.equal(worse[index].image, streets[index].image)
    noise = [worse[i].image.int() - streets[i].image.int() for i in range(2)]
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    ("kind", "strength", "says"), [("rain", 1, "fog, night"), ("fog", 0, "1 to 5")]
)
def test_other_corruptions_are_refused(kind, strength, says, street):
    with pytest.raises(dm.UsageError, match=says):
        corrupt(street.image, kind, strength)
    with pytest.raises(dm.UsageError, match=says):
        Corrupted(SyntheticStreets(1), kind, strength)


def test_no_image_is_refused():
    with pytest.raises(dm.UsageError, match="uint8"):
        corrupt(torch.zeros(3, 4, 4), "fog", 1)


def test_images_are_known_again_under_other_names(tmp_path):
    for folder, names in (("one", "ab"), ("two", "cd")):
        for part in ("images", "labels"):
            (tmp_path / folder / part).mkdir(parents=True)
        for name, content in zip(names, (b"first", b"second"), strict=True):
            (tmp_path / folder / "images" / f"{name}.png").write_bytes(content)
            (tmp_path / folder / "labels" / f"{name}.png").write_bytes(b"")
        (tmp_path / folder / "doubtmap.toml").write_text(
            'images = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n[classes]\na = 0\n'
        )
    one, two = (dm.open_dataset(f"folder:{tmp_path / folder}") for folder in ("one", "two"))
    assert fingerprints(one) == fingerprints(two)
    assert len(set(fingerprints(one))) == 2
    assert fingerprints(one, [1]) == fingerprints(one)[1:]
    (tmp_path / "one" / "images" / "a.png").unlink()
    with pytest.raises(dm.DataError, match="cannot be read"):
        fingerprints(one)


def test_drawn_images_are_known_by_their_names():
    assert len(set(fingerprints(SyntheticStreets(3)))) == 3
