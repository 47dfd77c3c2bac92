"""Figures by case: what an evaluation found in each volume, town or drive, on its own.

`--by FIELD` groups the images by a field that they have, such as `case` for slices of volumes, or
by the `sequence` that their names tell. A group has the Dice of its classes and the figures of each
score on its wrong pixels; a case, whose voxels have a size, has distances between surfaces, too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.fingerprints import beneath
from doubtmap.datasets.pasting import image_fields, parts_by
from doubtmap.engine.run import Run
from doubtmap.engine.splitting import named_sequences
from doubtmap.errors import UsageError
from doubtmap.files import cell, write_atomically
from doubtmap.metrics import Ranking
from doubtmap.names import plain_name
from doubtmap.prediction import Prediction
from doubtmap.scoring import score_maps
from doubtmap.volumes.surfaces import SURFACE, surface_figures

BACKGROUND = "background"
"""The class that has no Dice: it is what is left."""
Classes = NDArray[np.int16]


@dataclass(eq=False)
class _Group:
    """The sums of one group, and, of a volume, its slices."""

    left: set[int]
    spacing: tuple[float, float, float] | None
    images: int = 0
    hits: dict[int, int] = field(default_factory=dict)
    predicted: dict[int, int] = field(default_factory=dict)
    labelled: dict[int, int] = field(default_factory=dict)
    rankings: dict[str, Ranking] = field(default_factory=dict)
    doubt: dict[str, list[float]] = field(default_factory=dict)
    slices: dict[int, tuple[Classes, Classes]] = field(default_factory=dict)

    def take(self, index: int, label: Tensor, classes: Tensor, maps: Mapping[str, Tensor]) -> None:
        """Add an image: labels `(H, W)`, predicted classes, and score maps."""
        self.left.discard(index)
        self.images += 1
        truth, said = label.cpu().numpy(), classes.cpu().numpy()
        known = truth >= 0
        for sums, values in (
            (self.labelled, truth[known]),
            (self.predicted, said[known]),
            (self.hits, truth[known & (truth == said)]),
        ):
            for value, count in zip(*np.unique(values, return_counts=True)):
                sums[int(value)] = sums.get(int(value), 0) + int(count)
        for name, values in maps.items():
            ranking = self.rankings.setdefault(name, Ranking())
            ranking.update(values.cpu().numpy(), truth != said, known)
            self.doubt.setdefault(name, []).append(float(values.mean()))
        if self.spacing is not None:
            there = np.where(known, said, -1).astype(np.int16)
            self.slices[index] = np.where(known, truth, -1).astype(np.int16), there

    def figures(self, names: Mapping[int, str], tolerance: float) -> dict[str, Any]:
        """Of the whole group."""
        found: dict[str, Any] = {"images": self.images, "dice": self._dice(names)}
        if self.spacing is not None and self.slices:
            found |= self._surfaces(names, self.spacing, tolerance)
        means = {key: _mean(values.values()) for key, values in found.items() if key != "images"}
        scores = {
            name: {
                "auroc": _finite(ranking.auroc()),
                "auprc": _finite(ranking.average_precision()),
                "mean": float(np.mean(self.doubt[name])),
            }
            for name, ranking in self.rankings.items()
        }
        return found | {"mean": means, "scores": scores}

    def _dice(self, names: Mapping[int, str]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for index, name in names.items():
            both = self.labelled.get(index, 0) + self.predicted.get(index, 0)
            found[name] = 2 * self.hits.get(index, 0) / both if both else None
        return found

    def _surfaces(
        self, names: Mapping[int, str], spacing: tuple[float, float, float], tolerance: float
    ) -> dict[str, dict[str, float | None]]:
        ordered = [self.slices[index] for index in sorted(self.slices)]
        truth, said = (np.stack([pair[which] for pair in ordered]) for which in (0, 1))
        each = {
            name: surface_figures(said == index, truth == index, spacing, tolerance)
            for index, name in names.items()
        }
        return {key: {name: figures[key] for name, figures in each.items()} for key in SURFACE}


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class Cases:
    """What becomes of the groups of one evaluation, each closed once its last image is there.

    Args:
        field: by which images are grouped.
        tolerance: within which surfaces count as one, in the units of the volumes.
    """

    def __init__(self, field: str, tolerance: float = 1.0) -> None:
        self.field, self.tolerance = field, tolerance
        self._groups: dict[str, _Group] = {}
        self._of: dict[int, str] = {}
        self._done: dict[str, dict[str, Any]] = {}
        self._names: Callable[[], Mapping[int, str]] = dict

    def begin(self, run: Run) -> None:
        """Group the images of a run.

        Raises:
            UsageError: for a field that they do not have.
        """
        parts = _grouped(run.dataset, self.field)
        spacing = getattr(beneath(run.dataset), "spacing_of", None) if self._whole else None
        for value, images in parts.items():
            self._groups[value] = _Group(set(images), spacing and spacing(value))
            self._of |= dict.fromkeys(images, value)
        self._names = lambda: _classes(run)

    @property
    def _whole(self) -> bool:
        return self.field == "case"

    def take(
        self, index: int, prediction: Prediction, label: Tensor, maps: Mapping[str, Tensor]
    ) -> None:
        """Add an image as it was evaluated."""
        name = self._of.get(index)
        if name is None:
            return
        self._groups[name].take(index, label, prediction.classes[0], maps)
        if not self._groups[name].left:
            self._close(name)

    def finish(self, run: Run) -> dict[str, Any]:
        """Look again at what a run before had seen, and give the figures of all groups."""
        skipped = set(run.skipped.reasons) if run.skipped else set()
        for name, group in list(self._groups.items()):
            for index in sorted(group.left):
                if run.dataset.sample_name(index) in skipped:
                    continue
                told = run.attempt(run.dataset[index])
                if told is not None:
                    prediction, label = told
                    maps = score_maps(prediction, run.scores)
                    group.take(index, label, prediction.classes[0], maps)
            self._close(name)
        cases = {name: self._done[name] for name in sorted(self._done)}
        keys = ("dice", *SURFACE)
        means = {key: _mean(case["mean"].get(key) for case in cases.values()) for key in keys}
        return {
            "field": self.field,
            "tolerance": self.tolerance,
            "cases": cases,
            "mean": {key: value for key, value in means.items() if value is not None},
        }

    def _close(self, name: str) -> None:
        group = self._groups.pop(name)
        if group.images:
            self._done[name] = group.figures(self._names(), self.tolerance)


def _classes(run: Run) -> dict[int, str]:
    """The network's classes that are labelled, but for the background."""
    targets = {index for index in run.matching.targets if index >= 0} if run.matching else set()
    names = run.segmenter.class_names or run.dataset.class_names
    named = {index: names[index] if index < len(names) else str(index) for index in sorted(targets)}
    return {index: name for index, name in named.items() if plain_name(name) != BACKGROUND}


