"""`fit wrong`, `threshold`, and `evaluate --threshold` on the command line."""

import json

import pytest

from doubtmap.decisions.file import load_threshold


def test_fuse_choose_and_evaluate(run, tmp_path):
    wrong, threshold = tmp_path / "wrong.safetensors", tmp_path / "threshold.json"
    code, out, err = run(
        "fit", "wrong", "demo", "synthetic:2", "--scores", "entropy,margin", "--out", wrong
    )
    assert code == 0, err
    assert out.endswith(f"of 2 scores; use it with --scores wrong:{wrong}\n")
    code, out, err = run(
        "threshold", "demo", "synthetic:3", "--score", f"wrong:{wrong}", "--of", "unknown",
        "--by", "risk", "--alpha", "0.3", "--out", threshold,
    )  # fmt: skip
    assert code == 2
    assert "2 of 3 images of synthetic:3 were used for the fit of wrong" in err
    code, out, err = run(
        "threshold", "demo", "synthetic:3", "--score", f"wrong:{wrong}", "--of", "unknown",
        "--by", "risk", "--alpha", "0.3", "--out", threshold, "--seed", 9,
    )  # fmt: skip
    assert code == 0, err
    found = load_threshold(threshold)
    assert (found.by, found.level, found.score) == ("risk", 0.3, f"wrong:{wrong}")
    assert out.startswith(f"{threshold}: wrong:{wrong} > ")
    assert found.origin.command.startswith("doubtmap threshold demo synthetic:3")
    code, out, err = run("threshold", "demo", "synthetic:2", "--seed", 5, "--check", threshold)
    assert code == 0, err
    assert "missed was to stay below 0.3" in out
    code, out, err = run(
        "evaluate", "demo", "synthetic:1", "--scores", f"entropy,wrong:{wrong}", "--json",
        "--threshold", threshold, "--out", tmp_path / "results", "--replicates", 20, "--seed", 5,
    )  # fmt: skip
    assert code == 0, err
    figures = json.loads(out)["scores"]
    assert figures["wrong"]["unknown"]["threshold_mode"] == "given"
    assert figures["wrong"]["unknown"]["threshold"] == found.threshold
    assert figures["entropy"]["unknown"]["threshold_mode"] == "oracle"
    assert "were used for" not in err
    assert "Threshold" in (tmp_path / "results" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--of", "unknown", "--by", "f1", "--at", "0.5"], 2, "no level with --by f1"),
        (["--of", "unknown", "--by", "risk", "--at", "0.5"], 2, "--at: expected it with --by tpr"),
        (["--of", "wrong", "--by", "tpr", "--alpha", "0.5"], 2, "--alpha: expected it with --by r"),
        (["--of", "some", "--by", "f1"], 2, "--of wrong or unknown"),
        (["--of", "wrong", "--by", "risk", "--alpha", "0.01"], 1, "at least 99 images"),
    ],
)
def test_bad_requests(run, tmp_path, options, code, message):
    file = tmp_path / "threshold.json"
    arguments = ["demo", "synthetic:2", "--score", "entropy", "--out", file, *options]
    found, out, err = run("threshold", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not file.exists()


def test_a_threshold_that_is_not_there(run, tmp_path):
    code, _, err = run(
        "evaluate", "demo", "synthetic:1", "--threshold", tmp_path / "x.json", "--out", tmp_path
    )
    assert code == 1
    assert "expected a threshold" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["wrong", "demo", "synthetic:2"], 2, "Give --scores entropy,margin"),
        (["wrong", "demo", "synthetic:1", "--scores", "entropy"], 2, "at least 2 images"),
        (
            ["density", "demo", "synthetic:2", "--scores", "entropy"],
            2,
            "wrong or segments only",
        ),
    ],
)
def test_bad_fits(run, tmp_path, arguments, code, message):
    file = tmp_path / "wrong.safetensors"
    found, out, err = run("fit", *arguments, "--out", file)
    assert (found, out) == (code, "")
    assert message in err
    assert not file.exists()
