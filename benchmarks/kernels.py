"""What the per-pixel pass costs, against copying the logits and the textbook lines.

    python benchmarks/kernels.py [--rounds 15]

The textbook lines run as they are and through `torch.compile`, where that finds a C++ compiler.
Everything runs in turns in one process, and the best round counts, so that figures are ratios of
one machine in one state. Writes `benchmarks/results/speed.json`; rows of other benchmarks stay
there. How cost grows is `growth.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import doubtmap as dm
from doubtmap import kernels, scores
from doubtmap.kernels import reference
from doubtmap.prediction import Prediction

RESULTS = Path(__file__).parent / "results" / "speed.json"
# The divergence first, since it then shares the pass of the others.
SCORES = ("divergence", "max_softmax", "margin", "entropy", "max_logit", "energy")
CITYSCAPES = (19, 1024, 2048)
Row = dict[str, Any]
Work = dict[str, Callable[[], object]]


def textbook(logits: Tensor) -> tuple[Tensor, ...]:
    """The lines that people write: class, first, margin, entropy, logsumexp."""
    p = logits.softmax(1)
    top = p.topk(2, 1).values
    entropy = -(p * (p + 1e-12).log()).sum(1)
    first, classes = logits.max(1)
    return classes, first, top[:, 0] - top[:, 1], entropy, logits.logsumexp(1)


def textbook_divergence(logits: Tensor) -> Tensor:
    """The Jensen-Shannon divergence to uniform at temperature 2, likewise."""
    p = (logits / 2).softmax(1)
    u = 1 / p.shape[1]
    log_m = ((p + u) / 2).log()
    to_mixture = (p * ((p + 1e-12).log() - log_m)).sum(1)
    return (to_mixture + (u * (math.log(u) - log_m)).sum(1)) / 2


def book(logits: Tensor) -> tuple[Tensor, ...]:
    """All of the textbook."""
    return *textbook(logits), textbook_divergence(logits)


def book_resized(quarter: Tensor) -> tuple[Tensor, ...]:
    """All of the textbook from quarter-size logits."""
    return book(F.interpolate(quarter, scale_factor=4, mode="bilinear"))


def compiled_textbook(full: Tensor, quarter: Tensor) -> Work:
    """The textbook lines through `torch.compile`, or nothing where that does not work."""
    work: Work = {}
    for name, lines, x in (
        ("torch.compile of textbook with divergence", book, full),
        ("torch.compile of textbook with divergence from quarter size", book_resized, quarter),
    ):
        fast = torch.compile(lines)
        try:
            found = fast(x)
        except Exception as error:
            print(f"{name}: left out: {str(error).splitlines()[0]}")
            continue
        assert torch.allclose(found[-1], lines(x)[-1], atol=1e-4)
        work[name] = lambda fast=fast, x=x: fast(x)
    return work


def all_scores(logits: Tensor, size: tuple[int, int], names: tuple[str, ...] = SCORES) -> None:
    prediction = Prediction(logits, size=size)
    for name in names:
        getattr(scores, name)(prediction)


def best_of(work: Work, rounds: int) -> dict[str, float]:
    """Seconds of the best round of each, all taking turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def made(classes: int, height: int, width: int) -> tuple[Tensor, Tensor, Callable[[], object]]:
    """Full-size logits, quarter-size logits, and the copy that is the unit."""
    full = torch.randn(1, classes, height, width) * 4
    quarter = torch.randn(1, classes, height // 4, width // 4) * 4
    target = torch.empty_like(full)
    return full, quarter, lambda: target.copy_(full)


def passes(full: Tensor, quarter: Tensor) -> Work:
    """The pass from both sizes, with and without the divergence, and the whole job of scoring."""
    size = (full.shape[-2], full.shape[-1])

    def statistics(x: Tensor, temperature: float | None = None) -> Callable[[], object]:
        return lambda: kernels.resized_statistics(x, size, temperature=temperature)

    return {
        "statistics from full size": statistics(full),
        "statistics and divergence from full size": statistics(full, 2.0),
        "statistics from quarter size": statistics(quarter),
        "statistics and divergence from quarter size": statistics(quarter, 2.0),
        "all scores from full size": lambda: all_scores(full, size),
        "all scores from quarter size": lambda: all_scores(quarter, size),
    }


def against_textbook(rounds: int) -> list[Row]:
    """One frame of Cityscapes' size."""
    full, quarter, copy = made(*CITYSCAPES)
    size = CITYSCAPES[1:]

    slow: Work = {
        "textbook": lambda: textbook(full),
        "textbook with divergence": lambda: book(full),
        "textbook from quarter size": lambda: textbook(
            F.interpolate(quarter, size, mode="bilinear")
        ),
        "textbook with divergence from quarter size": lambda: book_resized(quarter),
        "reference": lambda: reference.pixel_statistics(full),
        **compiled_textbook(full, quarter),
    }
    features = torch.randn(1, 256, 256, 512)
    factors: Work = {
        f"{name}, p={p}": work
        for p in (0.5, 1, 0.3)
        for name, work in {
            "feature norm, 256 x 256 x 512": lambda p=p: kernels.log_feature_norm(features, p),
            "weight norm from quarter size": lambda p=p: kernels.log_weight_norm(
                quarter, p, "predicted", "exact"
            ),
        }.items()
    }
    seconds = best_of({"copy": copy, **slow}, max(2, rounds // 5))
    fast = best_of({"copy": copy, **passes(full, quarter), **factors}, rounds)
    unit = min(seconds.pop("copy"), fast.pop("copy"))
    rows = []
    for name, taken in (seconds | fast).items():
        compared = (
            "textbook with divergence" if "all" in name or "divergence" in name else "textbook"
        )
        compared += " from quarter size" if "from quarter" in name else ""
        row: Row = {"name": name, "set": "19 x 1024 x 2048", "ratio_to_copy": taken / unit}
        if "norm" not in name:
            row["speedup_over_textbook"] = seconds[compared] / taken
        rows.append(row | {"seconds": taken})
    copied: Row = {"name": "copy", "set": "19 x 1024 x 2048", "ratio_to_copy": 1.0}
    return [copied | {"seconds": unit}, *rows, *memory(quarter, full)]


def memory(quarter: Tensor, full: Tensor) -> list[Row]:
    """The peak above what was there before, in float32 maps of the image's size."""
    size = CITYSCAPES[1:]
    work: Work = {
        "statistics from quarter size": lambda: kernels.resized_statistics(quarter, size),
        "statistics and divergence from quarter size": lambda: kernels.resized_statistics(
            quarter, size, temperature=2.0
        ),
        "all scores from quarter size": lambda: all_scores(quarter, size),
        "textbook from quarter size": lambda: textbook(
            F.interpolate(quarter, size, mode="bilinear")
        ),
    }
    rows = []
    for name, call in work.items():
        ctypes.CDLL(None).malloc_trim(0)
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        call()
        maps = (_memory("VmHWM") - before) / (size[0] * size[1] * 4)
        rows.append({"name": name, "set": "peak memory, 1024 x 2048", "maps": maps})
    return rows


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def conditions(rounds: int) -> Row:
    """Enough of the machine to read the figures, and no more."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    family = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "processor": family or platform.machine(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "kernels": kernels.available(),
        "rounds": rounds,
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    seen = conditions(options.rounds)
    rows = against_textbook(options.rounds)
    for row in rows:
        figures = (f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
        print(f"{row['set']:34s} {row['name']:46s} {', '.join(figures)}")
    kept_with(options.out, "python benchmarks/kernels.py", seen, rows)


def kept_with(out: Path, command: str, seen: Row, rows: list[Row]) -> None:
    """Write the rows of one command; those of others in the same file stay."""
    out.parent.mkdir(exist_ok=True)
    old = json.loads(out.read_text()) if out.exists() else {}
    others = [row for row in old.get("rows", []) if row.get("command", command) != command]
    result = {
        "command": old.get("command", command),
        "version": dm.__version__,
        "conditions": old.get("conditions", {}) | {command: seen},
        "rows": others + [row | {"command": command} for row in rows],
    }
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
