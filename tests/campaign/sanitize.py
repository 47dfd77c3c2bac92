"""The kernels in C under AddressSanitizer and UndefinedBehaviorSanitizer.

    python tests/campaign/sanitize.py --count 2000 [--seed 0]

They are compiled anew into a copy of the package, and held to the reference in float64 on random
shapes, strides, sizes and values, with each set of instructions that the processor has. The first
access out of bounds, or undefined operation, ends the process that runs them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "doubtmap" / "kernels"
SOURCES = ["pixels.c", "doubtmap_pixels.c", "segments.c", "sums.c", "tables.c", "pixels_threads.c"]
SANITIZED = (
    *("-std=c11", "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fopenmp-simd"),
    *("-ffinite-math-only", "-fno-signed-zeros", "-fno-math-errno", "-fno-trapping-math"),
)
"""Flags of setup.py that change what is computed, and those that watch it."""


KINDS = (
    "statistics",
    "norms of features",
    "norms of weights",
    "segments",
    "doubtmap_pixels.h",
    "sums of counted.py",
    "labels and a softmax",
)


def compiler() -> str | None:
    """A compiler that has both sanitizers, or None."""
    name = shutil.which("gcc")
    return name if name and Path(runtime(name)).is_absolute() else None


def runtime(compiler: str) -> str:
    """The library that must be loaded before all others."""
    said = [compiler, "-print-file-name=libasan.so"]
    return subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()


def build(compiler: str, sources: list[str], to: Path) -> None:
    """Compile some of the kernels' files into one library."""
    files = [str(KERNELS / name) for name in sources]
    subprocess.run([compiler, *SANITIZED, *files, "-lm", "-o", str(to)], check=True)


def watched(compiler: str, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sanitizers' library loaded first."""
    environment = (
        os.environ
        | more
        | {
            "LD_PRELOAD": runtime(compiler),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "OMP_NUM_THREADS": "1",
        }
    )
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, check=False
    )


def package(compiler: str, folder: Path) -> Path:
    """A copy of the package whose kernels are watched; all else is linked."""
    inside = folder / "doubtmap"
    inside.mkdir()
    for entry in (ROOT / "doubtmap").iterdir():
        if entry.name != "kernels":
            (inside / entry.name).symlink_to(entry)
    shutil.copytree(KERNELS, inside / "kernels", ignore=shutil.ignore_patterns("*.so", "*cache*"))
    build(compiler, SOURCES, inside / "kernels" / "pixels.so")
    return folder


def segments(library: str, count: int, seed: int, short: int = 0) -> None:
    """Number the components of random maps; `short` leaves out so many places for the labels."""
    kernels, draw = ctypes.CDLL(library), random.Random(seed)
    kernels.doubtmap_components.restype = ctypes.c_int64
    allocate = ctypes.CDLL(None).malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for _ in range(count):
        rows, columns = draw.randint(1, 30), draw.randint(1, 30)
        pixels = rows * columns
        values = (ctypes.c_int32 * pixels)(*(draw.randrange(3) for _ in range(pixels)))
        labels = allocate(4 * (pixels - short))
        sides = ctypes.c_int64(rows), ctypes.c_int64(columns)
        found = kernels.doubtmap_components(values, *sides, ctypes.c_void_p(labels))
        edge = allocate(pixels)
        kernels.doubtmap_edges(ctypes.c_void_p(labels), *sides, ctypes.c_void_p(edge))
        assert 0 < found <= pixels


def passes(count: int, seed: int) -> dict[str, int]:
    """Hold random calls of all kernels to the reference; how many of each there were."""
    sys.path[:0] = [str(ROOT / "tests" / "kernels")]
    import torch
    from held_to_reference import (
        ORDERS,
        compare_norms,
        compare_observed,
        compare_statistics,
        compare_weights,
    )

    from doubtmap import kernels
    from doubtmap.kernels import compiled, reference

    assert "sanitized" in str(compiled.__file__), compiled.__file__
    draw, done = random.Random(seed), {}
    names = [name for name in ("avx512", "avx2", "baseline") if compiled.instructions(name)]
    for at in range(count):
        torch.manual_seed(draw.randrange(1 << 30))
        name = compiled.instructions(names[at % len(names)])
        sides = draw.randint(1, 3), draw.randint(2, 40), draw.randint(1, 20), draw.randint(1, 40)
        x = torch.randn(sides) * draw.choice((0.1, 1, 5, 30))
        if draw.random() < 0.3:
            x = x.contiguous(memory_format=torch.channels_last)
        size = (draw.randint(1, 60), draw.randint(1, 90))
        covered = (size[0] + draw.uniform(0, 20), size[1] + draw.uniform(0, 20))
        place = (size, draw.choice((None, covered)), draw.random() < 0.5)
        kind, p = at // len(names) % len(KINDS), draw.choice(ORDERS)
        if kind == 0:
            compare_statistics(x, place, draw.choice((0.5, 1.0, 2.0, 10.0)))
        elif kind == 1:
            features = x.abs() + 0.1
            found = kernels.log_feature_norm(features, p, *place)
            resized = kernels.resize(features.double(), *place)
            compare_norms(found, reference.log_feature_norm(resized, p), p)
        elif kind == 2:
            labels = draw.choice(("predicted", "uniform")), draw.choice(("exact", "published"))
            compare_weights(x, p, *labels)
        elif kind == 3:
            _segments(x, size)
        elif kind == 4:
            _interface(x.contiguous(), place, draw)
        elif kind == 5:
            _sums(draw)
        else:
            compare_observed(
                x if x.shape[1] > 1 else x.repeat(1, 2, 1, 1), place, draw.randint(1, 20), at
            )
        what = f"{KINDS[kind]}, {name}" if kind < 4 else KINDS[kind]
        done[what] = done.get(what, 0) + 1
    return done


