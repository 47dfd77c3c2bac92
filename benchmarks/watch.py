"""Does a watch see when images stop being like those that a promise was made on?

    python benchmarks/watch.py [--shared ../shared] [--work DIR] [--stages alarms,figures,...]

The network is `camvid9`, the promise a threshold of entropy that misses a tenth of the wrong pixels
of an image in the mean, chosen on CamVid val. The pool is CamVid by day, val and Seq05VD of test,
272 images. An *order* draws a reference of 100 of them at random; new images are others of the
pool, clean or corrupted (every second image of the pool was), the drive at dusk 0001TP, or those of
other cameras. Blur, noise and JPEG decided by what images are ranked; all else is reported.

Stage `order`: a reference and new images that follow each other in one drive, as they were filmed
and shuffled, and runs of frames in blocks. Writes `benchmarks/results/watch.json` and
`docs/pictures/watch.svg`. What is kept of each image is kept in DIR.
"""

from __future__ import annotations

import math
import pickle
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from stages import HELD_OUT, Row, Stage, Topic, run, show

import doubtmap as dm
from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.pasting import Part
from doubtmap.decisions import choose_threshold, save_threshold
from doubtmap.engine import Pairs
from doubtmap.engine.splitting import sequences_of
from doubtmap.metrics.accumulator import Array
from doubtmap.reports.page import stand_alone
from doubtmap.watching.bound import mean_bounds
from doubtmap.watching.comparing import two_sample
from doubtmap.watching.judging import (
    WATCHED,
    capitals,
    expected_wrong,
    figure_table,
    judged,
    ranks,
)
from doubtmap.watching.looking import Glance
from doubtmap.watching.martingale import composite_jumper, evidence, first_above, p_values
from doubtmap.watching.page import evidence_chart
from doubtmap.watching.promise import GAP, Promise, open_promise
from doubtmap.watching.state import State

ORDERS, REFERENCE, MOST, RATE = 200, 100, 150, 0.05
RUN, LOOK = 10, 30
"""Consecutive frames that stay together; new images at which two samples are compared."""
DUSK, ANOTHER = "0001TP", "Seq05VD"
"""Drives of CamVid: at dusk, and one by day in other streets."""
CHOOSING = ("blur1", "blur2", "noise1", "jpeg2")
"""Shifts by which was decided what is watched; the others are reported."""
REPORTED = ("fog1", "fog3", "fog5", "night3")
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "watch.svg"
Seen = list[dict[str, Any]]
Looks = list[list[Any]]
"""Of each drive, or run, what is kept of its frames."""


def promise_of(given: Namespace) -> Promise:
    """The network and its threshold, which is chosen where DIR has none."""
    segmenter, file = dm.load(str(given.shared / "models" / "camvid9")), given.work / "t.json"
    if not file.exists():
        val = dm.open_dataset(f"camvid:{given.shared}/data/camvid:val")
        chosen = choose_threshold(
            segmenter, val, "entropy", of="wrong", by="risk", level=0.1, unknown=HELD_OUT
        )
        save_threshold(chosen, file)
    return open_promise(segmenter, file)


def data_of(shared: Path, name: str) -> Dataset:
    """A set by its name, such as `test+fog3`: of corrupted ones, every second image by day."""
    split, _, kind = name.partition("+")
    layout = {"roadanomaly21": "smiyc", "fishyscapes_static": "fishyscapes"}.get(split)
    if layout:
        return dm.open_dataset(f"{layout}:{shared}/data/{split}")
    dataset = dm.open_dataset(f"camvid:{shared}/data/camvid:{split}")
    if not kind:
        return dataset
    day = [at for at in range(len(dataset)) if DUSK not in dataset.sample_name(at)]
    return Corrupted(
        Part(dataset, day[::2], f"{dataset.name}, every second"), kind[:-1], int(kind[-1])
    )


def seen(given: Namespace, name: str) -> Seen:
    """What is kept of the images of a set: looked at once, then read."""
    file = given.work / f"{name}.pkl"
    if file.exists():
        found: Seen = pickle.loads(file.read_bytes())
        return found
    promise, dataset, rows = promise_of(given), data_of(given.shared, name), []
    glance = Glance(promise.name, promise.score, promise.wrong, None)
    unknown = HELD_OUT if set(HELD_OUT) <= set(dataset.class_names) else ()
    pairs = Pairs(promise.segmenter, dataset, unknown)
    for at, (prediction, label) in enumerate(pairs):
        one = glance.of(prediction, dataset[at].image, dataset.sample_name(at))
        rows.append({"name": one.mark, "look": one} | truth(promise, prediction, label))
        show(name, at + 1, len(dataset))
    file.write_bytes(pickle.dumps(rows))
    return rows


