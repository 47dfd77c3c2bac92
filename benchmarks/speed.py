"""What things cost, side by side in one run: the pass over pixels, figures, the command, growth.

    python benchmarks/speed.py [--stages kernels,metrics,overlap,growth] [--rounds 15]

Everything of a stage runs in turns in one process, and the best round counts, so that figures are
ratios of one machine in one state. All but `growth` write `benchmarks/results/speed.json`.

`kernels`: the per-pixel pass against copying the logits and the textbook lines. These run as they
are and through `torch.compile`, where that finds a C++ compiler. `metrics`, on one thread: ranking
against scikit-learn, components against a loop over components.

`overlap` (`--frames 20 --rounds 3 --format png`): what `doubtmap score` with all stateless scores
takes, against the network's forward pass alone. A SegFormer of the size of B0 with random weights,
frames of 512 x 1024 from the synthetic streets as JPEG. In each round every frame goes through the
network alone, then all through the command's own engine: reading, network, seven scores, classes,
maps and overlay written. Ratios are medians over rounds, of wall time and of processor time. What
each step takes by itself is measured on one frame.

`growth` (`growth.json`, `--rounds 7 --images 1,10,100,1000`): with images, pixels, classes and
scores. The last three: the scores of one frame from quarter-size logits, on one thread; processor
time counts. Images: `evaluate` with the demo network on synthetic streets, each count in a process
of its own, whose peak memory is read at its end. `scripts/charts.py` draws it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from stages import Row, Stage, Topic, Work, best_of, run
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import doubtmap as dm
from doubtmap import kernels, scores
from doubtmap.datasets.reading import read_image
from doubtmap.images import write_scores
from doubtmap.kernels import reference
from doubtmap.metrics.components import EIGHT_NEIGHBOURS, component_figures
from doubtmap.prediction import Prediction
from doubtmap.reports import write_classes, write_map, write_overlay
from doubtmap.scores import STATELESS
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps
from doubtmap.streets.synthetic import SyntheticStreets

COMMAND = "python benchmarks/speed.py"
SHAPE = (512, 1024)
# The divergence first, since it then shares the pass of the others.
SCORES = ("divergence", "max_softmax", "margin", "entropy", "max_logit", "energy")
CITYSCAPES = (19, 1024, 2048)


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


def against_textbook(given: Namespace) -> list[Row]:
    """One frame of Cityscapes' size."""
    rounds = given.rounds or 15
    given.conditions |= conditions(rounds)
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


PIXELS = 8_000_000


def ranking() -> list[Row]:
    """Three ranking figures of one set of scores."""
    generator = np.random.default_rng(0)
    positive = generator.random(PIXELS) < 0.01
    score = (generator.exponential(size=PIXELS) + positive).astype(np.float32)
    accumulated = dm.metrics.Ranking()
    accumulated.update(score, positive)

    def ours() -> None:
        found = dm.metrics.Ranking()
        found.update(score, positive)
        found.average_precision(), found.auroc(), found.fpr_at_tpr()

    def theirs() -> None:
        average_precision_score(positive, score), roc_auc_score(positive, score)

    update = partial(accumulated.update, score, positive)
    seconds = best_of({"update": update, "doubtmap": ours, "scikit_learn": theirs}, 3)
    rate = PIXELS / seconds["update"] / 1e6
    state = sum(array.nbytes for array in accumulated.state().values())
    return [
        {"name": "ranking, update", "set": f"{PIXELS:,} pixels", "megapixels_per_second": rate},
        {"name": "ranking, state", "set": f"{PIXELS:,} pixels", "megabytes": state / 1e6},
        {
            "name": "ranking, update and figures",
            "set": f"{PIXELS:,} pixels",
            "seconds": seconds["doubtmap"],
            "speedup_over_scikit_learn": seconds["scikit_learn"] / seconds["doubtmap"],
        },
    ]


def loop_filter(mask: NDArray[np.bool_], smallest: int) -> NDArray[np.int32]:
    """Drop small components one after the other, as the benchmark's own code does."""
    labels, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    for component in range(1, count + 1):
        if np.count_nonzero(labels == component) < smallest:
            labels[labels == component] = 0
    return np.asarray(labels)