def _interface(x, place, draw) -> None:
    """The calls of `doubtmap_pixels.h`: of every kind of output, and those that are refused."""
    import numpy as np

    from doubtmap.errors import DataError
    from doubtmap.kernels import resized_statistics
    from doubtmap.runtime import DOUBTS, Doubt, doubts_of, pixels

    assert "sanitized" in str(pixels.library_file())
    size, covered, corners = place
    step, limit = draw.choice((None, 0.01)), draw.choice((None, 0.5))
    wanted = {name: Doubt(step, -1.0, limit) for name in DOUBTS if draw.random() < 0.6}
    how = {"covered": covered or (0.0, 0.0), "align_corners": corners, "threads": 2}
    values = x.numpy()
    found = doubts_of(values, size, wanted, temperature=draw.choice((1.0, 3.0)), **how)
    assert all(maps.shape == (len(x), *size) for maps in found.values())
    found = doubts_of(values, size, {"entropy": Doubt()}, **how)["entropy"]
    assert np.allclose(found, resized_statistics(x, *place).entropy.numpy(), atol=1e-4)
    spoilt = values.copy()
    spoilt.flat[draw.randrange(spoilt.size)] = np.nan
    try:
        doubts_of(spoilt, size, wanted, **how)
    except DataError:
        return
    raise AssertionError("expected logits that are not finite to be refused")


def _sums(draw) -> None:
    """Histograms, bins, curves and components of a mask, by C and by NumPy and SciPy."""
    import numpy as np

    from doubtmap.kernels import counted

    random = np.random.default_rng(draw.randrange(1 << 30))
    p = random.random((draw.randint(1, 4), draw.randint(1, 300)), np.float32)
    truth, mask = random.integers(0, 4, p.shape[1]), random.random(p.shape) < 0.5
    halves = random.integers(0, 9, (2, *p.shape)).astype(float)
    values = (random.normal(size=500) * 10 ** random.uniform(-3, 3)).astype(np.float32)
    found = []
    for which in ("compiled", "reference"):
        os.environ["DOUBTMAP_KERNELS"] = which
        labels = counted.label_mask(mask)
        table = histogram(values)
        found.append((counted.binned(p, truth, 7), counted.curves(*halves), *labels, *table))
    del os.environ["DOUBTMAP_KERNELS"]
    assert all(np.allclose(a, b, equal_nan=True) for a, b in zip(*found))


def histogram(values) -> tuple:
    """Counts, lowest values and singleness of the bins of two histograms added to each other."""
    import numpy as np

    from doubtmap.metrics.histogram import Histogram

    one, two = Histogram(1 << 14), Histogram(1 << 14)
    one.update(values[:200])
    two.update(values[200:], (values[200:] > 0).astype(np.uint8), 0.5)
    found = (one + two).view()
    return found.counts, found.lowest, found.single


def _segments(logits, size) -> None:
    """Segments of a prediction, their edges, sums and shares, as the reference has them."""
    import torch

    from doubtmap.kernels import edges_of, moments, segments_of, summed_probabilities

    classes = torch.randint(0, 3, (1, *size))
    maps, found = [torch.randn(size) for _ in range(3)], []
    for which in ("compiled", "reference"):
        os.environ["DOUBTMAP_KERNELS"] = which
        labels, count = segments_of(classes[0])
        edge = edges_of(labels)
        shares = summed_probabilities(logits[:1], labels, count, size)
        found.append((labels, edge, moments(labels, edge, maps, count), shares))
    del os.environ["DOUBTMAP_KERNELS"]
    (labels, edge, sums, shares), other = found
    assert torch.equal(labels, other[0]) and torch.equal(edge, other[1])
    assert torch.allclose(sums.double(), other[2].double())
    assert torch.allclose(shares, other[3], atol=1e-4)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--count", type=int, default=2000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.inside:
        print(json.dumps(passes(given.count, given.seed)))
        return
    sys.path[:0] = [str(Path(__file__).parent)]
    import record

    found = compiler()
    assert found, "expected gcc with libasan, found none"
    with tempfile.TemporaryDirectory(prefix="sanitized-") as place:
        words = ["--inside", "--count", str(given.count), "--seed", str(given.seed)]
        ran = watched(found, [__file__, *words], PYTHONPATH=str(package(found, Path(place))))
    if ran.returncode:
        print(ran.stderr[-6000:])
        sys.exit(1)
    done = json.loads(ran.stdout.splitlines()[-1])
    rows = [{"name": name, "calls": count, "failed": 0} for name, count in sorted(done.items())]
    command = f"python tests/campaign/sanitize.py --count {given.count} --seed {given.seed}"
    record.write("sanitize", command, rows)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
