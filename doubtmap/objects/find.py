"""From a doubt map to things: connected pixels above a threshold, with a box, a mask and a score.

A pixel is flagged where its score is above the threshold, strictly; flagged pixels that touch, also
at a corner, are one object, as in the component figures of SegmentMeIfYouCan.

Reference:
    SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation (Chan et al., 2021),
    https://arxiv.org/abs/2104.14812
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doubtmap.errors import DataError, UsageError
from doubtmap.metrics.accumulator import Array, ArrayLike, to_numpy
from doubtmap.metrics.components import EIGHT_NEIGHBOURS
from doubtmap.names import plain_name

RING = 3
"""Width in pixels of the ring around an object in which `on` looks."""


@dataclass(frozen=True)
class ObjectRule:
    """Which pixels become objects, and which objects are kept.

    Args:
        threshold: of the score; a pixel is flagged where its score is above it. An infinity flags
            all or nothing.
        smallest: pixels that an object has at least.
        smallest_share: share of the image's pixels that an object has at least, in [0, 1].
        fill_holes: whether pixels that flagged ones enclose belong to the object, with all that
            lies there.
        on: classes on which an object must lie, by index; empty: anywhere.
        on_share: smallest share, in [0, 1], of the ring of `RING` pixels around an object that is
            predicted as one of these classes; a ring without pixels has none.

    Raises:
        UsageError: for values outside of these ranges.
    """

    threshold: float
    smallest: int = 50
    smallest_share: float = 0.0
    fill_holes: bool = False
    on: tuple[int, ...] = ()
    on_share: float = 0.2

    def __post_init__(self) -> None:
        if math.isnan(self.threshold):
            raise UsageError("threshold: expected a number, got NaN. Give the score's limit.")
        if self.smallest < 0:
            raise UsageError(
                f"smallest: expected a number of pixels from 0 on, got {self.smallest}."
            )
        for name in ("smallest_share", "on_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name}: expected a share between 0 and 1, got {getattr(self, name)}."
                )
        if any(place < 0 for place in self.on):
            raise UsageError(f"on: expected classes by index from 0 on, got {list(self.on)}.")


@dataclass(frozen=True, eq=False)
class UnknownObject:
    """One thing that the network should not be trusted about.

    Args:
        box: left, top, width and height, in pixels.
        area: number of its pixels.
        score_mean: of the score over its pixels.
        score_max: likewise.
        predicted: index of the class that the network predicts for most of its pixels; the first
            of equals.
        predicted_share: of its pixels that are predicted so, in (0, 1].
        mask: `(height, width)` bool, its pixels within the box.
        probability: that it is unknown, in [0, 1]; None where nothing was fitted that says.
    """

    box: tuple[int, int, int, int]
    area: int
    score_mean: float
    score_max: float
    predicted: int
    predicted_share: float
    mask: NDArray[np.bool_]
    probability: float | None = None

    def on_image(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """`(H, W)` bool, its pixels in an image of this height and width."""
        x, y, width, height = self.box
        whole = np.zeros(size, bool)
        whole[y : y + height, x : x + width] = self.mask
        return whole


def find_objects(doubt: ArrayLike, classes: ArrayLike, rule: ObjectRule) -> list[UnknownObject]:
    """Find the unknown objects of one image.

    Args:
        doubt: `(H, W)`, a score, higher = more doubt, finite.
        classes: `(H, W)`, the predicted class of every pixel, from 0.
        rule: threshold and what is kept.

    Returns:
        The objects, the highest mean score first.

    Raises:
        UsageError: for maps that are not of one shape.
        DataError: for doubt that is not finite, or classes below 0.

    Example:
        >>> doubt = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.1]])
        >>> (thing,) = find_objects(doubt, np.zeros((3, 3), int), ObjectRule(0.5, smallest=2))
        >>> thing.box, thing.area, thing.score_max
        ((0, 0, 2, 2), 2, 0.9)
    """
    values, predicted = to_numpy(doubt), to_numpy(classes)
    _check(values, predicted)
    # in float64, so that the threshold is exact; NumPy 1 would compare in float32
    flagged = np.greater(values, rule.threshold, signature="dd->?")
    if rule.fill_holes:
        flagged = without_holes(flagged)
    # a share such as 0.07 is a little more than 7 of 100 once it is multiplied
    share = math.ceil(rule.smallest_share * flagged.size * (1 - 1e-9))
    least = max(rule.smallest, 1, share)
    found = _measured(flagged, least, values, predicted)
    kept = [thing for thing in found if _lies_on(thing, predicted, rule)]
    return sorted(kept, key=lambda thing: -thing.score_mean)


def share_around(thing: UnknownObject, classes: Array, wanted: tuple[int, ...]) -> float:
    """Share of the ring of `RING` pixels around an object that is predicted as wanted, in [0, 1].

    Args:
        thing: the object.
        classes: `(H, W)`, predicted.
        wanted: classes by index.

    Returns:
        0 where the image ends all around.
    """
    x, y, width, height = thing.box
    above, before = min(RING, y), min(RING, x)
    around = classes[y - above : y + height + RING, x - before : x + width + RING]
    inside = np.zeros(around.shape, np.uint8)
    inside[above : above + height, before : before + width] = thing.mask
    near = ndimage.maximum_filter(inside, 2 * RING + 1, mode="constant")
    ring = around[near > inside]
    return float(np.isin(ring, wanted).mean()) if ring.size else 0.0


def class_indices(wanted: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Classes by name, as labels meet them: without case, and `_`, `-` and space being one.

    Raises:
        UsageError: for a class that the network lacks, or a network without names.

    Example:
        >>> class_indices(["Side-walk"], ["road", "side walk"])
        (1,)
    """
    places = {plain_name(name): place for place, name in enumerate(class_names)}
    if wanted and not places:
        raise UsageError("--on: expected a network with class names. Give them with --classes.")
    for name in wanted:
        if plain_name(name) not in places:
            near = difflib.get_close_matches(plain_name(name), places, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"--on: expected classes among {', '.join(class_names)}, got {name}.{hint}"
            )
    return tuple(places[plain_name(name)] for name in wanted)


