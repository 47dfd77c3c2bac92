"""What is suspicious in a data set: what no single file is wrong in, but all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.class_tables import CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS
from doubtmap.datasets.dataset import UNKNOWN, VOID, Dataset
from doubtmap.datasets.labelled_folder import LabelledFolder, open_folder, splits_of
from doubtmap.datasets.labels import LabelValues, value_text
from doubtmap.datasets.patterns import sequence_of
from doubtmap.datasets.rasters import read_header, read_raster
from doubtmap.datasets.reading import read_image
from doubtmap.errors import DataError, UsageError

_MOST_COMPARED = 1500
"""Images whose likeness across splits is looked at; more would take minutes."""
_NEAR = 6
"""Of 256 signs, those in which nearly equal frames may differ."""
_MOST_TURNED = 24
"""Images of which it is looked how their labels lie on them."""
_BETTER = 1.15
"""How much more of the image's edges labels must meet when they are turned."""


@dataclass
class Counts:
    """What was counted over all labels of a data set.

    Args:
        labels: pixels of each label.
        values: pixels of each raw value.
        raw: pixels of each raw value that nothing describes, and the first file with it.
        images: images in which each label occurs.
        alone: images whose labels are of one kind only.
        turned: images whose labels lie on their side.
        broken: files that cannot be read, and why.
        sizes: of the images, height and width.
        colours: of each place in use in a palette, its colours, each with the first file.
    """

    labels: Counter[int] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)
    raw: dict[int, tuple[int, str]] = field(default_factory=dict)
    images: Counter[int] = field(default_factory=Counter)
    alone: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    colours: dict[int, dict[str, str]] = field(default_factory=dict)

    def take(self, labels: NDArray[np.int16], name: str) -> None:
        """Count the labels of an image."""
        found, pixels = np.unique(labels, return_counts=True)
        for label, number in zip(found.tolist(), pixels.tolist()):
            self.labels[label] += number
            self.images[label] += 1
        if len(found) == 1:
            self.alone.append(name)

    def take_raw(self, codes: NDArray[np.int32], path: Path, values: LabelValues) -> None:
        """Count the raw values of a file."""
        described = {value for value, _, _ in values.described()}
        found, pixels = np.unique(codes, return_counts=True)
        for value, number in zip(found.tolist(), pixels.tolist()):
            self.values[value] += number
            # -1 is void, as everyone means it
            if value not in described and values.other is None and value != -1:
                before = self.raw.get(value, (0, path.name))
                self.raw[value] = (before[0] + number, before[1])

    def take_palette(self, path: Path, *, in_colour: bool) -> None:
        """Note which colours the places have that a file uses, where places are what counts."""
        if in_colour or read_header(path).mode != "P":
            return
        raster = read_raster(path)
        if raster.palette is None:
            return
        for place in np.unique(raster.pixels).tolist():
            colour = raster.palette[place].tobytes().hex()
            self.colours.setdefault(place, {}).setdefault(f"#{colour}", path.name)


def suspicious(dataset: LabelledFolder, counts: Counts) -> Iterator[str]:
    """What needs a look, a sentence each."""
    yield from _values(dataset, counts)
    yield from _palettes(counts)
    yield from suspicious_labels(dataset, counts)
    yield from _lying(dataset)
    yield from _alike_across_splits(dataset)


def _values(dataset: LabelledFolder, counts: Counts) -> Iterator[str]:
    if counts.raw:
        found = [
            f"{value_text(value)} ({number} pixels, {name})"
            for value, (number, name) in sorted(counts.raw.items())[:8]
        ]
        more = f" and {len(counts.raw) - 8} more" if len(counts.raw) > 8 else ""
        yield f"Label values that nothing describes: {', '.join(found)}{more}."
    values = dataset.layout.values
    seen = {value for value in counts.values if 0 <= value < 255}
    if values.classes == CITYSCAPES_IDS and seen and max(seen) <= 18:
        yield (
            "No label value lies between 18 and 255, though label ids go to 33: are these train "
            "ids? Then name the files *_labelTrainIds.png, and the layout cityscapes-trainids."
        )
    if values.classes == CITYSCAPES_TRAIN_IDS and any(18 < value < 34 for value in counts.raw):
        yield "Values of 19 to 33 are seen: are these label ids? Then the layout is cityscapes."
    described = sorted(value for value, _, label in values.described() if label >= 0)
    if described and set(counts.raw) == {0} and described[0] == 1:
        yield "0 is seen and not listed: is it void, or a class, and are the others counted from 1?"


def _palettes(counts: Counts) -> Iterator[str]:
    for place, colours in sorted(counts.colours.items()):
        if len(colours) > 1:
            (one, first), (two, second) = list(colours.items())[:2]
            yield (
                f"The value {place} is {one} in the palette of {first} and {two} in that of "
                f"{second}: do both mean one class? If colours count, describe the classes by them."
            )
            return


