"""`doubtmap fit segments` and `doubtmap review` from the command line."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import doubtmap
from doubtmap.cli import app, main


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "segments.safetensors"
    command = ["fit", "segments(kind=linear)", "demo", "synthetic:8", "--scores", "entropy"]
    return CliRunner().invoke(app, [*command, "--out", str(out)]), out


def test_fit_prints_figures_and_writes_a_file(fitted):
    result, out = fitted
    assert result.exit_code == 0, result.output
    assert "sizes and probabilities" in result.stdout
    assert "mIoU of an image: mean absolute error" in result.stdout
    assert out.exists()


def test_review_writes_a_page(fitted, tmp_path):
    sample = doubtmap.open_dataset("synthetic:1", seed=3)[0]
    Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    command = ["review", "demo", str(tmp_path / "a.png"), "--segments", str(fitted[1])]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 images reviewed")
    assert {path.name for path in out.iterdir()} == {
        ".files-of-review.json",
        "images.csv",
        "options.toml",
        "review.html",
        "review.json",
        "segments",
        "segments.csv",
    }


def test_the_report_shows_what_to_look_at_first(fitted, tmp_path):
    command = ["evaluate", "demo", "synthetic:2", "--scores", "entropy", "--replicates", "20"]
    result = CliRunner().invoke(
        app, [*command, "--segments", str(fitted[1]), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 < figures["review"]["found_area"] <= figures["review"]["found_area_oracle"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("in truth") == 2
    assert 'id="look-first"' in page


@pytest.mark.parametrize(
    "arguments,code,said",
    [
        (["fit", "segments(kind=forest)", "demo", "synthetic:2", "--out", "x"], 2, "linear or boo"),
        (
            ["fit", "segments(x=1)", "demo", "synthetic:2", "--out", "x"],
            2,
            "takes kind, target",
        ),
        (["fit", "segments", "demo", "synthetic:1", "--out", "x"], 2, "at least 2 images"),
        (["fit", "density", "demo", "synthetic:2", "--unknown", "a", "--out", "x"], 2, "--unknown"),
        (["review", "demo", "x.png", "--segments", "none"], 1, "doubtmap fit segments"),
    ],
)
def test_misuse_is_one_sentence(arguments, code, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("x.png")
    monkeypatch.setattr("sys.argv", ["doubtmap", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == code
    assert said in capsys.readouterr().err
