"""The default score on the command line: without a fit, fitted to photographs, beside others."""

import json

import pytest
import torch
from PIL import Image

from doubtmap.datasets import open_dataset, open_images
from doubtmap.datasets.dataset import VOID
from doubtmap.scores import DEFAULT, STATELESS, Doubt


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A plain folder of images without labels."""
    folder = tmp_path_factory.mktemp("photographs")
    dataset = open_dataset("synthetic:6", seed=7)
    for index in range(6):
        image = dataset[index].image.permute(1, 2, 0).numpy()
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def fitted(run, photographs, tmp_path):
    file = tmp_path / "town.dm"
    code, out, err = run("fit", "doubt", "demo", photographs, "--out", file)
    assert code == 0, err
    assert "from 6 images, over 112 features of sixteenth.1; use it with --scores doubt:" in out
    assert "images left out of the fit deviate" in err
    return file


def test_all_scores_and_a_fitted_one_in_one_run(run, fitted, tmp_path):
    code, out, err = run(
        "evaluate", "demo", "synthetic:2", "--scores", f"all,doubt:{fitted}", "--json",
        "--out", tmp_path / "results", "--replicates", 20,
    )  # fmt: skip
    assert code == 0, err
    assert list(json.loads(out)["scores"]) == [*STATELESS, "doubt:town"]
    assert next(iter(json.loads(out)["scores"])) == DEFAULT


def test_the_file_knows_the_images_that_taught_it(run, tmp_path):
    file = tmp_path / "d.dm"
    assert run("fit", "doubt", "demo", "synthetic:3", "--out", file)[0] == 0
    assert len(Doubt.load(file).origin.images) == 3
    code, out, err = run(
        "evaluate", "demo", "synthetic:3", "--scores", f"doubt:{file}", "--json",
        "--out", tmp_path / "results", "--replicates", 20,
    )  # fmt: skip
    assert code == 0, err
    assert any("3 of 3 images" in note for note in json.loads(out)["notes"])


def test_score_writes_doubt_where_none_is_named(run, photographs, tmp_path):
    code, _, err = run("score", "demo", photographs / "0.png", "--out", tmp_path)
    assert code == 0, err
    assert (tmp_path / "doubt" / "0.png").exists()


def test_photographs_are_images_without_labels(photographs):
    dataset = open_images(str(photographs))
    assert (len(dataset), dataset.sample_name(3), dataset.class_names) == (6, "3", ())
    assert dataset[3].label.unique().tolist() == [VOID]
    torch.testing.assert_close(dataset[3].image, open_dataset("synthetic:6", seed=7)[3].image)
    assert len(open_images(str(photographs / "?.png"))) == 6
    assert len(open_images("synthetic:2")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["doubt", "demo", "synthetic:1"], 1, "at least 2 images, better 10 to 100, got 1"),
        (["doubt", "demo,demo", "synthetic:2"], 2, "one network whose inner layers"),
        (["doubt(layer=nowhere)", "demo", "synthetic:2"], 2, "name of a layer"),
        (["doubt(weight=-1)", "demo", "synthetic:2"], 2, "weight of at least 0"),
        (["doubt", "demo", "nowhere"], 2, "LAYOUT:PATH"),
    ],
)
def test_bad_fits(run, tmp_path, arguments, code, message):
    found, out, err = run("fit", *arguments, "--out", tmp_path / "d.dm")
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_the_file_of_one_score_is_none_of_another(run, fitted, photographs, tmp_path):
    code, _, err = run(
        "score", "demo", photographs, "--scores", f"density:{fitted}", "--out", tmp_path
    )
    assert code == 1
    assert "expected a fitted density" in err


def test_few_images_are_told(run, tmp_path):
    code, _, err = run("fit", "doubt", "demo", "synthetic:2", "--out", tmp_path / "d.dm")
    assert code == 0
    assert "fitted to 2 images, fewer than 5" in err


def test_a_density_of_predicted_classes_needs_no_labels(run, photographs, tmp_path):
    line = ("demo", photographs, "--limit", 2, "--out", tmp_path / "d.st")
    code, _, err = run("fit", "density(labels=predicted)", *line)
    assert code == 0, err
    code, _, err = run("fit", "density", *line)
    assert code == 2 and "LAYOUT:PATH" in err


def test_all_scores_and_others_of_images(run, photographs, tmp_path):
    line = ("demo", photographs / "0.png", "--scores", "all,island(cell=16)", "--format", "npy")
    code, _, err = run("score", *line, "--out", tmp_path)
    assert code == 0, err
    wanted = {"classes", "overlay", "island_cell=16", *STATELESS}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == wanted


def test_all_scores_leave_out_what_an_ensemble_cannot_give(run, photographs, tmp_path):
    line = ("demo,demo", photographs / "0.png", "--scores", "all", "--out", tmp_path)
    code, _, err = run("score", *line)
    assert code == 0, err
    assert "energy: left out" in err and "gradient: left out" in err
    assert (tmp_path / "mutual_information").is_dir() and not (tmp_path / "energy").exists()
