"""What is installed: one wheel for every Python, also where there is no compiler."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


def test_without_a_compiler_a_wheel_is_built_all_the_same(tmp_path):
    pytest.importorskip("setuptools")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    left_out = shutil.ignore_patterns("*.so", "*.dll", "__pycache__")
    shutil.copytree(ROOT / "doubtmap", tmp_path / "doubtmap", ignore=left_out)
    none = {"CC": "/bin/false", "CXX": "/bin/false"}
    words = [sys.executable, "-c", BUILD]
    done = subprocess.run(
        words, cwd=tmp_path, env=os.environ | none, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'building extension "doubtmap.kernels.pixels" failed' in done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert "-py3-none-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "doubtmap/kernels/pixels_threads.h" in names  # for programs in C
    assert not [name for name in names if name.endswith((".so", ".dll"))]


def test_the_oldest_that_is_tried_is_the_oldest_that_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(need for name in extras for need in extras[name])]
    bounds = dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", need).groups() for need in asked)
    lines = (ROOT / "requirements-oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name in bounds.keys() - {"ray"}:
        found, allowed = ([*map(int, v[name].split("."))] for v in (pinned, bounds))
        assert found[: len(allowed)] == allowed and not any(found[len(allowed) :]), name
