"""The interface in C: what the library says, every refusal, and programs in C and C++."""

import ctypes
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from doubtmap import kernels
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.runtime import DOUBTS, Doubt, doubts_of, pixels
from doubtmap.runtime.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EVERY = {name: Doubt() for name in DOUBTS}


@pytest.fixture(autouse=True)
def built():
    try:
        pixels.library()
    except ModelError as error:
        pytest.skip(str(error))


def logits(images=1, classes=5, rows=9, columns=13, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(images, classes, rows, columns)) * 3
    return drawn.astype(np.float32)


def said_by_the_library(values, size, covered=None, align_corners=False):
    place = (size, covered, align_corners)
    found = kernels.resized_statistics(torch.from_numpy(values), *place, temperature=2.0)
    maps = found._asdict()
    return maps | {"divergence": -maps["divergence"]}


@pytest.mark.parametrize("covered", [None, (64.0, 100.0)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(40, 90), (9, 13), (1, 1)])
def test_what_c_says_is_what_the_library_says(size, covered, align_corners):
    values = logits(images=2)
    how = {"covered": covered or (0.0, 0.0), "align_corners": align_corners}
    found = doubts_of(values, size, EVERY, **how)
    wanted = said_by_the_library(values, size, covered, align_corners)
    assert found["classes"].dtype == np.uint8 and list(found) == ["classes", *DOUBTS]
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name].numpy(), rtol=1e-6, atol=1e-6)


def test_threads_change_nothing():
    values = logits(rows=40, columns=60)
    one, four = (doubts_of(values, (300, 400), EVERY, threads=n) for n in (1, 4))
    assert all(np.array_equal(one[name], four[name]) for name in one)


@pytest.mark.parametrize("size", [(9, 13), (31, 44)])
def test_a_temperature_divides_the_logits(size):
    values = logits()
    found = doubts_of(values, size, EVERY, temperature=2.5)
    wanted = doubts_of(values / np.float32(2.5), size, EVERY)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_bytes_are_the_nearest_steps_and_flags_are_above_the_threshold():
    values, step = logits(), math.log(5) / 255
    plain = doubts_of(values, (40, 50), {"entropy": Doubt()})["entropy"]
    limit = float(np.median(plain))
    found = doubts_of(values, (40, 50), {"entropy": Doubt(step, threshold=limit)})
    assert found["entropy"].dtype == np.uint8
    assert np.abs(found["entropy"] * step - plain).max() <= step / 2 + 1e-6
    assert np.array_equal(found["entropy_flags"], plain > limit)
    low = doubts_of(values, (40, 50), {"max_logit": Doubt(0.5, -4.0)})["max_logit"]
    plain = doubts_of(values, (40, 50), {"max_logit": Doubt()})["max_logit"]
    assert np.abs(low * 0.5 - 4 - plain.clip(-4, 123.5)).max() <= 0.25 + 1e-6
    alone = doubts_of(values, (40, 50), {"margin": Doubt(threshold=0.5, values=False)})
    assert list(alone) == ["classes", "margin_flags"]


@pytest.mark.parametrize("classes, kind", [(256, np.uint8), (257, np.uint16), (70_000, np.int32)])
def test_classes_are_as_small_as_holds_them(classes, kind):
    values = logits(classes=classes, rows=2, columns=3)
    found = doubts_of(values, (2, 3), {})["classes"]
    assert found.dtype == kind and np.array_equal(found, values.argmax(1))