def _check(doubt: Array, classes: Array) -> None:
    if doubt.ndim != 2 or doubt.shape != classes.shape or not doubt.size:
        raise UsageError(
            f"find_objects: expected a score and classes (H, W) of one image, got {doubt.shape} "
            f"and {classes.shape}. Pass score[0] and prediction.classes[0]."
        )
    if not np.isfinite(doubt).all():
        raise DataError(
            "find_objects: expected a finite score, got NaN or infinity. Mend the score, or run "
            "the network in float32."
        )
    if classes.dtype.kind not in "iu" or classes.min() < 0:
        raise DataError(
            f"find_objects: expected predicted classes as whole numbers from 0 on, got "
            f"{classes.dtype} from {classes.min()} on. Pass prediction.classes[0]."
        )


def without_holes(mask: Array) -> Array:
    """`(H, W)` bool: the mask and all that it encloses.

    A hole is a region of the background, connected along edges, that does not reach the border.
    """
    regions, _ = ndimage.label(~mask)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outside = np.zeros(int(regions.max()) + 1, bool)
    outside[border] = True
    outside[0] = False
    inside: Array = ~outside[regions]
    return inside


def _measured(flagged: Array, least: int, doubt: Array, classes: Array) -> list[UnknownObject]:
    """Components of at least so many pixels, each with its figures; one pass over their pixels."""
    labels, count = ndimage.label(flagged, EIGHT_NEIGHBOURS)
    pixels = np.flatnonzero(flagged)
    number = labels.reshape(-1)[pixels]
    kept = np.flatnonzero(np.bincount(number, minlength=1) >= least)
    count, place = len(kept), np.full(count + 1, -1)
    place[kept] = np.arange(count)
    number = place[number]
    pixels, number = pixels[number >= 0], number[number >= 0]
    if not count:
        return []
    area, mean, highest = _scores(number, count, doubt, pixels)
    winner, share = _votes(number, count, classes, pixels)
    found = []
    for index, box in enumerate(_boxes(number, count, pixels, flagged.shape[1])):
        x, y, width, height = box
        mask = labels[y : y + height, x : x + width] == kept[index]
        figures = float(mean[index]), float(highest[index]), int(winner[index]), float(share[index])
        found.append(UnknownObject(box, int(area[index]), *figures, mask))
    return found


