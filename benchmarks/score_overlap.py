"""What `doubtmap score` with all stateless scores takes, against the network's forward pass alone.

    python benchmarks/score_overlap.py [--frames 20] [--rounds 3] [--format png]

A SegFormer of the size of B0 with random weights, frames of 512 x 1024 from the synthetic streets
as JPEG. In each round every frame goes through the network alone, then all through the command's
own engine: reading, network, seven scores, classes, maps and overlay written. Rounds take turns in
one process, and ratios are medians over rounds, of wall time and of processor time. What each
step takes by itself is measured on one frame. Adds its rows to `benchmarks/results/speed.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kernels import RESULTS, conditions, kept_with
from PIL import Image
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import doubtmap as dm
from doubtmap.datasets.reading import read_image
from doubtmap.reports import write_classes, write_map, write_overlay
from doubtmap.scores import STATELESS
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps, write_scores

COMMAND = "python benchmarks/score_overlap.py"
SIZE = (512, 1024)
Row = dict[str, Any]
Timed = tuple[float, float]
"""Wall and processor seconds."""


def network(folder: Path) -> tuple[torch.nn.Module, dm.Segmenter]:
    """The network by itself, and as the command opens it."""
    net = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)).eval()
    with torch.no_grad():  # random weights say next to nothing: logits as wide as a trained one's
        net.decode_head.classifier.weight.mul_(100)
    net.save_pretrained(folder / "network")
    return net, dm.load(str(folder / "network"), input_size="image")


def written_frames(folder: Path, count: int) -> list[Path]:
    """Synthetic streets, enlarged, as JPEG."""
    (folder / "frames").mkdir()
    streets, paths = dm.open_dataset(f"synthetic:{count}"), []
    for at in range(count):
        frame = F.interpolate(streets[at].image[None].float(), SIZE, mode="bilinear")[0]
        grain = 4 * torch.randn(frame.shape)
        pixels = (frame + grain).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        paths.append(folder / "frames" / f"{at:03d}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=92)
    return paths


def timed(work: Callable[[], object]) -> Timed:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def command(folder: Path, options: argparse.Namespace) -> list[Row]:
    """The whole command against the forward pass alone."""
    net, segmenter = network(folder)
    paths = written_frames(folder, options.frames)
    scores = parse_scores(",".join(STATELESS))
    x = torch.randn(1, 3, *SIZE)

    def alone() -> None:
        with torch.no_grad():
            for _ in paths:
                net(x)

    def whole() -> None:
        write_scores(segmenter, paths, scores, folder / "out", format=options.format)

    net(x), segmenter(torch.rand(1, 3, *SIZE))
    rounds = []
    for at in range(options.rounds):
        # Each goes first in every other round.
        order = (alone, whole) if at % 2 == 0 else (whole, alone)
        taken = {work.__name__: timed(work) for work in order}
        rounds.append((taken["alone"], taken["whole"]))
    name, shown = f"doubtmap score, {len(STATELESS)} scores, {options.format}", "512 x 1024"
    return [
        {
            "name": name,
            "set": f"SegFormer-B0, {shown}",
            "ratio_to_forward": statistics.median(w[0] / a[0] for a, w in rounds),
            "processor_ratio_to_forward": statistics.median(w[1] / a[1] for a, w in rounds),
            "seconds_per_image": statistics.median(w[0] for _, w in rounds) / len(paths),
            "forward_seconds_per_image": statistics.median(a[0] for a, _ in rounds) / len(paths),
        },
        *steps(net, segmenter, paths[0], folder, options.format),
    ]


def steps(
    net: torch.nn.Module, segmenter: dm.Segmenter, path: Path, folder: Path, format: str
) -> list[Row]:
    """Processor time of each step on one frame and one thread, as a share of the forward pass."""
    torch.set_num_threads(1)
    scores = parse_scores(",".join(STATELESS))
    image = read_image(path)
    prediction = segmenter(image[None])
    classes = prediction.classes[0].numpy()
    maps = {name: values.numpy() for name, values in score_maps(prediction, scores).items()}
    x, pixels = torch.randn(1, 3, *SIZE), image.permute(1, 2, 0).numpy()

    def forward() -> Tensor:
        with torch.no_grad():
            return net(x).logits

    work: dict[str, Callable[[], object]] = {
        "forward": forward,
        "forward by the segmenter": lambda: segmenter(image[None]),
        "read": lambda: read_image(path, orient=True),
        "scores": lambda: score_maps(dataclasses.replace(prediction), scores),
        "maps written": lambda: [
            write_map(folder / f"{name}.map", values, format, name)  # type: ignore[arg-type]
            for name, values in maps.items()
        ],
        "classes written": lambda: write_classes(folder / "classes.png", classes),
        "overlay written": lambda: write_overlay(
            folder / "overlay.jpg", pixels, maps["entropy"], (0.0, 2.0)
        ),
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(5):
        for name, call in work.items():
            best[name] = min(best[name], timed(call)[1])
    torch.set_num_threads(os.cpu_count() or 1)
    return [
        {
            "name": f"doubtmap score, step: {name}",
            "set": "SegFormer-B0, 512 x 1024, 1 thread",
            "processor_ratio_to_forward": seconds / best["forward"],
            "processor_seconds": seconds,
        }
        for name, seconds in best.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="png")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    seen = conditions(options.rounds) | {"frames": options.frames}
    with tempfile.TemporaryDirectory() as folder:
        rows = command(Path(folder), options)
    for row in rows:
        figures = (f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
        print(f"{row['set']:36s} {row['name']:44s} {', '.join(figures)}")
    kept_with(options.out, COMMAND, seen, rows)


if __name__ == "__main__":
    main()