def components() -> list[Row]:
    """One 2-megapixel frame with about 10,000 raw components."""
    generator = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(generator.normal(size=(1024, 2048)), 1.8)
    predicted = noise > 1.4 * noise.std()
    unknown = ndimage.gaussian_filter(generator.normal(size=(1024, 2048)), 20) > 0.03
    valid = np.ones_like(unknown)
    raw = int(ndimage.label(predicted, EIGHT_NEIGHBOURS)[1])
    ours = best_of({"": lambda: component_figures(predicted, unknown, valid, 50, 10)}, 5)[""]
    loop = best_of({"": lambda: loop_filter(predicted, 50)}, 1)[""]
    return [
        {
            "name": "components of a frame",
            "set": f"1024 x 2048, {raw:,} raw components",
            "seconds": ours,
            "speedup_over_loop": loop / ours,
        }
    ]


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
        frame = F.interpolate(streets[at].image[None].float(), SHAPE, mode="bilinear")[0]
        grain = 4 * torch.randn(frame.shape)
        pixels = (frame + grain).clamp(0, 255).byte().permute(1, 2, 0).numpy()
        paths.append(folder / "frames" / f"{at:03d}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=92)
    return paths


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def command(folder: Path, given: Namespace) -> list[Row]:
    """The whole command against the forward pass alone."""
    net, segmenter = network(folder)
    paths = written_frames(folder, given.frames)
    asked = parse_scores(",".join(STATELESS))
    x = torch.randn(1, 3, *SHAPE)

    def alone() -> None:
        with torch.no_grad():
            for _ in paths:
                net(x)

    def whole() -> None:
        write_scores(segmenter, paths, asked, folder / "out", format=given.format)

    net(x), segmenter(torch.rand(1, 3, *SHAPE))
    rounds = []
    for at in range(given.rounds or 3):
        # Each goes first in every other round.
        order = (alone, whole) if at % 2 == 0 else (whole, alone)
        taken = {work.__name__: timed(work) for work in order}
        rounds.append((taken["alone"], taken["whole"]))
    name, shown = f"doubtmap score, {len(STATELESS)} scores, {given.format}", "512 x 1024"
    return [
        {
            "name": name,
            "set": f"SegFormer-B0, {shown}",
            "ratio_to_forward": statistics.median(w[0] / a[0] for a, w in rounds),
            "processor_ratio_to_forward": statistics.median(w[1] / a[1] for a, w in rounds),
            "seconds_per_image": statistics.median(w[0] for _, w in rounds) / len(paths),
            "forward_seconds_per_image": statistics.median(a[0] for a, _ in rounds) / len(paths),
        },
        *steps(net, segmenter, paths[0], folder, given.format),
    ]


def steps(
    net: torch.nn.Module, segmenter: dm.Segmenter, path: Path, folder: Path, format: str
) -> list[Row]:
    """Processor time of each step on one frame and one thread, as a share of the forward pass."""
    torch.set_num_threads(1)
    asked = parse_scores(",".join(STATELESS))
    image = read_image(path)
    prediction = segmenter(image[None])
    classes = prediction.classes[0].numpy()
    maps = {name: values.numpy() for name, values in score_maps(prediction, asked).items()}
    x, pixels = torch.randn(1, 3, *SHAPE), image.permute(1, 2, 0).numpy()

    def forward() -> Tensor:
        with torch.no_grad():
            return net(x).logits

    work: Work = {
        "forward": forward,
        "forward by the segmenter": lambda: segmenter(image[None]),
        "read": lambda: read_image(path, orient=True),
        "scores": lambda: score_maps(dataclasses.replace(prediction), asked),
        "maps written": lambda: [
            write_map(folder / f"{name}.map", values, format, name)  # type: ignore[arg-type]
            for name, values in maps.items()
        ],
        "classes written": lambda: write_classes(folder / "classes.png", classes),
        "overlay written": lambda: write_overlay(
            folder / "overlay.jpg", pixels, maps["entropy"], (0.0, 2.0)
        ),
    }
    best = best_of(work, 5, time.process_time)
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


FRAMES = [(224, 448), (512, 1024), (1024, 2048), (2048, 4096), (4096, 8192)]
CLASSES = (2, 5, 10, 19, 50, 100, 200)
OF_LOGITS = tuple(name for name in STATELESS if name != "gradient")
STREET = (96, 192)


def work_on(
    classes: int, size: tuple[int, int], names: tuple[str, ...], features: int = 0
) -> Callable[[], object]:
    """Scoring one frame whose network predicted at a quarter of its size."""
    native = (size[0] // 4, size[1] // 4)
    logits = torch.randn(1, classes, *native) * 4
    inner = torch.randn(1, features, *native) if features else None
    asked = parse_scores(",".join(names))
    return lambda: score_maps(Prediction(logits, size=size, features=inner), asked)


def of_frames(rounds: int) -> list[Row]:
    """Pixels, classes and scores."""
    sets = {
        "pixels": {h * w: work_on(19, (h, w), OF_LOGITS) for h, w in FRAMES},
        "classes": {c: work_on(c, (512, 1024), OF_LOGITS) for c in CLASSES},
        "scores": {
            n: work_on(19, (1024, 2048), STATELESS[:n], 256 if n == len(STATELESS) else 0)
            for n in range(1, len(STATELESS) + 1)
        },
    }
    work = {f"{axis} {at}": call for axis, calls in sets.items() for at, call in calls.items()}
    seconds = best_of(work, rounds, time.process_time)
    rows = []
    for axis, calls in sets.items():
        for at in calls:
            taken = seconds[f"{axis} {at}"]
            row: Row = {"name": axis, "set": f"{axis} {at}", axis: at, "seconds": taken}
            if axis == "pixels":
                row["nanoseconds_per_pixel"] = 1e9 * taken / at
            if axis == "classes":
                row["nanoseconds_per_pixel_and_class"] = 1e9 * taken / (at * 512 * 1024)
            rows.append(row)
    return rows


def of_images(count: int) -> Row:
    """What `evaluate` takes; run in a process of its own."""
    segmenter, streets = dm.load("demo"), SyntheticStreets(count, size=STREET)
    segmenter(streets[0].image[None])
    start = time.process_time()
    dm.evaluate(segmenter, streets, "entropy,max_logit")
    seconds = time.process_time() - start
    return {
        "name": "images",
        "set": f"images {count}",
        "images": count,
        "seconds": seconds,
        "seconds_per_image": seconds / count,
        "peak_megabytes": _memory("VmHWM") / 1e6,
    }


def in_a_process(count: int) -> Row:
    """The same, by a process of its own."""
    line = "import json, speed, torch; torch.set_num_threads(1); torch.manual_seed(0); "
    line += f"print(json.dumps(speed.of_images({count})))"
    done = subprocess.run(
        [sys.executable, "-c", line],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def figures_cost(given: Namespace) -> list[Row]:
    """Ranking and components."""
    given.conditions |= {"cores": os.cpu_count(), "threads": 1, "numpy": np.__version__}
    return ranking() + components()


def overlap(given: Namespace) -> list[Row]:
    """The command in a folder that is gone afterwards."""
    given.conditions |= conditions(given.rounds or 3) | {"frames": given.frames}
    with tempfile.TemporaryDirectory() as folder:
        return command(Path(folder), given)


def growth(given: Namespace) -> list[Row]:
    """All four axes."""
    rounds = given.rounds or 7
    given.conditions |= conditions(rounds) | {"street": f"{STREET[0]} x {STREET[1]}"}
    return of_frames(rounds) + [in_a_process(int(n)) for n in given.images.split(",")]


def signed(name: str, rows: Callable[[Namespace], list[Row]]) -> Callable[[Namespace], list[Row]]:
    """The rows of a stage with its own command, under which its conditions are kept."""

    def made_by(given: Namespace) -> list[Row]:
        own = f"{COMMAND} --stages {name}"
        found = [row | {"command": own} for row in rows(given)]
        given.conditions = {own: given.conditions}
        return found

    return made_by


SPEED = Topic("speed", f"{COMMAND} --stages kernels,metrics,overlap", ("command",))
GROWTH = Topic("growth", f"{COMMAND} --stages growth", ())
STAGES = {
    "kernels": Stage(SPEED, signed("kernels", against_textbook), None),
    "metrics": Stage(SPEED, signed("metrics", figures_cost)),
    "overlap": Stage(SPEED, signed("overlap", overlap), None),
    "growth": Stage(GROWTH, growth),
}
OPTIONS = {
    "--rounds": {"type": int, "help": "instead of the stage's own"},
    "--frames": {"type": int, "default": 20, "help": "of `overlap`"},
    "--format": {"default": "png", "help": "of `overlap`"},
    "--images": {"default": "1,10,100,1000", "help": "of `growth`"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="kernels,metrics")
