"""What the command line answers at once: help, version, completion, misspelt options."""

import os
import re
import subprocess
import sys

import pytest

from doubtmap.calibration import METHODS
from doubtmap.cli.app import VERBS
from doubtmap.scores import OF_MEMBERS, STATELESS
from doubtmap.scores.parsing import FITTED
from doubtmap.studies.analyses import ANALYSES
from doubtmap.training.negative_learning import DIVERGENCES
from doubtmap.training.negatives import KINDS
from doubtmap.training.networks import CONFIGURATIONS
from doubtmap.training.settings import OPTIMIZERS, PRECISIONS, SCHEDULES
from doubtmap.training.teachers import TARGETS

HEAVY = ("torch", "scipy", "numpy", "PIL", "jinja2")
COUNTING = f"""
import atexit, sys
atexit.register(lambda: print("heavy:", [m for m in {HEAVY} if m in sys.modules], file=sys.stderr))
from doubtmap.cli import main
sys.argv[0] = "doubtmap"
main()
"""


def ask(*words, **environment):
    """What a fresh process says, and which heavy modules it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"} | environment,
        check=False,
    )
    said, _, heavy = done.stderr.rpartition("heavy:")
    return done.returncode, done.stdout, said, heavy.strip()


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("-h",), ()], ids=str)
def test_the_program_itself_answers_at_once(words):
    code, out, err, heavy = ask(*words)
    assert heavy == "[]" and "Traceback" not in err
    assert (code, bool(out)) == ((0, True) if words else (2, True))


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command_answers_at_once(verb):
    code, out, _, heavy = ask(verb, "-h")
    assert (code, heavy) == (0, "[]")
    example = re.split(r"Example: *\n", out)[1].strip().splitlines()
    assert len(example) == 3
    assert all("doubtmap" in line for line in example)
    titles = re.findall(r"╭─ (\w[\w :]*) ─", out)
    places = [titles.index(t) for t in ("Model", "Data", "Scores", "Output") if t in titles]
    assert places == sorted(places) and titles[-1] == "Running"
    for option in ("--config", "--verbose", "-v", "--quiet", "-q", "--help", "-h"):
        assert option in out.split("─ Running ─")[1]


MISUSE = [
    (["evaluate", "demo"], "Missing argument 'DATA'"),
    (["evaluate", "demo", "synthetic:4", "--nope"], "No such option: --nope"),
    (["evaluate", "demo", "synthetic:4", "--mean", "1,x"], "--mean: expected numbers"),
    (["evaluate", "demo", "synthetic:4", "--input-size", "12"], "--input-size: expected HxW"),
    (["evaluate", "demo", "synthetic:4", "--component-sizes", "x"], "two numbers"),
    (["evaluate", "demo", "synthetic:4", "--repeats", "2"], "expected --paste"),
    (["score", "demo", "x.png", "--limit", "0"], "--limit"),
    (["train", "synthetic:4", "--out", "x", "--recipe", "plian"], "--recipe: expected one of"),
    (["train", "synthetic:4", "--out", "x", "--folds", "2"], "--recipe: expected dudes"),
    (["train", "synthetic:4", "--out", "x", "--epochs", "0"], "expected --epochs to be at least"),
    (["train", "synthetic:4", "--out", "x", "--crop", "9"], "--crop: expected HxW"),
    (["train", "synthetic:4", "--out", "x", "--dropout-rate", "2"], "expected --dropout-rate to"),
    (["train", "synthetic:4", "--out", "x", "--weight-decay", "-1"], "expected --weight-decay to"),
    (["threshold", "demo", "synthetic:4"], "expected --scores, --of, --by and --out"),
    (["objects", "demo", "x.png", "--threshold", "much"], "--threshold: expected a number"),
    (["analyse", "size", "demo", "synthetic:4"], "expected one of capacity"),
    (["calibrate", "demo", "synthetic:4", "--calibrator", "x"], "expected a raw network"),
    (["review", "demo", "x.png"], "Missing option"),
    (["watch", "demo"], "expected new images, --reference DATA or --labelled DATA"),
    (["no-such-verb"], "No such command"),
]


@pytest.mark.parametrize(("words", "says"), MISUSE, ids=lambda v: " ".join(v) if v else "")
def test_misuse_answers_at_once_and_names_options(words, says):
    code, out, err, heavy = ask(*words)
    assert (code, out, heavy) == (2, "", "[]")
    assert says in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_completion_answers_at_once():
    code, out, _, heavy = ask(
        _DOUBTMAP_COMPLETE="complete_bash", COMP_WORDS="doubtmap ev", COMP_CWORD="1"
    )
    assert (code, out.split(), heavy) == (0, ["evaluate"], "[]")
    _, out, _, heavy = ask(
        _DOUBTMAP_COMPLETE="complete_bash", COMP_WORDS="doubtmap train --fl", COMP_CWORD="2"
    )
    assert {"--flow", "--flow-steps", "--flow-rate"} <= set(out.split()) and heavy == "[]"
    assert "--install-completion" in ask("--help")[1]


def test_python_m_doubtmap_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "doubtmap", "score", "-h"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: doubtmap score" in done.stdout


@pytest.fixture
def said(run, monkeypatch):
    """The help of a command as one line."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(verb):
        return " ".join(run(verb, "--help")[1].replace("│", " ").split())

    return call


@pytest.mark.parametrize(
    ("verb", "known"),
    [
        ("calibrate", METHODS),
        ("calibrate", ["all that keep labels, but for meta"]),
        ("evaluate", [*STATELESS, *OF_MEMBERS, *FITTED]),
        ("analyse", ANALYSES),
        ("train", [*DIVERGENCES, *TARGETS, *KINDS, *OPTIMIZERS, *PRECISIONS, *SCHEDULES]),
        ("train", CONFIGURATIONS),
    ],
)
def test_help_names_all_that_is_known(said, verb, known):
    text = said(verb)
    assert [name for name in known if name not in text] == []


def test_a_command_says_in_the_list_what_it_says_of_itself(said):
    for verb, (_, sentence) in VERBS.items():
        assert f" {verb} [OPTIONS]" in said(verb)
        assert sentence in said(verb)


def test_a_recipe_has_a_group_of_its_own(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    groups = run("train", "--help")[1].split("╭─ ")
    of = {group.split(" ─")[0]: group for group in groups}
    assert "--coefficient" in of["Recipe: spectral"] and "--members" in of["Recipe: ensemble"]
    assert "--teachers" in of["Recipe: dudes"] and "--flow-steps" in of["Recipe: nflowjs"]
    assert "--crop" in of["Training"] and "--flow" not in of["Training"]
