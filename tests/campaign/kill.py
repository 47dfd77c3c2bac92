"""Commands that are killed at random moments, taken up again, and held to an unbroken run.

    python tests/campaign/kill.py --count 200 [--seed 0] [--only score]

A process that has imported everything forks for each run, so that kills fall into the work, not
into imports. A run is killed up to four times; commands that have `--resume` then go on, others
start again; what they write must be, byte for byte but for times, what an unbroken run wrote, and
nothing else may lie there. Of runs with workers, one of these may be killed instead. What workers
write, and what is merged of parts, must be what one process writes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent)]

import record  # noqa: E402

import doubtmap as package  # noqa: E402
from doubtmap.cli import main as doubtmap  # noqa: E402

NETWORK = """import torch
from torch import nn


def build():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)]
    return nn.Sequential(*layers).eval()
"""
TOML = """images = "images/*.png"
labels = "labels/{stem}.png"
[classes]
grass = 0
stone = 1
water = 2
mud = 3
"""
CLASSES = ("--classes", "grass,stone,water")
LONGEST = 300
"""Seconds after which a run counts as one that hangs."""
UNEQUAL = ("seconds", "command", "created", "time", "directory")
"""Of JSON: what differs between two runs of one command."""


def world(folder: Path, images: int) -> None:
    """Images, labels, a network in a Python file, and a score that is fitted to it."""
    drawn = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(images):
        label = np.kron(drawn.integers(0, 4, (3, 4)), np.ones((8, 8))).astype(np.uint8)
        image = (label[..., None] * 60 + drawn.integers(0, 60, (24, 32, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{index:03d}.png")
        Image.fromarray(label).save(folder / "labels" / f"{index:03d}.png")
    (folder / "doubtmap.toml").write_text(TOML)
    (folder / "net.py").write_text(NETWORK)


def commands(folder: Path) -> dict[str, tuple[list[str], bool, str]]:
    """Words of each command, whether it has `--resume`, and how its output is called."""
    network, data = f"python:{folder / 'net.py'}:build", f"folder:{folder}"
    images = str(folder / "images")
    unknown = ["--unknown", "mud"]
    training = ["train", data, "--model", network, "--hold-out", "mud", "--batch", "4"]
    scored = ["--scores", "entropy,energy"]
    few = ["--replicates", "20"]
    chosen = ["--scores", "entropy", "--of", "unknown", "--by", "f1"]
    return {
        "evaluate": (
            [*("evaluate", network, data, *CLASSES), *unknown, *scored, *few],
            True,
            "out",
        ),
        "evaluate, workers": (
            ["evaluate", network, data, *CLASSES, *unknown, *scored, *few, "--workers", "2"],
            True,
            "out",
        ),
        "evaluate, parts": (
            [*("parts", network, data, *CLASSES), *unknown, *scored, *few],
            False,
            "out",
        ),
        "score": (["score", network, images, *CLASSES, *scored], True, "out"),
        "train": ([*training, "--epochs", "3"], True, "out"),
        "train, ensemble": (
            [*training, "--epochs", "1", "--recipe", "ensemble", "--members", "2"],
            True,
            "out",
        ),
        "fit density": (["fit", "density", network, data, *CLASSES], False, "out.safetensors"),
        "calibrate": (
            ["calibrate", network, data, *CLASSES, *unknown, "--method", "histogram"],
            False,
            "out.safetensors",
        ),
        "threshold": (
            [*("threshold", network, data, *CLASSES), *unknown, *chosen],
            False,
            "out.json",
        ),
        "objects": (
            ["objects", network, images, *CLASSES, "--threshold", "0.5", "--scores", "entropy"],
            False,
            "out",
        ),
        "fit wrong": (
            ["fit", "wrong", network, data, *CLASSES, *scored],
            False,
            "out.safetensors",
        ),
    }


def launch(words: list[str], folder: Path) -> int:
    """The process of one run, in its folder; what it says is in the folder's `said`."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.chdir(folder)
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        for line in in_parts(words) if words[0] == "parts" else [words]:
            sys.argv = ["doubtmap", *line]
            try:
                doubtmap()
            except SystemExit as end:
                if end.code:
                    raise
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stdout.flush()
        os._exit(code)


PARTS = 3


def in_parts(words: list[str]) -> Iterator[list[str]]:
    """The command lines of an evaluation in parts, of which those that are done stay done."""
    *asked, _, out = words
    parts = [Path(f"part{number}") for number in range(1, PARTS + 1)]
    for number, part in enumerate(parts, 1):
        if not (part / "part.json").exists():
            going = ["--resume"] if (part / ".progress").exists() else []
            line = ["evaluate", *asked[1:], "--part", f"{number}/{PARTS}", "--out", str(part)]
            yield [*line, *going]
    yield ["merge", out, *map(str, reversed(parts))]
    for part in parts:
        shutil.rmtree(part)


def workers_of(process: int) -> list[int]:
    """The workers of a run: what was started by the process that has imported all for them."""
    try:
        servers = [child for child in children(process) if b"forkserver" in line_of(child)]
        return [child for server in servers for child in children(server)]
    except OSError:
        return []


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def line_of(process: int) -> bytes:
    """The command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes()


def ended(process: int, within: float) -> int | None:
    """The exit code of a process, or None where it still runs."""
    until = time.monotonic() + within
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.001)


def plain(value: object) -> object:
    """JSON without what differs between two runs."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in UNEQUAL}
    return [plain(each) for each in value] if isinstance(value, list) else value


