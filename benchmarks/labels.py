"""Wrong labels found, and what to label next, on CamVid.

    python benchmarks/labels.py [--shared ../shared] [--work DIR] [--stages errors,review]

Writes `benchmarks/results/labels.json` and `review.json`. Labels of CamVid are spoilt as Rottmann
and Reese (2022, drops) and Lad and Mueller (2023, swaps and shifts) spoil theirs: of the things of
at least `SMALLEST` pixels, a fifth is dropped (filled up from the nearest other labels), given
another class, or moved. All that is fitted or chosen is so on val; test is judged.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from stages import Row, Stage, Topic, run, show
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets.dataset import VOID
from doubtmap.engine import Pairs
from doubtmap.kernels import segments_of
from doubtmap.labelling import DenialRule, Denied
from doubtmap.labelling.find import _judged
from doubtmap.prediction import Prediction
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps
from doubtmap.segments import MetaModel, Partition, SegmentTable, adjusted_iou, segment_table

THINGS = ("pole", "signsymbol", "fence", "car")
SMALLEST = 100
SHARE = 0.2
MEETS = 0.25
"""IoU with a spoilt thing from which on a part has found it."""
SCORES = parse_scores("max_softmax,entropy,margin")
REPLICATES = 300


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as the network saw it."""

    name: str
    prediction: Prediction
    label: Tensor
    features: np.ndarray


def seen(given: Namespace, split: str) -> list[Seen]:
    """Predictions of a split, made once and kept in `work`."""
    file = given.work / f"seen-{split}.pickle"
    if not file.exists():
        segmenter = dm.load(str(given.shared / "models" / "camvid9"))
        dataset = dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")
        found = []
        for index, (prediction, label) in enumerate(Pairs(segmenter, dataset, progress=show)):
            pooled = prediction.features.mean((0, 2, 3)).numpy()
            plain = replace(prediction, features=None, layers={})
            found.append(Seen(dataset.sample_name(index), plain, label[0], pooled))
        file.write_bytes(pickle.dumps(found))
    kept: list[Seen] = pickle.loads(file.read_bytes())
    return kept


@dataclass(frozen=True, eq=False)
class Spoilt:
    """Labels of one image with things spoilt, and where; `(H, W)` each, error numbers from 0."""

    label: Tensor
    errors: np.ndarray
    count: int


def spoilt(label: Tensor, names: Sequence[str], kind: str, random: np.random.Generator) -> Spoilt:
    """Spoil a fifth of the things of an image."""
    values = label.numpy().copy()
    errors = np.full(values.shape, -1)
    components, count = segments_of(label)
    parts, number = components.numpy(), 0
    wanted = {names.index(name) for name in THINGS}
    for index, box in enumerate(ndimage.find_objects(parts + 1)):
        inside = parts[box] == index
        cls = int(label[box].numpy()[inside][0])
        if cls not in wanted or inside.sum() < SMALLEST or random.random() >= SHARE:
            continue
        mask = parts == index
        if kind == "swap":
            others = [c for c in range(len(names)) if c != cls]
            new = np.where(mask, random.choice(others), values)
        else:
            new = filled(values, mask)
            if kind == "shift":
                new = moved(new, mask, cls, random)
        changed = (new != values) & (values != VOID) & (new != VOID)
        if changed.sum() >= SMALLEST / 2:
            values, errors[changed], number = new, number, number + 1
    return Spoilt(torch.from_numpy(values), errors, number)


def filled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels with a thing overwritten by the nearest others that are not void."""
    away = mask | (values == VOID)
    _, (rows, columns) = ndimage.distance_transform_edt(away, return_indices=True)
    return np.where(mask, values[rows, columns], values)


def moved(
    without: np.ndarray, mask: np.ndarray, cls: int, random: np.random.Generator
) -> np.ndarray:
    """Labels with a thing put back a third of its sides away, in a random direction."""
    rows, columns = np.nonzero(mask)
    sides = np.ptp(rows) + 1, np.ptp(columns) + 1
    angle = random.uniform(0, 2 * np.pi)
    shift = [round(float(s * f) / 3) for s, f in zip(sides, (np.sin(angle), np.cos(angle)))]
    y, x = rows + shift[0], columns + shift[1]
    keep = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    new = without.copy()
    new[y[keep], x[keep]] = cls
    new[without == VOID] = VOID
    return new


@dataclass(frozen=True, eq=False)
class Candidate:
    """A part that a method suspects: what it knows of it, and which error it found, or -1."""

    image: int
    facts: dict[str, float]
    error: int


def met(place: np.ndarray, spoil: Spoilt) -> int:
    """The error that a mask meets, by the largest IoU of at least `MEETS`; -1 for none."""
    inside = spoil.errors[place]
    touched = np.unique(inside[inside >= 0])
    best, found = MEETS, -1
    for error in touched:
        both = int((inside == error).sum())
        iou = both / (place.sum() + (spoil.errors == error).sum() - both)
        if iou >= best:
            best, found = iou, int(error)
    return found
