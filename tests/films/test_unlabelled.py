"""Frames and slices without labels as data sets: each is there, in order, and known again."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import VOID, Dataset
from doubtmap.errors import DataError, UsageError

SIZE = (48, 64)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Twelve frames, each brighter than the one before but for the last four, which stand still."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from doubtmap.films.frames import write_film

    path = tmp_path_factory.mktemp("films") / "drive.mp4"
    frames = (np.full((*SIZE, 3), 16 * min(index, 8), np.uint8) for index in range(12))
    write_film(path, frames, Fraction(10))
    return path


def brightness(sample):
    return round(float(sample.image.float().mean()) / 16)


def test_frames_come_in_order(film):
    from doubtmap.films.unlabelled import Frames

    data = Frames([str(film)])
    assert isinstance(data, Dataset) and (len(data), data.name) == (12, "film:drive")
    assert [brightness(each) for each in data] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]
    assert data.sample_name(7) == "drive_000007" and brightness(data[2]) == 2
    assert data[0].image.shape == (3, *SIZE) and data[0].label.unique().tolist() == [VOID]
    few = Frames([str(film)], every=3, limit=3)
    assert [brightness(each) for each in few] == [0, 3, 6]
    assert fingerprints(few) == tuple(fingerprints(data)[at] for at in (0, 3, 6))
    assert len(set(fingerprints(data))) == 12  # also where the picture stands still


def test_several_films_and_folders_of_frames(film, tmp_path):
    from doubtmap.films.unlabelled import Frames

    for at in (1, 2, 10):
        Image.fromarray(np.full((*SIZE, 3), 16 * at, np.uint8)).save(tmp_path / f"{at}.png")
    data = Frames([str(film), f"frames:{tmp_path}"], limit=3)
    assert [brightness(each) for each in data] == [0, 1, 2, 1, 2, 10]


def test_a_stream_needs_an_end_and_may_have_one_too_early(film, monkeypatch):
    from doubtmap.films.frames import Film
    from doubtmap.films.unlabelled import Frames

    monkeypatch.setattr(Film, "count", None)
    with pytest.raises(UsageError, match=r"no known end. Add --limit N"):
        Frames([str(film)])
    data = Frames([str(film)], every=2, limit=7)
    assert [brightness(data[at]) for at in range(6)] == [0, 2, 4, 6, 8, 8]
    with pytest.raises(DataError, match="expected frame 12, but it ends after frame 10"):
        data[6]


def test_slices_come_as_score_sees_them_and_empty_ones_count(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    from doubtmap.volumes.nifti import Volume
    from doubtmap.volumes.unlabelled import Slices

    paths = tuple(tmp_path / f"case{k}_0000.nii.gz" for k in range(3))
    for seed, path in enumerate(paths):
        values = np.random.default_rng(seed).normal(0, 1, (6, 5, 4)).astype(np.float32)
        values[:, :, 2:] = 0
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    data = Slices(paths)
    assert isinstance(data, Dataset) and len(data) == 12
    assert data.sample_name(5) == "case1_slice001"
    for at, each in enumerate(data):
        expected = Volume(paths[at // 4]).image(at % 4, (1, 1, 1))
        assert torch.equal(each.image, expected) and each.label.unique().tolist() == [VOID]
    marks = fingerprints(data)
    assert len(set(marks)) == 12 and fingerprints(Slices(paths[1:])) == marks[4:]
    with pytest.raises(DataError, match="expected 4 bands or more"):
        data.with_bands(4)[0]