def _scores(number: Array, count: int, doubt: Array, pixels: Array) -> tuple[Array, Array, Array]:
    """Area, mean and maximum of the score of each object, `(count,)`."""
    scores = doubt.reshape(-1)[pixels].astype(np.float64)
    area = np.bincount(number, minlength=count)
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, number, scores)
    return area, np.bincount(number, scores, minlength=count) / area, highest


def _votes(number: Array, count: int, classes: Array, pixels: Array) -> tuple[Array, Array]:
    """The class that most pixels of each object have, and their share, `(count,)`."""
    shown = classes.reshape(-1)[pixels].astype(np.int64)
    width = int(shown.max()) + 1
    votes = np.bincount(number * width + shown, minlength=count * width).reshape(count, width)
    return votes.argmax(1), votes.max(1) / votes.sum(1)


def _boxes(
    number: Array, count: int, pixels: Array, width: int
) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, width and height of each object."""
    first, last = [], []
    for along in np.divmod(pixels, width)[::-1]:
        first.append(np.full(count, np.iinfo(np.int64).max))
        last.append(np.zeros(count, np.int64))
        np.minimum.at(first[-1], number, along)
        np.maximum.at(last[-1], number, along)
    sides = [end - start + 1 for start, end in zip(first, last)]
    return zip(*(column.tolist() for column in (*first, *sides)))


def _lies_on(thing: UnknownObject, classes: Array, rule: ObjectRule) -> bool:
    return not rule.on or share_around(thing, classes, rule.on) >= rule.on_share


def to_supervision(
    things: Sequence[UnknownObject], size: tuple[int, int], class_names: Sequence[str] = ()
) -> Any:
    """Objects as `supervision.Detections`, for its trackers, zones, annotators and sinks.

    Args:
        things: of one image.
        size: its height and width.
        class_names: of the network, for the data `predicted`.

    Returns:
        `xyxy` (N, 4) float32, right and bottom edges outside; `mask` (N, H, W) bool; `confidence`,
        the mean score, which has the score's range; `class_id` 0, for unknown; and in `data`
        `class_name`, `score_max`, `predicted`, what the network takes them for, and `probability`
        where it is known.

    Raises:
        UsageError: without the library.
    """
    try:
        import supervision
    except ImportError as error:
        raise UsageError(
            "to_supervision: expected supervision, which is not installed. Install it with: pip "
            "install supervision"
        ) from error
    boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    names = [class_names[t.predicted] if class_names else str(t.predicted) for t in things]
    masks = [thing.on_image(size) for thing in things]
    return supervision.Detections(
        xyxy=boxes,
        mask=np.stack(masks) if masks else np.zeros((0, *size), bool),
        confidence=np.array([thing.score_mean for thing in things], np.float32),
        class_id=np.zeros(len(things), int),
        data={
            "class_name": np.array(["unknown"] * len(things)),
            "score_max": np.array([thing.score_max for thing in things], np.float32),
            "predicted": np.array(names),
            **_likely(things),
        },
    )


def _likely(things: Sequence[UnknownObject]) -> dict[str, Array]:
    known = [thing.probability for thing in things if thing.probability is not None]
    if not known or len(known) < len(things):
        return {}
    return {"probability": np.array(known, np.float32)}
