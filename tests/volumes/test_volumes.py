"""Volumes: each slice as an image, and back where it was."""

import json

import numpy as np
import pytest
import torch

import doubtmap as dm
from doubtmap.errors import DataError, UsageError
from doubtmap.scores.parsing import parse_scores
from doubtmap.volumes.nifti import Volume, is_volume, score_volume, write_volumes

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")

AFFINE = np.array([[-0.8, 0.1, 0, 90], [0, 0.8, 0, -120], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return dm.load(torch.nn.Conv2d(3, 4, 3, padding=1), mean=[0, 0, 0], std=[1, 1, 1])


def written(path, values):
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


@pytest.fixture
def scan(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 2000, (20, 24, 5)).astype(np.int16)
    return written(tmp_path / "scan.nii.gz", values), values


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_voxel_has_the_doubt_of_its_slice(segmenter, scan, tmp_path, axis):
    path, values = scan
    scores = parse_scores("entropy")
    write_volumes(segmenter, [path], scores, tmp_path / "o", axis=axis, range=(-1000, 2000))
    doubt = nibabel.load(tmp_path / "o/entropy/scan.nii.gz")
    classes = nibabel.load(tmp_path / "o/classes/scan.nii.gz")
    for index in range(values.shape[axis]):
        shown = np.rint((np.take(values, index, axis).T + 1000) / 3000 * 255)
        image = torch.from_numpy(shown.astype(np.uint8)).expand(1, 3, -1, -1)
        prediction = segmenter(image)
        expected = dm.scores.entropy(prediction)[0].T
        np.testing.assert_allclose(np.take(doubt.get_fdata(), index, axis), expected, atol=1e-6)
        np.testing.assert_array_equal(
            np.take(np.asarray(classes.dataobj), index, axis), prediction.classes[0].T
        )
    np.testing.assert_allclose(doubt.affine, AFFINE, atol=1e-6)
    assert doubt.header.get_xyzt_units() == ("mm", "sec")
    assert doubt.get_data_dtype() == np.float32
    assert doubt.header.get_slope_inter()[0] in (None, 1)


def test_the_range_is_said_where_nobody_gave_it(segmenter, scan, tmp_path):
    path, values = scan
    write_volumes(segmenter, [path], parse_scores("entropy"), tmp_path / "o")
    about = json.loads((tmp_path / "o/score.json").read_text())
    assert about["volumes"]["scan"]["range"] == pytest.approx(np.percentile(values, (0.5, 99.5)))
    assert "--range" in about["notes"][0]


def test_bands_lie_on_the_fourth_axis(scan, tmp_path):
    path = written(tmp_path / "four.nii", np.random.default_rng(1).random((8, 9, 3, 4)))
    volume = Volume(path, range=(0, 1))
    image = volume.image(1, (4, 1))
    np.testing.assert_array_equal(
        image, np.rint(volume.values[:, :, 1, [3, 0]].transpose(2, 1, 0) * 255)
    )
    network = dm.load(torch.nn.Conv2d(2, 3, 1), mean=[0, 0], std=[1, 1], bands=(5, 1))
    with pytest.raises(DataError, match="expected 5 bands"):
        score_volume(network, volume, parse_scores("entropy"))
    network = dm.load(torch.nn.Conv2d(2, 3, 1), mean=[0, 0], std=[1, 1], bands=(4, 1))
    found = score_volume(network, volume, parse_scores("entropy"))
    direct = network(volume.image(2, (1, 2, 3, 4))[None])
    np.testing.assert_array_equal(found["entropy"][:, :, 2], dm.scores.entropy(direct)[0].numpy().T)


def test_what_is_no_volume_is_one_sentence(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.nii: cannot be read as NIfTI"):
        Volume(tmp_path / "a.nii")
    with pytest.raises(DataError, match="expected a volume of three axes"):
        Volume(written(tmp_path / "flat.nii", np.zeros((4, 4), np.float32)))
    with pytest.raises(DataError, match="expected finite values"):
        Volume(written(tmp_path / "nan.nii", np.full((4, 4, 2), np.nan, np.float32))).image(0, (1,))
    with pytest.raises(UsageError, match="--axis"):
        Volume(written(tmp_path / "ok.nii", np.zeros((4, 4, 2), np.float32)), axis=3)
    assert is_volume("a/B.NII.GZ") and not is_volume("a.png")


def test_the_command_takes_a_volume(scan, tmp_path, run):
    path, _ = scan
    code, said, error = run("score", "demo", path, "--scores", "entropy", "--out", tmp_path / "o")
    assert (code, "1 of 1 volumes scored" in said) == (0, True), error
    assert "--range" in error


def test_volumes_of_one_name_have_places_of_their_own(segmenter, tmp_path):
    paths = []
    for subject in "abc":
        (tmp_path / subject / "anat").mkdir(parents=True)
        values = np.zeros((6, 5, 2), np.float32)
        paths.append(written(tmp_path / subject / "anat/T1w.nii.gz", values))
    said = write_volumes(segmenter, paths, parse_scores("entropy"), tmp_path / "o", range=(0, 1))
    assert said.startswith("3 of 3") and len(list((tmp_path / "o/entropy").iterdir())) == 3
