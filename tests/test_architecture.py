"""The rooms of the house, and which may look into which."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

import doubtmap
from doubtmap.cli.app import VERBS

ROOT = Path(doubtmap.__file__).parent
MAP = (ROOT.parent / "docs" / "architecture.md").read_text()
DRAWING = re.search(r"\n    cli\n(?:    [a-z ]+\n)+", MAP).group(0)
LINES = [line.split() for line in DRAWING.strip().splitlines()]
"""As the map draws them: arrows point downward only; rooms of one line do not know each other."""
LEVEL = {room: level for level, rooms in enumerate(LINES) for room in rooms}
ALLOWED = {("datasets/opening.py", "streets")}
"""`open_dataset("synthetic:N")` makes what a room above draws, by an import inside the function."""


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("doubtmap"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("doubtmap."):
                    yield alias.name.split(".")[1]


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path):
    """Modules by name; of a name taken from a room, the module in which the room finds it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("doubtmap."):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MOST_FILES = 22
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent != ROOT or not path.stem.startswith("__")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    room = room_of(path)
    for other in imported_rooms(path):
        if other != room and (str(path.relative_to(ROOT)), other) not in ALLOWED:
            assert LEVEL[other] > LEVEL[room], f"{room} imports {other}"


def test_the_map_is_that_of_the_tree():
    assert {room_of(path) for path in FILES} == set(LEVEL)
    described = re.findall(r"^\| (`[a-z`, ]+`) \|", MAP, re.MULTILINE)
    assert {name for row in described for name in re.findall(r"[a-z]+", row)} >= set(LEVEL)


def test_files_that_the_map_names_are_there():
    for name in re.findall(r"`((?:[a-z_]+/)?[a-z_]+\.py)`", MAP):
        assert (ROOT / name).exists(), name


def test_files_that_contributing_names_are_there():
    """By their place below the repository; NAME stands for what is added."""
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:doubtmap|tests|docs|benchmarks)/[\w/.]*)`", text)
    assert named
    for path in named:
        assert "NAME" in path or (ROOT.parent / path).exists(), path


def test_no_room_is_crowded():
    """Commands do not count: each has a file of its own."""
    files = [path for path in FILES if not (room_of(path) == "cli" and path.stem in VERBS)]
    crowded = {
        room: count
        for room in LEVEL
        if (count := sum(room_of(path) == room for path in files)) > MOST_FILES
    }
    assert not crowded


def test_modules_import_each_other_in_one_direction():
    """No circle, within rooms either; imports inside functions and for types count too."""
    files = [path for path in FILES if path.stem != "__init__"]
    names = {name_of(path) for path in files}
    below = {name_of(path): names & set(imported_modules(path)) for path in files}
    while leaves := {name for name, names in below.items() if not names & set(below) - {name}}:
        below = {name: names for name, names in below.items() if name not in leaves}
    assert not below


MOST_PARAMETERS = 12


def parameters(function):
    """How many a function takes, but for `self` and `cls`; `*args` and `**more` count as one."""
    given = function.args
    named = [part.arg for part in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    own = named[:1] in (["self"], ["cls"])
    return len(named) - own + (given.vararg is not None) + (given.kwarg is not None)


def is_a_kernel(function):
    """Written in the language of Triton, which knows no structures."""
    return any(ast.unparse(each) == "triton.jit" for each in function.decorator_list)


def test_parameters_are_counted():
    text = "def f(self, a, /, b, *c, d=1, **e): pass"
    (function,) = ast.parse(text).body
    assert parameters(function) == 5


def test_no_function_takes_more_than_a_reader_can_hold():
    """The command line is left out: there an option is a parameter. So is the last of `load`."""
    crowded = {
        f"{path.relative_to(ROOT)}:{node.name}": parameters(node)
        for path in FILES
        if room_of(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not is_a_kernel(node)
        and parameters(node) > MOST_PARAMETERS + (node.name == "load" and path.stem == "loading")
    }
    assert not crowded


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_rooms_have_names(path):
    assert len(path.read_text().splitlines()) <= 450
    assert not {"utils", "util", "core", "common", "base", "misc"} & {
        part.removesuffix(".py") for part in path.relative_to(ROOT).parts
    }


PUBLIC = [
    doubtmap,
    *(
        importlib.import_module(f"doubtmap.{path.parent.name}")
        for path in sorted(ROOT.glob("*/__init__.py"))
        if "__all__ = " in path.read_text()
    ),
]


def in_order(names):
    """As the linter sorts them: constants, then classes, then functions."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_are_sorted_and_there(module):
    names = list(module.__all__)
    assert all(hasattr(module, name) for name in names)
    assert names == in_order(set(names))


def test_every_stateless_score_is_public():
    assert set(doubtmap.scores.STATELESS) < set(doubtmap.scores.__all__)


def test_the_package_says_the_version_that_it_has():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    changelog = (ROOT.parent / "CHANGELOG.md").read_text()
    assert f"## {doubtmap.__version__}" in changelog