def truth(promise: Promise, prediction: dm.Prediction, label: Any) -> Row:
    """What an image lost, and its confusion."""
    count = prediction.native_logits.shape[1]
    known = label[0] >= 0
    pairs = label[0][known] * count + prediction.classes[0][known]
    confusion = np.bincount(pairs.numpy(), minlength=count**2).reshape(count, count)
    claims = replace(promise, threshold=None, kind="calibrator")
    losses = {"missed": promise.loss(prediction, label), "gap": claims.loss(prediction, label)}
    return losses | {"confusion": confusion}


def pool(given: Namespace, kind: str = "") -> Seen:
    """The images by day, clean or corrupted."""
    names = [f"{split}+{kind}" if kind else split for split in ("val", "test")]
    return [row for name in names for row in seen(given, name) if DUSK not in row["name"]]


def sets_of(given: Namespace, kinds: Sequence[str]) -> dict[str, Seen]:
    """New images by what they are."""
    return {kind: pool(given, kind) for kind in kinds}


def elsewhere(given: Namespace) -> dict[str, Seen]:
    """New images that the pool has nothing of."""
    dusk = [row for row in seen(given, "test") if DUSK in row["name"]]
    return {"dusk": dusk} | {n: seen(given, n) for n in ("roadanomaly21", "fishyscapes_static")}


def drawn(clean: Seen, other: Seen, order: int, before: int = 0) -> tuple[list[Any], list[Any]]:
    """A reference and other images as new ones; so many of the pool come before the others."""
    generator = np.random.default_rng([7, order])
    mixed = [clean[at] for at in generator.permutation(len(clean))]
    usual, rest = mixed[:REFERENCE], mixed[REFERENCE:]
    taken = {row["name"] for row in (*usual, *rest[:before])}
    left = [other[at] for at in generator.permutation(len(other)) if other[at]["name"] not in taken]
    new = (rest[:before] + left)[: before + MOST]
    return [row["look"] for row in usual], [row["look"] for row in new]


def paths_of(
    clean: Seen, other: Seen, before: int = 0, figures: Callable[..., Any] = ranks
) -> list[Array]:
    """`(T, K)` capital of each gambler in every order."""
    paths = []
    for order in range(ORDERS):
        reference, new = drawn(clean, other, order, before)
        pairs = figures(reference, new, seed=order)
        ties = np.random.default_rng([9, order]).random((len(new), len(pairs)))
        p = [p_values(*pair, ties[:, k]) for k, pair in enumerate(pairs)]
        paths.append(composite_jumper(np.stack(p, 1)))
    return paths


def told(paths: Sequence[Array], before: int = 0) -> Row:
    """How many orders gave an alarm, and after how many images of the shift; None: not in most."""
    needed = -math.log(RATE)
    at = np.array([first_above(evidence(path), needed) or math.inf for path in paths])
    false, late = at <= before, np.where(at > before, at - before, 0)
    row: Row = {"orders": len(paths), "images": len(paths[0]) - before}
    row["alarms"] = float(np.isfinite(at[~false]).mean())
    if before:
        row["alarms_before"] = float(false.mean())
    for name, share in (("images_median", 50), ("images_95", 95)):
        value = float(np.percentile(late[~false], share, method="higher"))
        row[name] = value if math.isfinite(value) else None
    return row


def alarms(given: Namespace) -> Iterator[Row]:
    """False alarms, and images until the alarm."""
    clean = pool(given)
    yield {"name": "watched", "set": "none (false alarms)"} | told(paths_of(clean, clean))
    shifts = sets_of(given, REPORTED) | elsewhere(given)
    for name, other in shifts.items():
        yield {"name": "watched", "set": name} | told(paths_of(clean, other))
    for name, other in ({"none (false alarms)": clean} | shifts).items():
        groups = [drawn(clean, other, order) for order in range(ORDERS)]
        p = [smallest_p(reference, new[:LOOK]) for reference, new in groups]
        row = {"images": min(LOOK, len(groups[0][1])), "orders": ORDERS}
        yield (
            {"name": "two samples", "set": name}
            | row
            | {"alarms": float(np.mean(np.array(p) <= RATE))}
        )
    for name in ("fog3", "dusk"):
        paths = paths_of(clean, shifts[name], 50)
        yield {"name": "watched, after 50 ordinary images", "set": name} | told(paths, 50)


