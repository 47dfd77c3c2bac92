"""What all commands share: --config and the options that a run keeps, --limit, -v and -q."""

import json
import logging
import tomllib

import pytest

from doubtmap.cli import main
from doubtmap.names import in_options
from doubtmap.progress import progress_bar

QUICK = ("--scores", "entropy", "--replicates", "20")


def evaluated(run, out, *more):
    return run("evaluate", "demo", "synthetic:3", *QUICK, "--out", out, *more)


def scores_of(out):
    figures = json.loads((out / "results.json").read_text())
    return {key: figures[key] for key in ("scores", "segmentation", "calibration", "data")}


def test_a_run_keeps_its_options_and_runs_again_from_them(run, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    assert evaluated(run, first, "--seed", "5", "--unknown", "rest", "--bins", "7")[0] == 0
    kept = tomllib.loads((first / "options.toml").read_text())
    assert kept["model"] == "demo" and kept["data"] == "synthetic:3" and kept["bins"] == 7
    assert kept["unknown"] == "rest" and kept["seed"] == 5 and kept["out"] == str(first)
    assert not {"config", "resume", "quiet", "json"} & kept.keys()
    code, _, err = run("evaluate", "--config", first / "options.toml", "--out", again)
    assert code == 0, err
    assert scores_of(first) == scores_of(again)
    text = (again / "options.toml").read_text()
    assert tomllib.loads(text) == kept | {"out": str(again)}
    assert f"doubtmap evaluate --config {again / 'options.toml'}" in text


def test_what_is_given_on_the_line_wins(run, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        f'model = "demo"\ndata = "synthetic:9"\nreplicates = 20\nseed = 3\n'
        f'scores = ["entropy", "margin"]\nout = "{tmp_path / "out"}"\n'
    )
    code, _, err = run("evaluate", "demo", "synthetic:2", "--config", file, "--seed", "4")
    assert code == 0, err
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (figures["data"]["images"], figures["seed"]) == (2, 4)
    assert set(figures["scores"]) == {"entropy", "margin"}


def test_arguments_and_switches_come_from_a_file_too(run, tmp_path, photograph):
    file = tmp_path / "mine.toml"
    file.write_text(
        f'model = "demo"\nimages = ["{photograph}"]\nout = "{tmp_path / "out"}"\n'
        f'skip-bad = true\ninput-size = "64x96"\n'
    )
    code, out, err = run("score", "--config", file)
    assert code == 0, err
    assert out.startswith("1 of 1 images scored")
    kept = tomllib.loads((tmp_path / "out" / "options.toml").read_text())
    assert kept["skip-bad"] is True and kept["images"] == [str(photograph)]
    assert kept["input-size"] == "64x96"


@pytest.fixture
def photograph(tmp_path):
    from PIL import Image

    path = tmp_path / 'a "quoted" name.png'
    Image.new("RGB", (48, 32), (90, 120, 40)).save(path)
    return tmp_path / "a*.png"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("input_size = 'image'", 2, "got input_size. Did you mean input-size?"),
        ("scoers = 'entropy'", 2, "got scoers. Did you mean scores?"),
        ("dragon = 1", 2, "See doubtmap evaluate --help."),
        ("config = 'x.toml'", 2, "got config"),
        ("json = 1", 2, "expected json to be true or false, got 1"),
        ("seed = true", 2, "expected seed to be text, a number, got True"),
        ("[scores]\nentropy = 1", 2, "expected scores to be text"),
        ("seed = 'many'", 2, "--seed"),
        ("seed = ", 1, "is not TOML"),
        pytest.param(f"seed = {'[' * 100_000}", 1, "is not TOML", id="nested"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(run, tmp_path, text, code, says):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    result, out, err = run("evaluate", "demo", "synthetic:2", "--config", file)
    assert (result, out) == (code, "")
    assert says in " ".join(err.replace("│", " ").split()) and "Traceback" not in err


def test_a_file_that_is_not_there_is_named(run, tmp_path):
    code, _, err = run("evaluate", "--config", tmp_path / "gone.toml")
    assert code == 1
    assert "gone.toml cannot be read" in err


def test_a_refused_run_leaves_the_options_of_the_one_before(run, tmp_path):
    out = tmp_path / "out"
    evaluated(run, out)
    before = (out / "options.toml").read_text()
    assert evaluated(run, out, "--scores", "entropi")[0] == 2
    assert (out / "options.toml").read_text() == before


def test_a_limit_looks_at_the_first_images_and_says_so(run, tmp_path):
    code, _, err = evaluated(run, tmp_path / "few", "--limit", "2")
    assert code == 0
    assert "note: --limit: only the first 2 of 3 images are looked at." in err
    figures = json.loads((tmp_path / "few" / "results.json").read_text())
    assert figures["data"]["images"] == 2
    assert any("--limit" in note for note in figures["notes"])
    assert figures["data"]["name"].endswith("(first 2)")
    run("evaluate", "demo", "synthetic:2", *QUICK, "--out", tmp_path / "two")
    assert scores_of(tmp_path / "few")["scores"] == scores_of(tmp_path / "two")["scores"]
    assert "--limit" not in evaluated(run, tmp_path / "all", "--limit", "3")[2]


def test_a_limit_of_photographs(run, tmp_path, photograph):
    (tmp_path / "b.png").write_bytes(next(tmp_path.glob("a*.png")).read_bytes())
    words = ("score", "demo", photograph, tmp_path / "b.png", "--out", tmp_path / "out")
    code, out, err = run(*words, "--limit", "1")
    assert code == 0 and out.startswith("1 of 1 images scored")
    assert "only the first 1 of 2 images" in err


def test_quiet_says_nothing_but_the_figures(run, tmp_path):
    code, out, err = evaluated(run, tmp_path / "out", "--limit", "2", "-q")
    assert (code, err) == (0, "")
    assert "entropy" in out
    code, _, err = evaluated(run, tmp_path / "out", "-q", "--scores", "entropi")
    assert code == 2 and err.startswith("doubtmap: ")


def test_verbose_says_what_is_done(run, tmp_path):
    _, _, usual = evaluated(run, tmp_path / "a")
    _, _, err = evaluated(run, tmp_path / "b", "--verbose")
    for line in ("model demo: ", "data synthetic:3: 3 images", "took "):
        assert line in err and line not in usual


def test_logging_is_as_before_after_a_command(run, tmp_path):
    log = logging.getLogger("doubtmap")
    before = (log.level, list(log.handlers))
    evaluated(run, tmp_path / "out", "-v")
    assert (log.level, list(log.handlers)) == before


def test_a_bar_is_drawn_on_a_terminal_only(capsys, monkeypatch):
    def shown():
        with progress_bar() as tell:
            tell("images", 1, 2)
            tell("images", 2, 2)
        return capsys.readouterr().err

    assert shown() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "images" in shown()
    logging.getLogger("doubtmap").setLevel(logging.ERROR)
    try:
        assert shown() == ""
    finally:
        logging.getLogger("doubtmap").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "load: expected input_size as (height, width) in pixels or 'image', got 'x'.",
            "load: expected --input-size as HxW in pixels or 'image', got 'x'.",
        ),
        (
            "load: expected input_size (512, 1024), the only one.",
            "load: expected --input-size 512x1024, the only one.",
        ),
        ("Pass input_size=(H, W), a size.", "Pass --input-size HxW, a size."),
        ("expected epochs to be at least 1, got 0.", "expected --epochs to be at least 1, got 0."),
        ("expected dropout to be a share", "expected --dropout-rate to be a share"),
        ("Pass epochs= with 5 of them.", "Pass --epochs with 5 of them."),
        ("Say others with epochs= (--epochs).", "Say others with --epochs."),
        ("/data/input_size/a.png: the epochs of input_sizes", None),
    ],
)
def test_messages_name_options(message, said):
    flags = {"input_size": "--input-size", "epochs": "--epochs", "dropout": "--dropout-rate"}
    assert in_options(message, flags) == (said or message)


