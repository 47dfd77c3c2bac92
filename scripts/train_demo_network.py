"""Train the demo network on synthetic streets and write the weights that the package carries.

Run from the repository's root:

    python scripts/train_demo_network.py --out doubtmap/models/demo.safetensors

One thread and one seed: the same machine writes the same file. The scenes come from seeds that
neither the demo nor the tests show, and hold no unknown things.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.models.demo import DEMO_CLASSES, DEMO_MEAN, DEMO_STD, DemoNetwork, build_demo_network
from doubtmap.streets.synthetic import SyntheticStreets

TRAINING_SEED, VALIDATION_SEED = 1000, 2000
CROP = (128, 256)
IGNORED = -100


def normalised(images: Tensor) -> Tensor:
    """Images `(B, 3, H, W)` uint8 as the network takes them."""
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (DEMO_MEAN, DEMO_STD))
    return (images.float() / 255 - mean) / std


def draw_scenes(count: int) -> tuple[Tensor, Tensor]:
    """Training images and labels: `(N, 3, H, W)` uint8 and `(N, H, W)` int8."""
    streets = SyntheticStreets(count, TRAINING_SEED, unknowns=False)
    first = streets[0]
    images = torch.empty((count, *first.image.shape), dtype=torch.uint8)
    labels = torch.empty((count, *first.label.shape), dtype=torch.int8)
    for index in range(count):
        sample = streets[index]
        images[index], labels[index] = sample.image, sample.label.to(torch.int8)
    return images, labels


def draw_batch(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops, half of them mirrored."""
    crops, targets = [], []
    height, width = labels.shape[1:]
    for _ in range(size):
        pick, top, left, mirror = (
            int(torch.randint(limit, (1,), generator=generator))
            for limit in (len(images), height - CROP[0] + 1, width - CROP[1] + 1, 2)
        )
        window = (slice(top, top + CROP[0]), slice(left, left + CROP[1]))
        crop, target = images[pick][:, *window], labels[pick][window]
        crops.append(crop.flip(-1) if mirror else crop)
        targets.append(target.flip(-1) if mirror else target)
    target = torch.stack(targets).long()
    batch = normalised(torch.stack(crops)).contiguous(memory_format=torch.channels_last)
    return batch, target.masked_fill(target < 0, IGNORED)


def class_weights(labels: Tensor) -> Tensor:
    """Rare classes count more: one over the fourth root of their share."""
    counts = torch.stack([(labels[:100] == number).sum() for number in range(len(DEMO_CLASSES))])
    weights = (counts / counts.sum()).clamp_min(1e-4) ** -0.25
    return weights / weights.mean()


@torch.no_grad()
def validate(network: DemoNetwork, count: int) -> dict[str, float]:
    """Pooled mIoU on known pixels, and how well entropy finds the unknown ones."""
    network.eval()
    classes = len(DEMO_CLASSES)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    entropies, unknowns = [], []
    for sample in (SyntheticStreets(count, VALIDATION_SEED)[index] for index in range(count)):
        logits = network(normalised(sample.image[None]))[0]
        label = sample.label.long()
        known = label >= 0
        confusion += torch.bincount(
            label[known] * classes + logits.argmax(0)[known], minlength=classes * classes
        )
        log_probs = logits.log_softmax(0)
        entropy = -(log_probs.exp() * log_probs).sum(0)
        judged = known | (label == UNKNOWN)
        entropies.append(entropy[judged])
        unknowns.append(label[judged] == UNKNOWN)
    network.train()
    table = confusion.view(classes, classes)
    iou = table.diag() / (table.sum(0) + table.sum(1) - table.diag()).clamp_min(1)
    auroc, precision = _detection(torch.cat(entropies), torch.cat(unknowns))
    figures = {"miou": float(iou.mean()), "entropy_auroc": auroc, "entropy_ap": precision}
    return figures | {
        f"iou_{name}": float(part) for name, part in zip(DEMO_CLASSES, iou, strict=True)
    }


def _detection(score: Tensor, positive: Tensor) -> tuple[float, float]:
    """AUROC and average precision of a score, ties taken in the order they come."""
    hits = positive[score.argsort(descending=True)].double()
    found, rank = hits.cumsum(0), torch.arange(1, len(hits) + 1, dtype=torch.float64)
    total = hits.sum()
    precision = float((found / rank * hits).sum() / total)
    auroc = float((found * (1 - hits)).sum() / (total * (len(hits) - total)))
    return auroc, precision


def train(arguments: argparse.Namespace) -> DemoNetwork:
    """Train from random weights."""
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    started = time.monotonic()
    images, labels = draw_scenes(arguments.scenes)
    print(f"{len(images)} scenes in {time.monotonic() - started:.0f} s", file=sys.stderr)
    network = build_demo_network().train().to(memory_format=torch.channels_last)
    weights = class_weights(labels)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=arguments.rate, total_steps=arguments.steps, pct_start=0.2
    )
    running = 0.0
    for step in range(1, arguments.steps + 1):
        crops, targets = draw_batch(images, labels, arguments.batch, generator)
        loss = F.cross_entropy(network(crops), targets, weights, ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        running += float(loss.detach())
        if step % 50 == 0:
            print(
                f"step {step}  loss {running / 50:.3f}  {time.monotonic() - started:.0f} s",
                file=sys.stderr,
            )
            running = 0.0
        if step % 500 == 0:
            miou = validate(network, 12)["miou"]
            print(f"step {step}  validation mIoU {miou:.3f}", file=sys.stderr)
    return network


def packed(network: DemoNetwork) -> dict[str, Tensor]:
    """Weights for the file: convolutions in half precision, the rest as it is."""
    return {
        name: (part.half() if part.dim() == 4 else part).contiguous()
        for name, part in network.state_dict().items()
    }


def main() -> None:
    """Train, validate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=900)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    network = train(arguments)
    weights = packed(network)
    network.load_state_dict(
        {name: part.to(network.state_dict()[name].dtype) for name, part in weights.items()}
    )
    figures = validate(network, 48)
    facts = {name: f"{value:.4f}" for name, value in figures.items()}
    facts |= {
        "seed": str(arguments.seed),
        "command": "python scripts/train_demo_network.py " + " ".join(sys.argv[1:]),
    }
    save_file(weights, arguments.out, metadata=facts)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