def smallest_p(reference: Any, new: Any) -> float:
    """Of the two-sample test over all figures that a watch compares."""
    (_, before), (_, now) = figure_table(reference, ()), figure_table(new, ())
    return float(two_sample(before, now, draws=199)[1].min())


def single(reference: Any, new: Any, *, seed: int) -> list[tuple[Array, Array]]:
    """All figures that could be watched, in the order of `NAMES`."""
    doubt, distance = ranks(reference, new, seed=seed)
    plain = [
        tuple(np.array([figure(one) for one in looks]) for looks in (reference, new))
        for figure in (
            lambda one: float(expected_wrong(one.table)),
            lambda one: one.brightness,
            lambda one: one.contrast,
        )
    ]
    return [doubt, distance, *plain]  # type: ignore[list-item]


NAMES = (*WATCHED, "expected wrong", "brightness", "contrast")


def figures(given: Namespace) -> Iterator[Row]:
    """Each figure by itself, on the shifts that chose and on those that are reported."""
    clean = pool(given)
    shifts = {"none (false alarms)": clean} | sets_of(given, (*CHOOSING, *REPORTED))
    for name, other in (shifts | elsewhere(given)).items():
        paths = paths_of(clean, other, figures=single)
        kind = "choosing" if name in CHOOSING else "reported"
        for k, figure in enumerate(NAMES):
            yield {"name": figure, "set": name, "of": kind} | told([path[:, [k]] for path in paths])
        both = told([path[:, : len(WATCHED)] for path in paths])
        yield {"name": " and ".join(WATCHED), "set": name, "of": kind} | both