def suspicious_labels(dataset: Dataset, counts: Counts) -> Iterator[str]:
    """What needs a look in the labels of any data set."""
    classes = [label for label in counts.labels if label >= 0]
    if len(classes) == 1 and len(dataset.class_names) > 1:
        yield f"All labels are of one class, {dataset.class_names[classes[0]]}."
    elif counts.alone:
        yield (
            f"{len(counts.alone)} of {len(dataset)} images have labels of one kind only, such as "
            f"{counts.alone[0]}."
        )
    if counts.labels and set(counts.labels) <= {UNKNOWN, VOID}:
        yield "Nothing is known here, so that scores of the unknown have no figures."
    if counts.turned:
        yield (
            f"{len(counts.turned)} of {len(dataset)} labels lie on their side against their "
            f"images, such as {counts.turned[0]}."
        )
    if counts.broken:
        name, why = next(iter(counts.broken.items()))
        yield f"{len(counts.broken)} of {len(dataset)} images cannot be used, such as {name}: {why}"


_TURNS: dict[str, Callable[[NDArray[np.bool_]], NDArray[np.bool_]]] = {
    "": lambda x: x,
    "upside down": lambda x: x[::-1, ::-1],
    "mirrored": lambda x: x[:, ::-1],
    "mirrored upside down": lambda x: x[::-1],
    "turned to the left": lambda x: np.rot90(x),
    "turned to the right": lambda x: np.rot90(x, -1),
}


def _lying(dataset: LabelledFolder) -> Iterator[str]:
    """Whether labels meet the edges of their images better when they are turned."""
    step = -(-len(dataset) // _MOST_TURNED)
    won: Counter[str] = Counter()
    looked = 0
    for index in range(0, len(dataset), step):
        try:
            sample = dataset[index]
        except DataError:
            continue
        found = _best_turn(sample.image.numpy().mean(axis=0), sample.label.numpy())
        if found is not None:
            looked += 1
            won[found] += 1
    (best, times), *_ = won.most_common(1) or [("", 0)]
    if best and looked >= 4 and times >= 0.75 * looked:
        yield (
            f"Labels meet the edges of their images better {best}, in {times} of {looked} images "
            "that were looked at: are they turned against each other?"
        )


def _best_turn(grey: NDArray[np.float32], label: NDArray[np.int16]) -> str | None:
    """The turn of the label that fits its image far better than none, "" for none of them.

    None is returned where nothing can be said, the image or its label being even.
    """
    coarse = max(1, max(grey.shape) // 400)
    grey, label = grey[::coarse, ::coarse], label[::coarse, ::coarse]
    edges = np.zeros_like(grey)
    edges[1:, 1:] = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    borders = np.zeros(label.shape, bool)
    borders[1:, 1:] = (label[1:, 1:] != label[:-1, 1:]) | (label[1:, 1:] != label[1:, :-1])
    if not borders.any() or edges.mean() < 0.1:
        return None
    met = {}
    for name, turn in _TURNS.items():
        turned = turn(borders)
        if turned.shape == edges.shape:
            # A border lies before its edge or behind, once it is turned.
            met[name] = max(edges[np.roll(turned, k, (0, 1))].mean() for k in (0, 1))
    best = max(met, key=lambda name: met[name])
    return best if met[best] > _BETTER * met[""] else ""


def _alike_across_splits(dataset: LabelledFolder) -> Iterator[str]:
    signs: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    for split in splits_of(dataset.root, dataset.layout):
        if split in dataset.layout.selections:
            continue
        try:
            part = open_folder(dataset.root, dataset.layout, "", split)
        except (DataError, UsageError):
            continue
        signs[split] = [
            (i.stem, s) for i, _ in part.files[:_MOST_COMPARED] if (s := _signs(i)) is not None
        ]
    for (one, first), (two, second) in combinations(signs.items(), 2):
        if not first or not second:
            continue
        bits = np.array([s for _, s in second], np.float32)
        pairs = [
            (name, second[int(near.argmin())][0])
            for name, s in first
            if (near := np.abs(bits - s.astype(np.float32)).sum(axis=1)).min() <= _NEAR
        ]
        if pairs:
            same = sequence_of(pairs[0][0])
            both = f", both of {same}*" if same and same == sequence_of(pairs[0][1]) else ""
            yield (
                f"{len(pairs)} of {len(first)} images of {one} look like images of {two}, such as "
                f"{pairs[0][0]} and {pairs[0][1]}{both}."
            )


def _signs(path: Path) -> NDArray[np.bool_] | None:
    """`(256,)`, whether brightness rises from left to right; None where nothing shows."""
    try:
        image = Image.fromarray(read_image(path).permute(1, 2, 0).numpy()).convert("L")
    except DataError:
        return None
    small = np.asarray(image.resize((17, 16), Image.Resampling.BOX), np.int32)
    steps = np.diff(small, axis=1)
    if np.abs(steps).mean() < 2:
        return None
    return (steps > 0).ravel()