def _grouped(dataset: Dataset, field: str) -> Mapping[str, Sequence[int]]:
    """The images of each value of a field; of `sequence` as their names say, if nothing else does.

    Raises:
        UsageError: for a field that they do not have.
    """
    if parts := parts_by(dataset, field):
        return {value: part.indices for value, part in parts.items()}
    names = [dataset.sample_name(index) for index in range(len(dataset))]
    sequences = named_sequences(names)
    if field == "sequence" and sequences:
        return sequences
    raise UsageError(_no_field(dataset, field, bool(sequences)))


def _no_field(dataset: Dataset, field: str, of_names: bool) -> str:
    fields = sorted({name for image in image_fields(dataset) for name in image})
    fields += ["sequence (by their names)"] * (of_names and "sequence" not in fields)
    hint = f"Its images have {', '.join(fields)}." if fields else "Its images have none."
    return f"--by: expected a field of the images of {dataset.name}, got {field}. {hint}"


def write_cases(found: Mapping[str, Any], path: Path) -> None:
    """Write figures by case as a table, a row for each case and class.

    Args:
        found: as of `Cases.finish`.
        path: of the CSV file.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    keys = ("dice", *SURFACE)
    writer.writerow([found["field"], "class", *keys])
    for name, case in found["cases"].items():
        for label in case["dice"]:
            values = (case.get(key, {}).get(label) for key in keys)
            row = ("" if value is None else repr(value) for value in values)
            writer.writerow([cell(name), cell(label), *row])
    write_atomically(path, stream.getvalue().encode())


def cases_text(found: Mapping[str, Any]) -> str:
    """One line on the mean over cases."""
    units = {"surface_distance": " (distance)", "hd95": " (distance)"}
    said = [f"{key} {value:.4g}{units.get(key, '')}" for key, value in found["mean"].items()]
    return f"mean over {len(found['cases'])} {found['field']}s: {', '.join(said) or 'no figures'}"