def test_every_option_of_a_run_can_be_kept():
    """A round trip of awkward values through TOML."""
    from doubtmap.cli.configuration import _toml

    values = [
        'a "b" \\ c',
        "tab\tand\nline",
        "über",
        1e-4,
        float("inf"),
        -3,
        True,
        ["x", "y"],
        "\x7f",
    ]
    for value in values:
        assert tomllib.loads(f"key = {_toml(value)}")["key"] == value


def test_main_is_the_entry_point():
    assert main.__module__ == "doubtmap.cli.app"


def test_commands_of_one_score_take_it_by_its_older_name_too(run, tmp_path):
    file, out = tmp_path / "options.toml", tmp_path / "t.json"
    words = ("threshold", "demo", "synthetic:2", "--of", "wrong", "--by", "f1", "--out", out)
    written = []
    for given in (("--scores", "margin"), ("--score", "margin"), ("--score=margin",)):
        code, _, err = run(*words, *given)
        assert code == 0, err
        written.append(json.loads(out.read_text())["score"])
    file.write_text('score = "margin"')
    assert run(*words, "--config", file)[0] == 0
    assert [*written, json.loads(out.read_text())["score"]] == ["margin"] * 4
    assert "--score " not in run("threshold", "--help")[1]
    assert run("train", "synthetic:2", "--score", "margin", "--out", out)[0] == 2