def test_every_refusal_says_what_was_expected():
    values = logits()
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = values.copy()
        spoilt[0, 2, 8, 12] = bad
        with pytest.raises(DataError, match="expected finite logits"):
            doubts_of(spoilt, (20, 20), EVERY)
    for how, said in (
        ({"covered": (10.0, 40.0)}, "stand for the image or more"),
        ({"covered": (math.nan, 40.0)}, "stand for the image or more"),
        ({"temperature": -1.0}, "temperature above 0"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"temperature": math.inf}, "temperature above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            doubts_of(values, (20, 20), EVERY, **how)
    for size in ((-1, 20), (20, 0)):
        with pytest.raises(UsageError, match="size above 0"):
            doubts_of(values, size, EVERY)
    for wanted in ({"entropy": Doubt(step=0.0)}, {"entropy": Doubt(threshold=math.nan)}):
        with pytest.raises(UsageError, match="steps above 0"):
            doubts_of(values, (20, 20), wanted)
    for bad in (values[:, :1], values[:, :, :0]):
        with pytest.raises(UsageError, match="at least 2 classes"):
            doubts_of(bad, (20, 20), {})
    with pytest.raises(UsageError, match=r"\(B, C, h, w\), got \(5, 9, 13\)"):
        doubts_of(values[0], (20, 20), {})
    with pytest.raises(UsageError, match=r"expected some of max_softmax.*got wrong"):
        doubts_of(values, (20, 20), {"wrong": Doubt()})


def called(**more):
    call = pixels._Call(bytes=ctypes.sizeof(pixels._Call), images=1, classes=5, rows=9, columns=13)
    call.height, call.width = 20, 20
    for name, value in more.items():
        setattr(call, name, value)
    return pixels.library().doubtmap_pixels(ctypes.byref(call))


def test_calls_that_cannot_be_are_refused_by_number():
    values = logits()
    at = values.ctypes.data
    assert called(logits=at) == 0  # nothing is wanted
    assert called(logits=at, bytes=8) == 1 and pixels.library().doubtmap_pixels(None) == 1
    for wrong in ({"logits": None}, {"height": 0}, {"images": -1}, {"width": 1 << 40}):
        assert called(**{"logits": at} | wrong) == 2, wrong
    for wrong in ({"row_stride": 3}, {"class_stride": -1}, {"images": 1 << 29, "rows": 1 << 29}):
        assert called(**{"logits": at} | wrong) == 2, wrong
    assert called(logits=at, class_bytes=3) == 5
    said = pixels.library().doubtmap_pixels_message
    assert len({said(code) for code in range(8)}) == 8
    assert said(99) == said(-1) == b"unknown code; it is of a later version of the library"


def test_rows_may_have_gaps():
    wide = logits(rows=9, columns=20)
    classes = np.empty((1, 20, 20), np.uint8)
    done = called(logits=wide.ctypes.data, row_stride=20, class_map=classes.ctypes.data)
    wanted = doubts_of(np.ascontiguousarray(wide[..., :13]), (20, 20), {})["classes"]
    assert done == 0 and np.array_equal(classes, wanted)


def compiled(words):
    """Run a compiler, or skip where there is none."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} is here")
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ran(program, tmp_path, values, size, **options):
    values.tofile(tmp_path / "logits.f32")
    words = [tmp_path / program, tmp_path / "logits.f32", *values.shape[1:], *size]
    return subprocess.run([*map(str, words)], capture_output=True, check=False, **options)


def test_the_example_in_c_is_linked_with_the_library(tmp_path):
    warned = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99")
    where = (f"-I{pixels.HERE}", pixels.library_file(), "-o", tmp_path / "doubts")
    compiled(["gcc", *warned, EXAMPLES / "doubts.c", *where])
    values = logits()
    done = ran("doubts", tmp_path, values, (40, 50))
    found = doubts_of(values, (40, 50), {"max_softmax": Doubt(threshold=0.3, values=False)})
    assert done.stdout == found["classes"].tobytes()
    told = [[int(word) for word in line.split()] for line in done.stderr.splitlines()]
    for number, pixels_of_it, doubtful in told:
        own = found["classes"] == number
        assert (pixels_of_it, doubtful) == (own.sum(), found["max_softmax_flags"][own].sum())
    values[0, 0, 0, 0] = np.nan
    done = ran("doubts", tmp_path, values, (40, 50))
    assert done.returncode == 1 and b"expected finite logits" in done.stderr


def test_the_example_in_cpp_is_compiled_with_the_sources(tmp_path):
    include = f"-I{pixels.HERE}"
    for name in pixels.SOURCES:  # without the flags of our own build
        to = tmp_path / f"{name}.o"
        compiled(["gcc", "-std=c11", "-O1", "-Wall", "-c", pixels.HERE / name, "-o", to])
    warned = ("-Wall", "-Wextra", "-Werror", "-std=c++17")
    objects = [tmp_path / f"{name}.o" for name in pixels.SOURCES]
    linked = ("-lm", "-pthread", "-o", tmp_path / "doubts")
    where = (include, EXAMPLES / "doubts.cpp", *objects, *linked)
    compiled(["g++", *warned, *where])
    values = logits()
    done = ran("doubts", tmp_path, values, (40, 50))
    wanted = doubts_of(values, (40, 50), {"entropy": Doubt(math.log(5) / 255)})["entropy"]
    found = np.frombuffer(done.stdout, np.uint8).reshape(wanted.shape)
    assert np.abs(found.astype(int) - wanted).max() <= 1  # by other flags, in the last digit


@pytest.mark.parametrize("option", ["--include", "--library", "--sources"])
def test_compilers_are_told_where_things_lie(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["doubtmap.runtime", option])
    main()
    for word in capsys.readouterr().out.split():
        path = Path(word)
        assert path.exists() and (option != "--include" or (path / "doubtmap_pixels.h").is_file())


def test_a_library_of_another_version_says_how_to_build(monkeypatch):
    monkeypatch.setattr(pixels, "VERSION", 99)
    with pytest.raises(ModelError, match=r"another version.*--force-reinstall"):
        pixels.library.__wrapped__()


def test_a_missing_library_says_how_to_build(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pixels, "HERE", tmp_path)
    with pytest.raises(ModelError, match="Install a C compiler"):
        pixels.library.__wrapped__()
    monkeypatch.setattr(sys, "argv", ["doubtmap.runtime", "--library"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "Install a C compiler" in capsys.readouterr().err


def test_the_structures_are_those_of_the_header(tmp_path):
    """A program prints where each part lies."""
    names = [name for name, _ in pixels._Call._fields_]
    inner = [name for name, _ in pixels._Doubt._fields_]
    lines = [f'P("%zu ", offsetof(struct doubtmap_call, {name}));' for name in names]
    lines += [f'P("%zu ", offsetof(struct doubtmap_doubt, {name}));' for name in inner]
    lines += ['P("%zu %d", sizeof (struct doubtmap_call), DOUBTMAP_PIXELS_VERSION);']
    start = '#include <stdio.h>\n#include "doubtmap_pixels.h"\n#define P printf\nint main(void) {'
    (tmp_path / "offsets.c").write_text(start + "\n".join(lines) + "}")
    compiled(["gcc", f"-I{pixels.HERE}", tmp_path / "offsets.c", "-o", tmp_path / "offsets"])
    done = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True)
    found = [getattr(pixels._Call, name).offset for name in names]
    found += [getattr(pixels._Doubt, name).offset for name in inner]
    assert done.stdout.split() == [*map(str, (*found, ctypes.sizeof(pixels._Call), pixels.VERSION))]