def content(path: Path) -> object:
    """What a file says, but for times."""
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        rows = state["progress"]["rows"]
        return [{key: row[key] for key in row if key != "seconds"} for row in rows]
    if path.name == "log.csv":
        return [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    return b"" if path.suffix in (".html", ".toml", ".svg") else path.read_bytes()


def written(folder: Path) -> dict[str, object]:
    """All files that a run left, but for what it said."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "said"]
    return {str(path.relative_to(folder)): content(path) for path in files}


def broken(
    words: list[str], resumes: bool, out: str, folder: Path, draw: random.Random, lasts: float
) -> int:
    """Kill a run up to four times, then let it end; how many kills it took.

    Raises:
        AssertionError: where it does not end well.
    """
    kills = 0
    for at in range(draw.choice((1, 1, 1, 2, 3)) + 1):
        begun = resumes and (folder / out).exists()
        process = launch([*words, "--out", out, *(["--resume"] if at and begun else [])], folder)
        code = ended(process, draw.uniform(0, lasts) * (0.6**at))
        if code is None and (workers := workers_of(process)) and draw.random() < 0.5:
            os.kill(draw.choice(workers), signal.SIGKILL)
            kills += 1
            code = ended(process, draw.uniform(0, lasts))
        if code is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            kills += 1
            continue
        told = (folder / "said").read_text()
        if code == 2 and "expected a run to go on with, found none" in told.splitlines()[-1]:
            shutil.rmtree(folder / out, ignore_errors=True)  # killed before it had begun
            continue
        assert code == 0, f"ended with {code}: {told[-600:]}"
        return kills
    begun = resumes and (folder / out).exists()
    last = [*words, "--out", out]
    code = ended(launch([*last, *(["--resume"] if begun else [])], folder), LONGEST)
    told = (folder / "said").read_text()
    if code == 2 and "expected a run to go on with, found none" in told:
        code = ended(launch(last, folder), LONGEST)
    assert code is not None, "it hangs"
    assert code == 0, f"ended with {code}: {(folder / 'said').read_text()[-600:]}"
    return kills


def differing(found: dict[str, object], whole: dict[str, object]) -> list[str]:
    """Names of files that are missing, too many, or not as they should be."""
    return [
        name for name in sorted(found.keys() | whole.keys()) if found.get(name) != whole.get(name)
    ]


def campaign(name: str, made: tuple[list[str], bool, str], count: int, seed: int, base: Path):
    """Kill one command `count` times; its row and what failed.

    What it must write is what it writes unbroken, by one process where it has several.
    """
    words, resumes, out = made
    draw, counts, failures = random.Random(f"{seed}/{name}"), Counter(), []
    whole = Path(tempfile.mkdtemp(dir=base))
    start = time.monotonic()
    assert ended(launch([*words, "--out", out], whole), LONGEST) == 0, (whole / "said").read_text()
    lasts, expected = time.monotonic() - start, written(whole)
    if "--workers" in words or words[0] == "parts":
        at = words.index("--workers") if "--workers" in words else len(words)
        one = Path(tempfile.mkdtemp(dir=base))
        single = ["evaluate", *words[1:at], "--out", out]
        assert ended(launch(single, one), LONGEST) == 0, (one / "said").read_text()
        assert not (other := differing(expected, written(one))), f"not as one process: {other}"
    while counts["kills"] < count and counts["runs"] < 3 * count:
        folder = Path(tempfile.mkdtemp(dir=base))
        counts["runs"] += 1
        try:
            counts["kills"] += broken(words, resumes, out, folder, draw, lasts)
            other = differing(written(folder), expected)
            assert not other, f"not as an unbroken run: {', '.join(other[:5])}"
            counts["same"] += 1
            shutil.rmtree(folder)
        except (AssertionError, ValueError) as error:
            failures.append(f"{error} ({folder})")
    keys = ("runs", "kills", "same")
    row = {"name": name, **{key: counts[key] for key in keys}, "failed": len(failures)}
    return row, failures


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--count", type=int, default=1000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--images", type=int, default=12)
    asked.add_argument("--only", default="")
    given = asked.parse_args()
    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(package.__path__, "doubtmap."):
        if not found.name.endswith(("__main__", "triton_kernels", "triton_pass", "pixels")):
            importlib.import_module(found.name)
    base = Path(tempfile.mkdtemp(prefix="kill-"))
    world(base / "world", given.images)
    chosen = {
        name: made for name, made in commands(base / "world").items() if name.startswith(given.only)
    }
    rows, bad = [], 0
    for name, made in chosen.items():
        share = max(1, given.count // len(chosen))
        row, failures = campaign(name, made, share, given.seed, base)
        rows.append(row)
        bad += len(failures)
        print(row, *failures, sep="\n  ", flush=True)
    command = f"python tests/campaign/kill.py --count {given.count} --seed {given.seed}"
    command += f' --only "{given.only}"' if given.only else ""
    record.write("kill", command, rows, whole=not given.only)
    if not bad:
        shutil.rmtree(base)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
