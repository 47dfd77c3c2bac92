"""Rooms that import what they give when it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import doubtmap
import doubtmap.scores
import doubtmap.training

HEAVY = ("torch", "scipy", "numpy", "PIL", "jinja2", "pydantic")
ROOMS = [doubtmap, doubtmap.scores, doubtmap.training]


def parts_of(room):
    """What type checkers are told, and the table that `lazily` is given, by module."""
    (choice,) = (
        n for n in ast.parse(Path(room.__file__).read_text()).body if isinstance(n, ast.If)
    )
    told = {n.module: sorted(alias.name for alias in n.names) for n in choice.body}
    call = choice.orelse[0].value
    table = {home: sorted(names) for home, names in ast.literal_eval(call.args[1]).items()}
    if call.keywords:
        table[room.__name__] = sorted(ast.literal_eval(call.keywords[0].value))
    return told, table


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_types_and_table_say_the_same(room):
    told, table = parts_of(room)
    assert told == table


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_names_are_what_their_modules_hold(room):
    for home, names in parts_of(room)[1].items():
        for name in names:
            found = getattr(importlib.import_module(home), name)
            assert getattr(room, name) is found and name in dir(room)
    assert set(room.__all__) <= set(dir(room))


@pytest.mark.parametrize("room", [doubtmap.scores, doubtmap.training], ids=lambda r: r.__name__)
def test_no_file_hides_a_name_of_its_room(room):
    files = {path.stem for path in Path(room.__file__).parent.glob("*.py")}
    assert not files & set(room.__all__)


def test_a_name_that_is_not_there_is_missed():
    with pytest.raises(AttributeError, match="module 'doubtmap' has no attribute 'laod'"):
        doubtmap.laod  # noqa: B018
    assert not hasattr(doubtmap.scores, "entropi")


@pytest.mark.parametrize(
    "line",
    [
        "import doubtmap",
        "import doubtmap.training",
        "from doubtmap.scores import STATELESS",
        "from doubtmap import UsageError, __version__",
    ],
)
def test_an_import_alone_is_light(line):
    code = f"{line}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_public_names_work_from_a_fresh_start():
    code = (
        "import doubtmap as dm, inspect\n"
        "from doubtmap import evaluate\n"
        "assert inspect.isfunction(dm.scores.entropy) and inspect.isfunction(dm.load)\n"
        "assert evaluate is dm.evaluate and dm.metrics.Ranking and dm.datasets.open_dataset\n"
        "from doubtmap.training import Trained, train\n"
        "assert inspect.isfunction(train)\n"
        "from doubtmap import *\n"
        "import sys\n"
        "assert 'torch._dynamo' not in sys.modules\n"  # the compiler: as long as PyTorch itself
    )
    subprocess.run([sys.executable, "-c", code], check=True)
