"""Figures by case: known bodies, MONAI's own code, and a command over labelled volumes."""

import csv
import json

import numpy as np
import pytest
import torch

import doubtmap as dm
from doubtmap.datasets.dataset import VOID
from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.cases import Cases
from doubtmap.prediction import showing
from doubtmap.scores.parsing import parse_scores
from doubtmap.volumes.labelled import open_volumes
from doubtmap.volumes.nifti import Volume, score_volume
from doubtmap.volumes.surfaces import surface_figures

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")

AFFINE = np.diag([0.8, 0.7, 2.5, 1.0])
NAMES = {"background": 0, "liver": 1, "tumour": 2}


def test_two_planes_are_as_far_apart_as_they_are():
    ours, theirs = np.zeros((2, 9, 4, 4), bool)
    ours[2], theirs[5] = True, True
    for tolerance, share in ((5.9, 0), (6, 1)):
        figures = surface_figures(ours, theirs, (2, 1, 1), tolerance)
        assert figures == {"surface_dice": share, "surface_distance": 6, "hd95": 6}
    assert surface_figures(ours, ours, (2, 1, 1), 0)["surface_dice"] == 1
    nothing = np.zeros_like(ours)
    assert surface_figures(ours, nothing, (1, 1, 1), 1) == {
        "surface_dice": 0,
        "surface_distance": None,
        "hd95": None,
    }
    assert set(surface_figures(nothing, nothing, (1, 1, 1), 1).values()) == {None}


MONAI = (
    (0.994100, 0.321028, 1.000000),
    (0.780952, 0.821855, 2.000000),
    (0.961644, 0.508916, 0.989949),
    (0.996503, 0.329667, 0.700000),
    (0.623053, 0.943981, 2.500000),
    (0.698225, 0.840737, 2.500000),
)
"""By seed, what MONAI 1.6.1 said of these bodies: `compute_surface_dice` (1.2),
`compute_average_surface_distance` (symmetric) and `compute_hausdorff_distance` (95). Kept here, as
its import takes longer than all tests of this room."""


@pytest.mark.parametrize("seed", range(len(MONAI)))
def test_figures_are_those_of_monai(seed):
    random = np.random.default_rng(seed)
    spacing = tuple(random.choice((0.7, 1.0, 2.5), 3).tolist())
    pair = random.random((2, 7, 9, 8)) > random.uniform(0.3, 0.9)
    pair[:, 3, 4, 4] = True
    figures = surface_figures(*pair, spacing, 1.2)
    found = [figures[key] for key in ("surface_dice", "surface_distance", "hd95")]
    assert found == pytest.approx(MONAI[seed], abs=1e-6)


@pytest.fixture
def folder(tmp_path):
    """Two cases of different sizes; labels are what a threshold of the image says, but for one."""
    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    for name, shape in (("anna", (18, 14, 5)), ("bert", (12, 16, 4))):
        image = random.integers(0, 256, shape).astype(np.uint8)
        label = (image > 90).astype(np.uint8) + (image > 200)
        label[:, :, 1] = np.roll(label[:, :, 1], 1, 0)
        label[0, 0, 0] = 9
        nibabel.save(nibabel.Nifti1Image(image, AFFINE), tmp_path / f"imagesTr/{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, AFFINE), tmp_path / f"labelsTr/{name}.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": NAMES | {"ignore": 9}}))
    return tmp_path


class Thresholds(torch.nn.Module):
    """Right wherever labels were not moved."""

    def forward(self, x):
        grey = x[:, :1] * 255
        return torch.cat([90.5 - grey, torch.zeros_like(grey), grey - 200.5], 1)


@pytest.fixture
def network():
    return dm.load(Thresholds(), mean=[0] * 3, std=[1] * 3, classes=list(NAMES))


def test_slices_are_those_of_the_volumes(folder):
    assert dm.open_dataset(f"volumes:{folder}").fields == open_volumes(str(folder)).fields
    volumes = open_volumes(str(folder), range=(0, 255))
    assert len(volumes) == 9 and volumes.class_names == tuple(NAMES)
    image = np.asarray(nibabel.load(folder / "imagesTr/bert_0000.nii.gz").dataobj)
    label = np.asarray(nibabel.load(folder / "labelsTr/bert.nii.gz").dataobj)
    sample = volumes[5]
    assert sample.name == volumes.sample_name(5) == "bert_slice000"
    assert volumes.fields[5] == {"case": "bert", "slice": "000"}
    np.testing.assert_array_equal(sample.image[0], image[:, :, 0].T)
    meant = np.where(label[:, :, 0].T == 9, VOID, label[:, :, 0].T.astype(int))
    np.testing.assert_array_equal(sample.label, meant)
    assert volumes.spacing_of("bert") == pytest.approx((2.5, 0.7, 0.8))
    across = open_volumes(str(folder), axis=0)
    assert len(across) == 30 and across.spacing_of("anna") == pytest.approx((0.8, 2.5, 0.7))


def test_a_fourth_axis_of_one_is_none(folder):
    flat = [*open_volumes(str(folder), range=(0, 255))][:5]
    for path in folder.glob("*Tr/anna*"):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)[..., None]
        nibabel.save(nibabel.Nifti1Image(values, image.affine), path)
    deep = open_volumes(str(folder), range=(0, 255))
    for at in range(5):
        assert torch.equal(deep[at].label, flat[at].label)
        assert torch.equal(deep[at].image, flat[at].image)


