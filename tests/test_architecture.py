"""The rooms of the house, and which may look into which."""

import ast
import tomllib
from pathlib import Path

import pytest

import doubtmap

ROOT = Path(doubtmap.__file__).parent
ROOMS = [
    "version",
    "errors",
    "atomic",
    "kernels",
    "prediction",
    "models",
    "scores",
    "calibration",
    "metrics",
    "datasets",
    "segments",
    "objects",
    "training",
    "engine",
    "reports",
    "progress",
    "cli",
]
"""Arrows point upward in this list only; siblings do not import each other."""
SIBLINGS = {"models", "scores", "calibration", "metrics", "datasets"}


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


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_upward(path):
    room = room_of(path)
    for other in imported_rooms(path):
        if other == room:
            continue
        assert ROOMS.index(other) < ROOMS.index(room), f"{room} imports {other}"
        assert not {room, other} <= SIBLINGS, f"{room} imports its sibling {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_rooms_have_names(path):
    assert len(path.read_text().splitlines()) <= 400
    assert not {"utils", "util", "core", "common", "base", "misc"} & {
        part.removesuffix(".py") for part in path.relative_to(ROOT).parts
    }


@pytest.mark.parametrize(
    "module",
    [doubtmap, doubtmap.scores, doubtmap.calibration, doubtmap.metrics, doubtmap.datasets],
    ids=lambda m: m.__name__,
)
def test_public_names_are_sorted_and_there(module):
    names = module.__all__
    assert all(hasattr(module, name) for name in names)
    assert len(set(names)) == len(names)


def test_every_stateless_score_is_public():
    assert set(doubtmap.scores.STATELESS) < set(doubtmap.scores.__all__)


def test_the_package_says_the_version_that_it_has():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    changelog = (ROOT.parent / "CHANGELOG.md").read_text()
    assert f"## {doubtmap.__version__}" in changelog
