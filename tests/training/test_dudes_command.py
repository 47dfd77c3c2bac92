"""`doubtmap train --recipe dudes`: what it prints, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_school import images_of, taught

import doubtmap as dm
from doubtmap.models.distilled import FILE
from doubtmap.training import Settings, train


@pytest.fixture(scope="module")
def stranger(school, stripes, tmp_path_factory):
    """Two networks of other classes."""
    folder = tmp_path_factory.mktemp("strangers")
    data, settings = dm.open_dataset(f"{stripes}:train"), Settings(epochs=1, batch=4)
    options = {"model": school[1], "hold_out": ("water",), "settings": settings}
    train(data, folder, members=2, **options)
    return folder


@pytest.fixture
def asked(stripes, network):
    return ["train", f"{stripes}:train", "--model", network, "--hold-out", "mud", "--epochs", 1,
            "--batch", 4, "--workers", 1, "--recipe", "dudes"]  # fmt: skip


@pytest.mark.parametrize("target", ["spread", "mean"])
def test_the_command_prints_a_model_that_loads(
    run, asked, school, stripes, target, validation_set, tmp_path
):
    options = ["--target", target, "--mask-void", "--cache", tmp_path / "cache"]
    code, out, err = run(
        *asked, "--teachers", ",".join(school[2]), *options, "--out", tmp_path / "run"
    )
    assert code == 0 and "epoch 1: " in err
    segmenter = dm.load(out.strip())
    prediction = segmenter(images_of(validation_set)[0])
    assert (tmp_path / "run" / FILE).exists() == (target == "spread")
    if target == "spread":
        assert dm.scores.distilled(prediction).shape == (1, 24, 32)
        assert segmenter.source.notes[-1].endswith("disagree about: spread.")
    image = Path(stripes.removeprefix("folder:"), "images", "val", "00.png")
    options = ["--scores", "distilled", "--format", "npy", "--out", tmp_path / "maps"]
    code, _, err = run("score", out.strip(), image, *options)
    assert code == (0 if target == "spread" else 1)
    if target == "spread":
        drawn = torch.from_numpy(np.load(tmp_path / "maps" / "distilled" / "00.npy"))
        torch.testing.assert_close(drawn.float(), dm.scores.distilled(prediction)[0])
    else:
        assert "distilled: needs a network with a second head" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("teachers", "options", "code", "sentence"),
    [
        (1, [], 2, "--teachers: expected two or more networks, got 1."),
        (0, [], 2, "--teachers: expected two or more networks, got 0."),
        ("twice", [], 2, "got the same weights twice"),
        ("others", [], 2, "student's classes (grass, stone, water), got grass, stone, mud."),
        ("mixed", [], 2, "ensemble: expected the classes of the first member"),
        (3, ["--target", "spred"], 2, "--target: expected one of spread, mutual_information"),
        (3, ["--hidden", -1], 2, "--hidden: expected a number of channels, or 0"),
        (3, ["--target", "mean", "--freeze"], 2, "--freeze: expected a target that"),
        (3, ["--recipe", "plain"], 2, "--recipe: expected dudes, the only one with --teachers"),
        (0, ["--recipe", "plain", "--freeze"], 2, "--freeze, --mask-void, --hidden, --layers and"),
        (3, ["--recipe", "nflowjs", "--freeze"], 2, "--recipe: expected dudes, the only one with"),
        (0, ["--recipe", "spectral", "--folds", 2], 2, "--recipe: expected dudes, the only one"),
        (3, ["--freeze-flow"], 2, "--recipe: expected nflowjs, the only one with --negatives"),
        (3, ["--coefficient", 9], 2, "--recipe: expected spectral, the only one with --coeff"),
        (3, ["--members", 3], 2, "--recipe: expected ensemble, the only one with --members, got"),
        (0, ["--recipe", "plain", "--coefficient", 9], 2, "got plain. Give --recipe spectral, or"),
        (3, ["--layers", "2"], 2, "--layers: expected a hidden layer of the second head"),
        (3, ["--layers", "9", "--hidden", 4], 2, "layer: expected the name of a layer of this"),
        (3, ["--layers", "4", "--hidden", 4], 1, "to call 4 before its classifier, but it did"),
        (3, ["--folds", 2], 2, "--folds: expected a number of folds from 2 on, and --cache"),
        (3, ["--folds", 0], 2, "--folds: expected a number of folds"),
        (3, ["--folds", 2, "--cache", "c"], 2, "as many networks for each of 2 folds"),
        (3, ["--without-fold", "3/2"], 2, "--without-fold: expected a fold and their number"),
        ("missing", [], 2, "Check the path"),
    ],
)
def test_failures_are_one_sentence(
    run, asked, school, stranger, teachers, options, code, sentence, tmp_path
):
    folder, network, names = school
    given = {
        "twice": [names[0], names[1], names[0]],
        "others": [taught(network, stranger, name) for name in "12"],
        "mixed": [names[0], "demo"],
        "missing": [names[0], str(folder / "none")],
    }.get(teachers, names[: teachers if isinstance(teachers, int) else 0])
    result, out, err = run(
        *asked, "--teachers", ",".join(given), *options, "--out", tmp_path / "run"
    )
    assert (result, out) == (code, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("doubtmap: ") and sentence in last


def test_a_plain_network_asked_for_distilled_fails_with_a_sentence(run, tmp_path):
    code, out, err = run(
        "evaluate", "demo", "synthetic:1", "--scores", "distilled", "--out", tmp_path / "out"
    )
    assert (code, out) == (1, "")
    assert "doubtmap: distilled: needs a network with a second head" in err.splitlines()[-1]
