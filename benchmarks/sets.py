"""Label sets: are they as good as promised, how large are they, and what do they cost?

    python benchmarks/sets.py [--shared ../shared] [--work FOLDER] [--peers FOLDER]

`splits`: the images of CamVid val and test, halved 200 times; levels are chosen on one half and
held to the other. The network runs once for each image. `cose`: the same halves by the protocol of
COSE (Mossina, Dalmau and Andeol, 2024, https://arxiv.org/abs/2405.05145), beside LAC and APS of all
pixels in one pot. `peers`: the same promise by MAPIE, on the pixels of the same frames, each way in
a process of its own; FOLDER is where MAPIE was installed to with `pip install --target FOLDER
--no-deps mapie`. One thread.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stages import Row, Stage, Topic, apart, run, show

import doubtmap as dm
from doubtmap.decisions.sets import COUNT, Nonconformity, level_of, steps_needed
from doubtmap.engine import Pairs
from doubtmap.metrics.accumulator import Array
from doubtmap.scores.sets import LabelSets

SPLITS, BLOCK, CLASSES = 200, 10, 9
ALPHAS = (0.1, 0.05, 0.02)
FORMS: dict[str, tuple[str, str, int]] = {
    "lac": ("lac", "image", 1),
    "aps": ("aps", "image", 1),
    "raps": ("raps", "image", 1),
    "lac by class": ("lac", "class", CLASSES),
    "lac by place": ("lac", "place", 4 * CLASSES),
}
"""Form, whose share, and groups."""
Table = tuple[Array, Array, Array]


def blank(form: str, per: str) -> LabelSets:
    """Label sets that say what is to be counted."""
    cells = 2 if per == "place" else 1
    return LabelSets(torch.zeros(1), form, per, 0.1, cells, cells)  # type: ignore[arg-type]


def tables(given: Namespace) -> dict[str, Table]:
    """Shares, pixels and classes by image, group and step; those of an earlier run are read."""
    file = given.work / "tables.npz"
    if not file.exists():
        segmenter = dm.load(given.shared / "models" / "camvid9")
        kept: dict[str, list[list[Array]]] = {name: [[], [], []] for name in FORMS}
        for split in ("val", "test"):
            data = dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")
            for prediction, label in Pairs(segmenter, data, stage=split, progress=show):
                for name, (form, per, groups) in FORMS.items():
                    sums = Nonconformity.empty(groups)
                    sums.update(prediction, label, blank(form, per))
                    for row, part in zip(kept[name], (sums.shares, sums.pixels, sums.classes)):
                        row.append(part.astype(np.float32))
        arrays = {f"{n} {i}": np.stack(p) for n, ps in kept.items() for i, p in enumerate(ps)}
        np.savez(file, **arrays)
    with np.load(file) as found:
        return {name: tuple(found[f"{name} {i}"] for i in range(3)) for name in FORMS}  # type: ignore[misc]


def halves(images: int, block: int) -> Iterator[tuple[Array, Array]]:
    """Random halves; so many consecutive images stay together."""
    generator, blocks = np.random.default_rng(0), -(-images // block)
    for _ in range(SPLITS):
        chosen = np.isin(np.arange(blocks), generator.permutation(blocks)[: blocks // 2])
        inside = np.repeat(chosen, block)[:images]
        yield np.flatnonzero(inside), np.flatnonzero(~inside)


def cumulated(table: Table) -> Table:
    """Shares above each step, and pixels and classes up to it."""
    above = table[0][..., ::-1].cumsum(-1, dtype=np.float64)[..., ::-1]
    above = np.concatenate([above[..., 1:], np.zeros_like(above[..., :1])], -1)
    inside, classes = (part.cumsum(-1, dtype=np.float64) for part in table[1:])
    return above.astype(np.float32), inside.astype(np.float32), classes.astype(np.float32)


def pooled_steps(pixels: Array, alpha: float) -> Array:
    """The steps of the groups by split conformal prediction, all pixels in one pot."""
    rank = np.ceil((pixels.sum(-1) + 1) * (1 - alpha))
    return np.asarray((pixels.cumsum(-1) < rank[:, None]).sum(-1).clip(max=COUNT - 1))


def splits(given: Namespace) -> Iterator[Row]:
    """The missed share of the other half, and the size of the sets there."""
    for name, table in tables(given).items():
        summed, held = cumulated(table), table[1].any(-1)
        for kind, block in HALVES.items():
            found: dict[tuple[str, float], list[list[float]]] = {}
            for fit, test in halves(len(held), block):
                inside = np.isin(np.arange(len(held)), fit).astype(np.float32)
                shares, pixels = (np.tensordot(inside, part, 1) for part in table[:2])
                for alpha in ALPHAS:
                    steps = steps_needed(shares.astype(np.float64), held[fit].sum(0), alpha)
                    ways = {name: steps}
                    if name == "lac":
                        ways["lac, pooled pixels"] = pooled_steps(pixels, alpha)
                    for title, chosen in ways.items():
                        found.setdefault((title, alpha), []).append(held_to(summed, test, chosen))
            for (title, alpha), rows in found.items():
                about = {"name": f"{title}, alpha {alpha}", "set": kind, "alpha": alpha}
                yield about | over_splits(np.array(rows), alpha)


def held_to(summed: Table, test: Array, steps: Array) -> list[float]:
    """Missed share, mean and largest over the groups; covered share; classes in a set."""
    groups = np.arange(len(steps))
    missed, covered, many = (part[test[:, None], groups, steps] for part in summed)
    pixels = summed[1][test[:, None], groups, -1]
    held = pixels > 0
    by_group = (missed * held).sum(0)[held.any(0)] / held.sum(0)[held.any(0)]
    total = pixels.sum(dtype=np.float64)
    sums = (part.sum(dtype=np.float64) / total for part in (covered, many))
    return [float(by_group.mean()), float(by_group.max()), *map(float, sums)]


def over_splits(found: Array, alpha: float) -> Row:
    """Means over the splits, and how much the missed share differs."""
    missed, worst, covered, many = found.T
    return {
        "missed": float(missed.mean()),
        "missed_range": [float(x) for x in np.percentile(missed, [2.5, 97.5])],
        "missed_worst_group": float(worst.mean()),
        "splits_above_alpha": float((missed > alpha).mean()),
        "covered": float(covered.mean()),
        "classes": float(many.mean()),
        "splits": len(missed),
    }


RATIOS = (0.95, 0.99)
"""Coverages of an image that COSE asks for."""
PROTOCOL: dict[str, tuple[float | None, tuple[float, ...]]] = {
    "share missed": (None, (0.1, 0.05, 0.01)),
    **{f"images covered below {ratio}": (ratio, (0.1, 0.01)) for ratio in RATIOS},
}
"""COSE's losses of an image, the share of its pixels that miss their class, or whether the share
that does not is below a ratio; and levels of risk that its settings for Cityscapes name."""
HALVES = {"halves at random": 1, "halves of runs of ten": BLOCK}


def cose(given: Namespace) -> Iterator[Row]:
    """What COSE tells of label sets: risk, coverage and classes, as means over images.

    As it does: every set holds the predicted class, and the level is the least whose mean loss over
    n images is at most `alpha - (1 - alpha) / n`. Neither its code nor its networks and data are
    used; levels are ours, 128 to the octave of nonconformity, where it narrows an interval.
    """
    for form in ("lac", "aps"):
        table = tables(given)[form]
        missed, _, many = (part[:, 0] for part in cumulated(table))
        pixels = table[1][:, 0]
        classes = many / pixels.sum(-1, keepdims=True)
        for name, (ratio, alphas) in PROTOCOL.items():
            losses = missed if ratio is None else (missed > 1 - ratio).astype(np.float32)
            for kind, block in HALVES.items():
                found: dict[tuple[str, float], list[list[float]]] = {}
                for fit, test in halves(len(missed), block):
                    risk = (losses[fit].sum(0, dtype=np.float64) + 1) / (len(fit) + 1)
                    pot = pixels[fit].sum(0, dtype=np.float64)[None]
                    for alpha in alphas:
                        ways = {f"{form}, {name}": int(np.argmax(risk <= alpha))}
                        if ratio is None:
                            ways[f"{form}, pooled pixels"] = int(pooled_steps(pot, alpha)[0])
                        for title, at in ways.items():
                            one = of_images(losses[test, at], missed[test, at], classes[test, at])
                            found.setdefault((title, alpha), []).append(one)
                for (title, alpha), rows in found.items():
                    about = {"name": f"{title}, alpha {alpha}", "set": kind, "alpha": alpha}
                    yield about | cose_figures(np.array(rows), alpha)


def of_images(losses: Array, missed: Array, classes: Array) -> list[float]:
    """Means over images: loss, coverage, classes in a set, and coverage below each ratio."""
    below = [float((missed > 1 - ratio).mean()) for ratio in RATIOS]
    return [float(losses.mean()), 1 - float(missed.mean()), float(classes.mean()), *below]


def cose_figures(found: Array, alpha: float) -> Row:
    """Means over the splits, and the middle 95 % of them."""
    names = ("risk", "covered", "classes", *(f"covered_below_{ratio}" for ratio in RATIOS))
    row: Row = {"splits": len(found), "splits_above_alpha": float((found[:, 0] > alpha).mean())}
    for name, values in zip(names, found.T):
        row[name] = float(values.mean())
        row[f"{name}_range"] = [float(x) for x in np.percentile(values, [2.5, 97.5])]
    return row


FRAMES, LEVEL = 19, 0.1


def frames(given: Namespace) -> tuple[list[Any], list[Any]]:
    """Predictions and labels to fit on, and others."""
    segmenter = dm.load(given.shared / "models" / "camvid9")
    data = dm.open_dataset(f"camvid:{given.shared}/data/camvid:val")
    indices = list(range(0, 4 * FRAMES, 2))
    pairs = list(Pairs(segmenter, data, indices=indices))
    for prediction, _ in pairs:
        prediction.logits, prediction.classes  # noqa: B018
    return pairs[::2], pairs[1::2]


def of_doubtmap(form: str, fit: list[Any], test: list[Any]) -> Row:
    """Fit and apply label sets, by image."""
    start = time.process_time()
    sums = Nonconformity.empty(1)
    for prediction, label in fit:
        sums.update(prediction, label, blank(form, "image"))
    (step,) = steps_needed(sums.shares, sums.images, LEVEL)
    sets = LabelSets(torch.tensor([level_of(int(step))]), form)  # type: ignore[arg-type]
    fitted = time.process_time()
    found = [sets.contains(prediction)[0].numpy() for prediction, _ in test]
    return told(found, test) | {
        "seconds_fit": fitted - start,
        "seconds_apply": time.process_time() - fitted,
    }


def of_mapie(form: str, fit: list[Any], test: list[Any]) -> Row:
    """The same by split conformal prediction of pixels."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Its inputs are the probabilities."""

        def __init__(self) -> None:
            self.classes_ = np.arange(CLASSES)
            self.fitted_ = True

        def predict_proba(self, inputs: Array) -> Array:
            return inputs

        def predict(self, inputs: Array) -> Array:
            return np.asarray(inputs.argmax(1))

    def flat(pairs: list[Any]) -> tuple[Array, Array]:
        p = [q.probabilities[0].movedim(0, -1)[y[0] >= 0].numpy() for q, y in pairs]
        return np.concatenate(p), np.concatenate([y[0][y[0] >= 0].numpy() for _, y in pairs])

    start = time.process_time()
    method = SplitConformalClassifier(Given(), confidence_level=1 - LEVEL, conformity_score=form)
    method.conformalize(*flat(fit))
    fitted = time.process_time()
    found = []
    for prediction, _ in test:
        p = prediction.probabilities[0].movedim(0, -1).reshape(-1, CLASSES).numpy()
        _, sets = method.predict_set(p)
        found.append(sets[..., 0].T.reshape(CLASSES, *prediction.size))
    return told(found, test) | {
        "seconds_fit": fitted - start,
        "seconds_apply": time.process_time() - fitted,
    }