def order(given: Namespace) -> Iterator[Row]:
    """Windows of consecutive frames: the first half is the reference of the second."""
    drives = [
        [found[at]["look"] for at in drive]
        for found in (seen(given, name) for name in ("train", "val", "test"))
        for drive in sequences_of([row["name"] for row in found])
    ]
    length, step = 100, 3
    windows = [
        drive[at : at + length]
        for drive in drives
        for at in range(0, len(drive) - length + 1, step)
    ]
    frames = np.arange(length)
    ways: dict[str, tuple[int, Callable[[int], Array]]] = {
        "shuffled": (1, lambda n: np.random.default_rng(n).permutation(length)),
        "as filmed": (1, lambda n: frames),
        "as filmed, blocks of 2": (2, lambda n: frames),
        "as filmed, the reference drawn from the whole window": (1, interleaved),
    }
    for name, (block, way) in ways.items():
        paths = []
        for number, window in enumerate(windows):
            looks = [window[at] for at in way(number)]
            state = _state(looks[: length // 2], looks[length // 2 :], block, number)
            paths.append(capitals(state))
        told_of = f"{len(windows)} windows of {length} frames"
        yield {"name": name, "set": told_of, "block": block} | told(paths)
    day = [drive for drive in drives if DUSK not in drive[0].mark]
    dusk = [drive for drive in drives if DUSK in drive[0].mark]
    here = [drive for drive in day if ANOTHER not in drive[0].mark]
    there = [drive for drive in day if ANOTHER in drive[0].mark]
    for block in (1, RUN // 2, RUN):
        yield in_runs("by day", day, None, block)
    yield in_runs("by day, then dusk", day, dusk, RUN)
    yield in_runs("by day, then another drive by day", here, there, RUN)


def in_runs(name: str, usual: Looks, other: Looks | None, block: int) -> Row:
    """Many short drives: runs of frames, half of them the reference, the others or `other` new."""
    runs, generator, paths = runs_of(usual), np.random.default_rng(0), []
    for number in range(ORDERS):
        mixed = [runs[at] for at in generator.permutation(len(runs))]
        reference, new = mixed[: len(runs) // 2], mixed[len(runs) // 2 :]
        if other is not None:
            new = [runs_of(other)[at] for at in generator.permutation(len(runs_of(other)))]
        paths.append(capitals(_state(_joined(reference), _joined(new), block, number)))
    way = f"runs of {RUN} frames, " + (f"blocks of {block}" if block > 1 else "each by itself")
    return {"name": way, "set": name, "runs": len(runs), "block": block} | told(paths)


def _joined(runs: Looks) -> list[Any]:
    return [one for run in runs for one in run]


def runs_of(drives: Looks) -> Looks:
    """Consecutive frames, so many at a time."""
    return [drive[at : at + RUN] for drive in drives for at in range(0, len(drive) - RUN + 1, RUN)]


def interleaved(number: int) -> Array:
    """Half of a window's hundred frames at random, then the others as they were filmed."""
    chosen = np.random.default_rng(number).permutation(100) < 50
    return np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])


def _state(reference: list[Any], new: list[Any], block: int = 1, seed: int = 0) -> State:
    return State(
        *("t.json", "", "threshold", 0.1, 0.0),
        block=block,
        seed=seed,
        reference=tuple(reference),
        new=tuple(new),
        scores=np.stack([np.sum([one.scores for one in part], 0) for part in (reference, new)]),
    )


def expected(given: Namespace) -> Iterator[Row]:
    """The expected share of wrong pixels and mIoU beside the true ones."""
    clean = pool(given)
    sets = {"day": clean} | sets_of(given, REPORTED)
    sets["dusk"] = elsewhere(given)["dusk"]
    for name, rows in sets.items():
        verdict = judged(_state([row["look"] for row in clean], [row["look"] for row in rows]))
        confusion = np.sum([row["confusion"] for row in rows], 0)
        hits = np.diag(confusion)
        union = confusion.sum(0) + confusion.sum(1) - hits
        row: Row = {"name": "expected", "set": name, "images": len(rows)}
        for figure, both in (("wrong", verdict.wrong), ("miou", verdict.miou)):
            assert both[1] is not None and both[1].interval is not None
            row |= {figure: both[1].value, f"{figure}_interval": list(both[1].interval)}
        row["wrong_true"] = float(1 - hits.sum() / confusion.sum())
        yield row | {"miou_true": float((hits / union).mean())}


def risk(given: Namespace) -> Iterator[Row]:
    """Labelled images until a promise is surely broken: of a threshold, of confidence."""
    sets = {"day": pool(given)} | sets_of(given, REPORTED) | {"dusk": elsewhere(given)["dusk"]}
    promises = {"missed": ("missed share", 0.1, 0.0), "gap": ("wrong beyond expected", GAP, -1.0)}
    for kind, (title, limit, lowest) in promises.items():
        for name, rows in sets.items():
            losses = np.array([row[kind] for row in rows if row[kind] is not None])
            broken, kept, missed = [], [], 0
            for number in range(ORDERS):
                mixed = np.random.default_rng(number).permutation(losses)
                low, high = mean_bounds(mixed, RATE, low=lowest)
                broken.append(first_above(low, math.nextafter(limit, 1)) or math.inf)
                kept.append(first_above(-high, -limit) or math.inf)
                missed += bool((low > losses.mean()).any() or (high < losses.mean()).any())
            yield {
                **{"name": f"{title}, promised {limit:g}", "set": name, "images": len(losses)},
                **{"mean": float(losses.mean()), "orders": ORDERS, "limit": limit},
                "bounds_missed": missed / ORDERS,
                "broken": float(np.isfinite(broken).mean()),
                "broken_median": median_of(broken),
                "kept": float(np.isfinite(kept).mean()),
                "kept_median": median_of(kept),
            }


def median_of(images: list[float]) -> float | None:
    """None where most have no number."""
    found = float(np.percentile(images, 50, method="higher"))
    return found if math.isfinite(found) else None


def picture(given: Namespace) -> list[Row]:
    """Fifty ordinary images, then fog."""
    reference, new = drawn(pool(given), pool(given, "fog3"), 0, 50)
    verdict = judged(_state(reference, new[:80]))
    PICTURE.write_bytes(stand_alone(evidence_chart(verdict)))
    return []


TOPIC = Topic(
    "watch",
    "python benchmarks/watch.py",
    conditions={"orders": ORDERS, "reference": REFERENCE, "rate": RATE, "most images": MOST},
)
STAGES = {
    "alarms": Stage(TOPIC, alarms),
    "figures": Stage(TOPIC, figures),
    "order": Stage(TOPIC, order),
    "expected": Stage(TOPIC, expected),
    "risk": Stage(TOPIC, risk),
    "picture": Stage(TOPIC, picture),
}
OPTIONS: dict[str, dict[str, Any]] = {}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