def evaluated(network, folder, **about):
    cases = Cases("case", about.pop("tolerance", 1.0))
    data = open_volumes(str(folder), range=(0, 255))
    options = Options(cases=cases)
    return dm.evaluate(network, data, "entropy", replicates=20, options=options, **about).figures


def test_each_case_has_the_figures_of_its_volume(network, folder):
    found = evaluated(network, folder)["by"]
    assert list(found["cases"]) == ["anna", "bert"] and found["field"] == "case"
    for name, case in found["cases"].items():
        image = np.asarray(nibabel.load(folder / f"imagesTr/{name}_0000.nii.gz").dataobj)
        label = np.asarray(nibabel.load(folder / f"labelsTr/{name}.nii.gz").dataobj)
        said = (image > 90).astype(int) + (image > 200)
        said = np.where(label == 9, -1, said)
        assert set(case["dice"]) == {"liver", "tumour"}
        for index, thing in ((1, "liver"), (2, "tumour")):
            ours, theirs = said == index, label == index
            dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
            assert case["dice"][thing] == pytest.approx(dice)
            whole = surface_figures(ours, theirs, (0.8, 0.7, 2.5), 1.0)
            for key, value in whole.items():
                assert case[key][thing] == pytest.approx(value, rel=1e-6)
        assert case["mean"]["dice"] == pytest.approx(np.mean(list(case["dice"].values())))
        assert 0 <= case["scores"]["entropy"]["auroc"] <= 1
    both = [case["mean"]["hd95"] for case in found["cases"].values()]
    assert found["mean"]["hd95"] == pytest.approx(np.mean(both))


def test_a_run_that_goes_on_has_the_same_cases(network, folder, tmp_path):
    whole = evaluated(network, folder)["by"]

    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluated(network, folder, out=out, progress=stop)
    assert evaluated(network, folder, out=out, resume=True)["by"] == whole
    label = folder / "labelsTr/anna.nii.gz"
    with pytest.raises(KeyboardInterrupt):
        evaluated(network, folder, out=out, progress=stop)
    nibabel.save(nibabel.Nifti1Image(np.zeros((18, 14, 5), np.uint8), AFFINE), label)
    with pytest.raises(UsageError, match="drawn"):
        evaluated(network, folder, out=out, resume=True)