def told(found: list[Array], test: list[Any]) -> Row:
    """The missed share by image, and the mean number of classes."""
    missed, many = [], []
    for sets, (_, label) in zip(found, test):
        there, truth = label[0].numpy() >= 0, label[0].clamp_min(0).numpy()
        hit = np.take_along_axis(sets, truth[None], 0)[0]
        missed.append(1 - hit[there].mean())
        many.append(sets.sum(0)[there].mean())
    return {"missed": float(np.mean(missed)), "classes": float(np.mean(many))}


def peers(given: Namespace) -> Iterator[Row]:
    """Both, on the same frames."""
    if given.peers is None:
        return
    sys.path.append(str(given.peers))
    fit, test = frames(given)
    pixels = sum(int((label >= 0).sum()) for _, label in fit)
    ways = {"doubtmap": of_doubtmap, "MAPIE 1.6": of_mapie}
    for form in ("lac", "aps"):
        for name, work in ways.items():
            row = apart(work, form, fit, test)
            about = {"name": f"{name}, {form}", "set": f"{FRAMES} frames of CamVid val"}
            yield about | {"pixels": pixels} | row


TOPIC = Topic(
    "sets",
    "python benchmarks/sets.py --peers FOLDER",
    ("stage",),
    {"network": "camvid9", "splits": SPLITS, "images to a block": BLOCK, "threads": 1},
)
STAGES = {
    name: Stage(TOPIC, work)
    for name, work in {"splits": splits, "cose": cose, "peers": peers}.items()
}
OPTIONS = {"--peers": {"type": Path, "help": "of `peers`: a folder, see above"}}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
