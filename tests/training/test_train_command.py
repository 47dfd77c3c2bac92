"""`doubtmap train`: outputs, exit codes, and errors of one sentence."""

import sys

import pytest

from doubtmap import load
from doubtmap.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; returns exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["doubtmap", "train", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def asked(stripes, network, tmp_path):
    quick = ["--hold-out", "mud", "--epochs", 1, "--batch", 4, "--workers", 1]
    return [f"{stripes}:train", "--model", network, *quick, "--out", tmp_path / "run"]


def test_the_model_is_on_stdout_and_the_epochs_on_stderr(run, asked, stripes, network, tmp_path):
    code, out, err = run(*asked, "--validation", f"{stripes}:val")
    assert (code, out) == (0, f"{network}@{tmp_path / 'run'}\n")
    assert "epoch 1: loss " in err and ", val mIoU 0." in err
    assert "the network of epoch 1, the best, with a validation mIoU of 0." in err


def test_an_ensemble_is_named_as_other_commands_take_it(run, asked, network, tmp_path):
    code, out, err = run(*asked, "--recipe", "ensemble", "--members", 2)
    assert code == 0 and "member 2 of 2" in err and "the network of epoch 1, the last." in err
    assert out == f"{network}@{tmp_path / 'run' / '1'},{network}@{tmp_path / 'run' / '2'}\n"
    assert load(out.strip()).class_names == ("grass", "stone", "water")


def test_notes_are_told_once_before_the_epochs(run, asked, stripes, tmp_path):
    """Not again for each member of an ensemble."""
    options = ["--model", "demo", "--crop", "64x64", "--recipe", "ensemble", "--members", 2]
    code, _, err = run(*asked, *options)
    assert code == 0 and err.count("note: ") == 1 and "its classifier was made anew" in err
    assert err.index("note: ") < err.index("epoch 1: ") and err.count("epoch 1: ") == 2


def test_settings_reach_the_run(run, asked, tmp_path):
    options = ["--crop", "16x20", "--rate", 0.5, "--optimizer", "sgd", "--class-weights", "root"]
    options += ["--no-augment", "--schedule", "cosine", "--clip", 0, "--dropout-rate", 0.2]
    options += ["--recipe", "spectral", "--coefficient", 2, "--normalize-batch-norm"]
    assert run(*asked, *options)[0] == 0
    text = (tmp_path / "run" / "training" / "settings.json").read_text()
    for line in (
        '"class_weights": 0.5',
        '"augment": false',
        '"rate": 0.5',
        '"dropout": 0.2',
        '"coefficient": 2.0',
        '"batch_norm": true',
        '"optimizer": "sgd"',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            ["--recipe", "plian"],
            2,
            "--recipe: expected one of plain, spectral, ensemble",
        ),
        (["--recipe", "ensemble", "--members", 1], 2, "--members: expected at least 2"),
        (["--crop", "16"], 2, "--crop: expected HxW such as 360x480, got 16."),
        (["--class-weights", "much"], 2, "--class-weights: expected none, root, inverse or"),
        (["--hold-out", "wateer"], 2, "got wateer. Did you mean water?"),
        (["--batch", 100], 2, "a batch holds, 100, got 8 in stripes:train. Lower --batch."),
        (["--precision", "float16", "--device", "cpu"], 1, "expected a GPU for float16"),
        (["--model", "segformer-b9"], 2, "expected a network such as demo, segformer-b0"),
    ],
)
def test_failures_are_one_sentence(run, asked, options, code, sentence):
    result, out, err = run(*asked, *options)
    assert (result, out) == (code, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("doubtmap: ") and sentence in last


def test_a_second_run_needs_resume_and_the_same_settings(run, asked, tmp_path):
    code, _, err = run(*asked, "--resume")  # as after a kill before anything was written
    assert code == 0 and "found no run to go on with, and begins one." in err
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    code, _, err = run(*asked)
    assert code == 2 and "found one. Pass --resume to go on with it" in err
    code, _, err = run(*asked, "--resume", "--rate", 0.3)
    assert code == 2 and "but rate None became 0.3." in err
    assert run(*asked, "--resume")[0] == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