@pytest.mark.parametrize("order", ["zyx", "xyz"])
def test_saved_predictions_of_whole_volumes_belong_to_their_slices(network, folder, order):
    saved = folder / "saved"
    saved.mkdir()
    for name in ("anna", "bert"):
        image = np.asarray(nibabel.load(folder / f"imagesTr/{name}_0000.nii.gz").dataobj)
        grey = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 1, 0)).astype(np.float32))
        logits = Thresholds()(grey[:, None] / 255).movedim(1, 0).numpy()  # (C, z, y, x)
        np.save(saved / f"{name}.npy", logits if order == "zyx" else logits.transpose(0, 3, 2, 1))
    kept = dm.load(f"saved:{saved}", classes=list(NAMES))
    found = evaluated(kept, folder)["by"]
    assert found["cases"] == evaluated(network, folder)["by"]["cases"]
    volume = Volume(folder / "imagesTr/anna_0000.nii.gz", range=(0, 255))
    doubt, expected = (
        score_volume(each, volume, parse_scores("entropy")) for each in (kept, network)
    )
    for name in ("classes", "entropy"):  # `score` of a volume finds what was saved of it, too
        np.testing.assert_allclose(doubt[name], expected[name], atol=1e-5)
    np.save(saved / "anna.npy", np.zeros((3, 5, 6, 7), np.float32))
    with pytest.raises(DataError, match=r"anna.npy: expected scores \(C, slices, 14, 18\)"):
        evaluated(dm.load(f"saved:{saved}", classes=list(NAMES)), folder)


def test_a_cube_is_taken_as_nnu_net_writes_it_and_a_note_says_so(tmp_path):
    cube = np.random.default_rng(0).normal(size=(3, 6, 6, 6)).astype(np.float32)
    np.save(tmp_path / "case.npy", cube)
    network = dm.load(f"saved:{tmp_path}", classes=list(NAMES))
    with showing("case_slice002"):
        prediction = network(torch.zeros(1, 3, 6, 6))
    np.testing.assert_allclose(prediction.native_logits[0], cube[:, 2])
    (told,) = [note for note in network.description["notes"] if "several orders" in note]
    assert told.endswith("is taken for (C, slices, rows, columns).")


def test_the_command_writes_a_table(folder, run, tmp_path):
    (tmp_path / "network.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Conv2d(3, 3, 1)\n"
    )
    line = ["evaluate", f"python:{tmp_path}/network.py:build", f"volumes:{folder}:Tr"]
    line += ["--classes", ",".join(NAMES), "--scores", "entropy", "--out", tmp_path / "out"]
    code, _, error = run(*line, "--by", "case", "--tolerance", "2")
    assert code == 0, error
    assert "mean over 2 cases: dice" in error
    rows = list(csv.DictReader((tmp_path / "out/cases.csv").read_text().splitlines()))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in ("anna", "bert") for name in ("liver", "tumour")
    ]
    page = (tmp_path / "out/report.html").read_text()
    table = page[page.index('<section id="cases"') :].partition("</section>")[0]
    assert 'data-sort="5">5</td>' in table.replace(' title="5"', "")
    assert table.count('<th scope="row"') == 2 and "hd95" in table and "Means over all" in table
    first = json.loads((tmp_path / "out/results.json").read_text())["by"]["cases"]
    worst = min(first, key=lambda name: first[name]["mean"]["dice"])
    assert f'<th scope="row" data-sort="{worst}"' in table.partition("</tr>\n<tr>")[0]
    code, _, error = run(*line, "--by", "town")
    listed = "Its images have case, slice, sequence (by their names)."
    assert (code, listed in " ".join(error.split())) == (2, True)
    code, _, error = run(*line, "--tolerance", "2")
    assert (code, "expected --by case" in error) == (2, True)


def test_what_does_not_belong_together_is_named(folder):
    with pytest.raises(DataError, match="expected a folder imagesTs"):
        open_volumes(f"{folder}:Ts")
    path = folder / "labelsTr/anna.nii.gz"
    label = np.asarray(nibabel.load(path).dataobj).copy()
    moved = AFFINE.copy()
    moved[0, 3] = 5
    nibabel.save(nibabel.Nifti1Image(label, moved), path)
    with pytest.raises(DataError, match=r"in the place of anna_0000\.nii"):
        open_volumes(str(folder))[0]
    nibabel.save(nibabel.Nifti1Image(label[:-1], AFFINE), path)
    with pytest.raises(DataError, match=r"expected labels of \(18, 14, 5\) voxels"):
        open_volumes(str(folder))[0]
    label[1, 1, 0] = 7
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), path)
    with pytest.raises(DataError, match=r"got 7\. Name it"):
        open_volumes(str(folder))[0]
    path.unlink()
    with pytest.raises(DataError, match=r"expected labels .*anna\.nii\.gz, found none"):
        open_volumes(str(folder))
