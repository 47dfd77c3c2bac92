"""The sets on which networks that learnt negatives are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from doubtmap.datasets import UNKNOWN, VOID, Dataset, Pasted, Sample, open_dataset, open_outlines

HELD_OUT = ("pedestrian", "bicyclist")

Chosen = tuple[Dataset, tuple[str, ...], int, int]
"""A set, its unknown classes, every how many-th image is taken, and how many of these in a row are
drawn together by the bootstrap."""
BLOCK = 10
"""Frames of a drive that are drawn together."""


@dataclass(frozen=True, eq=False)
class Seams:
    """Known content pasted into known content: a window of another image, at its own place.

    The window is labelled unknown, so that its figures tell how far a score takes a seam for an
    unknown object: an AUROC of one half is right, more is an error. Implements `Dataset`.
    """

    whole: Dataset
    side: int = 64

    name = "camvid:test with seams"
    component_sizes = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The whole's."""
        return self.whole.class_names

    def __len__(self) -> int:
        return len(self.whole)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.whole.sample_name(index)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample, and paste the window."""
        own = self.whole[index]
        other = self.whole[(index + len(self) // 2) % len(self)]
        height, width = own.label.shape
        random = np.random.default_rng([0, index])
        top, left = (int(random.integers(s - self.side + 1)) for s in (height, width))
        window = (slice(top, top + self.side), slice(left, left + self.side))
        image, label = own.image.clone(), own.label.clone()
        image[(slice(None), *window)] = other.image[(slice(None), *window)]
        known = other.label[window] >= 0
        known &= (other.label[window][..., None] != held_out(self.class_names)).all(-1)
        label[window] = torch.where(known, UNKNOWN, VOID).to(label.dtype)
        return Sample(own.name, image, label)


def held_out(names: tuple[str, ...]) -> Tensor:
    """Indices of the classes that no network learnt."""
    return torch.tensor([names.index(name) for name in HELD_OUT])


def with_objects(shared: Path, dataset: Dataset, half: str, seed: int) -> Dataset:
    """A set with one thing of a half of `coco128` in each image, people and known things left out.

    Pedestrians and bicyclists of the images themselves stay void.
    """
    known = (*dataset.class_names, *HELD_OUT)
    objects, _ = open_outlines(f"{shared}/data/coco128:{half}").foreign_to(known)
    return Pasted(dataset, objects, seed=seed)


def road_sets(shared: Path, seed: int) -> dict[str, Chosen]:
    """The test sets of the road; `seed` is of the pastings."""
    camvid = open_dataset(f"camvid:{shared}/data/camvid:test")
    anomalies = open_dataset(f"smiyc:{shared}/data/roadanomaly21")
    static = open_dataset(f"fishyscapes:{shared}/data/fishyscapes_static")
    return {
        "camvid test": (camvid, HELD_OUT, 1, BLOCK),
        "camvid test with objects": (with_objects(shared, camvid, "test", seed), (), 1, BLOCK),
        "camvid test with seams": (Seams(camvid), (), 4, BLOCK // 4),
        "roadanomaly21": (anomalies, (), 1, 1),
        "fishyscapes static": (static, (), 1, 1),
    }


def val_sets(shared: Path, seed: int) -> dict[str, Chosen]:
    """CamVid val, on which choices are made: its objects are those of the training's half."""
    camvid = open_dataset(f"camvid:{shared}/data/camvid:val")
    return {
        "camvid val": (camvid, HELD_OUT, 1, BLOCK),
        "camvid val with objects": (with_objects(shared, camvid, "train", seed), (), 1, BLOCK),
    }


def aerial_set(halved: Path, unknown: str) -> dict[str, Chosen]:
    """The test tiles, at half size, for a network that never learnt a class."""
    title = f"dubai test, {unknown} unknown"
    return {title: (open_dataset(f"dubai:{halved}:test"), (unknown,), 1, 1)}


def halve(shared: Path, to: Path) -> None:
    """Write `dubai_aerial` at half its size, labels by the nearest pixel."""
    for part, how in (("images", Image.Resampling.LANCZOS), ("labels", Image.Resampling.NEAREST)):
        (to / part).mkdir(parents=True, exist_ok=True)
        for file in sorted((shared / "data" / "dubai_aerial" / part).iterdir()):
            picture = Image.open(file)
            half = picture.resize((picture.width // 2, picture.height // 2), how)
            half.save(to / part / file.name, quality=95)
