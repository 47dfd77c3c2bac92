"""Threads of the pass in C: many callers, forks, and how many threads there are."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from doubtmap.kernels import compiled
from doubtmap.runtime import pixels

RACE = "-D__atomic_fetch_add(from, more, order)=((*(from) += (more)) - (more))"
PROGRAM = Path(__file__).with_name("many_callers.c")


def built_with(tmp_path, *flags):
    """The program, or a skip where a compiler cannot make it."""
    sources = [PROGRAM, *(pixels.HERE / name for name in pixels.SOURCES)]
    to = tmp_path / "many_callers"
    words = ["gcc", "-std=c11", "-O0", "-pthread", *flags, f"-I{pixels.HERE}"]
    if shutil.which("gcc") is None:
        pytest.skip("no gcc is here")
    done = subprocess.run([*words, *sources, "-lm", "-o", to], capture_output=True, text=True)
    if "cannot find" in done.stderr:
        pytest.skip(f"gcc cannot link {flags}")
    assert done.returncode == 0, done.stderr
    return to


def test_callers_and_forked_children_get_what_one_thread_gets(tmp_path):
    program = built_with(tmp_path)
    done = subprocess.run([program, "20", "fork"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0\n")


@pytest.mark.parametrize("flags", [(), (RACE,)], ids=["as it is", "with a race"])
def test_threads_do_not_race(tmp_path, flags):
    program = built_with(tmp_path, "-g", "-fsanitize=thread", *flags)
    done = subprocess.run([program, "2"], capture_output=True, text=True, timeout=60)
    if "FATAL: ThreadSanitizer" in done.stderr:
        pytest.skip("this system gives the thread sanitizer no memory where it wants it")
    assert ("data race" in done.stderr) == bool(flags), done.stderr[-3000:]
    assert (done.returncode == 0) == (not flags)


@pytest.mark.parametrize("asked, expected", [("3", 3), ("2,4", 2), ("99999", 1024)])
def test_as_many_threads_as_the_environment_says(built, monkeypatch, asked, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert compiled.library().doubtmap_threads() == expected


@pytest.mark.parametrize("asked", [None, "", "0", "-2", "many"])
def test_else_one_a_processor_of_the_process(built, monkeypatch, asked):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert compiled.library().doubtmap_threads() == len(os.sched_getaffinity(0))


def test_no_runtime_of_threads_comes_with_the_library(built):
    """Two of OpenMP in one process end or stop it on some platforms."""
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("no readelf is here")
    said = subprocess.run([readelf, "-d", pixels.library_file()], capture_output=True, text=True)
    needed = [line for line in said.stdout.splitlines() if "NEEDED" in line]
    assert needed and not any("omp" in line for line in needed)
    assert not hasattr(ctypes.CDLL(str(pixels.library_file())), "PyInit_pixels")
