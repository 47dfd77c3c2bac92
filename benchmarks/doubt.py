"""The default score `doubt`, without and with a fit, against every other score.

    EDGENETS=CHECKOUT python benchmarks/doubt.py [--shared ../shared] [--every 5]

Networks: three of CamVid in `../shared/models`, and ESPNetv2 of Cityscapes in three widths where
EDGENETS names a checkout of sacmehta/EdgeNets (`../shared/models/edgenets_city.py`). Sets:
RoadAnomaly21, Fishyscapes Static, the small objects of RoadAnomaly21, CamVid val and test. Fits
see 14 ordinary images without labels: of CamVid train, or of Cityscapes.

Stages: `all` sees all images of the road sets and every fourth of CamVid, and judges `doubt` and
the scores nearest to it; `others` sees every `--every`-th image (every eighth of CamVid) and judges
every score without a fit, and for some pairs factors left out and fits of fewer images;
`views` asks what mirror images add, where probabilities are means over them (as with `--views`),
on all pairs and every `--every`-th image, and larger ones on those of `camvid9` and two of
ESPNetv2; `cost` says what `doubt` and `doubt:FILE` take beside a forward pass, of one image on one
thread;
`elsewhere` judges networks of scenes that are no streets, in the folder `--elsewhere`, made by

    doubtmap train dubai:FOLDER/half:train --model ../shared/models/camvid9 --hold-out CLASS
        --epochs 24 --crop 224x224 --batch 4 --rate 5e-4 --out FOLDER/dubai-CLASS
    doubtmap train folder:FOLDER/chase:train --model ../shared/models/camvid9 --epochs 40
        --crop 224x224 --batch 4 --rate 5e-4 --class-weights root --out FOLDER/vessels

(`half` and `chase` are what `halve` of `nflowjs.py` and `chase` of `segments.py` write).

Rows: one for each network, set and score, `auprc_ratio` being over max softmax and
`auprc_difference` and `fpr95_difference` paired over images; `stage` is "scores" (of `all`),
"others", "terms" (one factor left out, or alone), "growth" (images in the fit) or "elsewhere".
Rows of the set "all pairs" sum up what unknown pixels they have: geometric mean, worst and number
of pairs of network and set; those of the stage "pairs" list them. `images` says how many were
judged. A network and set whose rows are in the file already are not measured again; remove the
file to start anew.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import stages
import torch
from stages import Row
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import Dataset, Sample, open_dataset, open_images
from doubtmap.datasets.dataset import Derived
from doubtmap.evaluation.asking import Options
from doubtmap.fitting import fit_score
from doubtmap.kernels import resize_logits
from doubtmap.models import Views
from doubtmap.prediction import Prediction, Score, Segmenter, at_least_float32, listening_to
from doubtmap.scores import STATELESS
from doubtmap.scores.default import Doubt, doubt, on_image, terms
from doubtmap.scores.islands import pixels_across
from doubtmap.scores.parsing import parse_scores

CAMVID = ("camvid9", "camvid9-overconfident", "camvid9-ensemble/1")
WIDTHS = (1.0, 0.5, 2.0)
UNKNOWN = ("pedestrian", "bicyclist")
GROWTH = (3, 5, 10)
ABLATED = {
    (network, f"roadanomaly21{small}")
    for network in ("camvid9", "espnetv2-1.0")
    for small in ("", "_small")
}
"""Networks and sets that also have rows of terms and growth."""
KEPT = {"unknown": ("auprc", "fpr95", "siou", "ppv", "f1"), "wrong": ("auprc", "fpr95", "aurc")}
EXTRA = "gradient(of=bias,p=0.3)"
NEAREST = ("max_softmax", "entropy", "divergence", "doubt")
"""Scores of the stage `all`, beside `doubt:FILE`."""
STREETS = ("all", "others")


@dataclass(frozen=True, eq=False)
class Some(Derived):
    """Every so many-th sample of a data set that is seen so many times, `count` at most."""

    dataset: Dataset
    step: int = 1
    count: int = 10**6
    times: int = 1

    @property
    def name(self) -> str:
        """The other's."""
        return self.dataset.name

    def __len__(self) -> int:
        return min(-(-len(self.dataset) * self.times // self.step), self.count)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.dataset.sample_name(index * self.step % len(self.dataset))

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index * self.step % len(self.dataset)]


def both_doubts(segmenter: Segmenter, ordinary: Dataset) -> dict[str, Score]:
    """`doubt`, and the same fitted on 14 images of a set."""
    few = Some(ordinary, len(ordinary) // 14, 14)
    return {"doubt": dm.scores.doubt, "doubt:FILE": fit_score("doubt", segmenter, few)}


def only(*which: int) -> Score:
    """The product of some of the three factors of `doubt`."""

    def score(prediction: Prediction) -> Tensor:
        logits = at_least_float32(prediction.native_logits)
        found = terms(logits, pixels_across(prediction))
        return on_image(prediction, torch.stack([found[i] for i in which]).sum(0))

    return score


TERMS = {
    "smoothed entropy alone": (0,),
    "islands alone": (1, 2),
    "without the mean of sides": (0, 2),
    "without the geometric mean": (0, 1),
}


def networks(shared: Path) -> Iterator[tuple[str, Callable[[], Segmenter], Dataset]]:
    """Name, how to open it, and the ordinary images of its domain."""
    train = open_dataset(f"camvid:{shared / 'data/camvid'}:train")
    city = open_images(str(shared / "data/cityscapes_few/leftImg8bit"))
    few = Some(train, len(train) // 14, 14)
    wide: list[tuple[str, Callable[[], Segmenter], Dataset]] = []
    if os.environ.get("EDGENETS"):
        spec = importlib.util.spec_from_file_location("city", shared / "models/edgenets_city.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for width in WIDTHS:
            wide.append((f"espnetv2-{width}", lambda w=width: _city(module, w), city))
    own = [(n, lambda n=n: dm.load(str(shared / "models" / n)), few) for n in CAMVID]
    yield from (pair for pairs in zip(own, wide) for pair in pairs)
    if not wide:
        yield from own


def _city(module: Any, width: float) -> Segmenter:
    return dm.load(module.load(width), classes=module.CLASSES, input_size=(512, 1024))


def sets(shared: Path, name: str, every: int, of_camvid: int) -> Iterator[Dataset]:
    """The sets of a network."""
    data = shared / "data"
    yield Named(open_dataset(f"smiyc:{data / 'roadanomaly21'}"), "roadanomaly21")
    small = Some(open_dataset(f"smiyc:{data / 'roadanomaly21_small'}"), every)
    yield Named(small, "roadanomaly21_small")
    yield Some(open_dataset(f"fishyscapes:{data / 'fishyscapes_static'}"), every)
    for split in ("test", "val") if name in CAMVID else ():
        yield Some(open_dataset(f"camvid:{data / 'camvid'}:{split}"), of_camvid)


@dataclass(frozen=True, eq=False)
class Named(Derived):
    """A data set under another name."""

    dataset: Dataset
    name: str

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]


def measure(
    shared: Path, every: int, stage: str, rows: list[Row], save: Callable[[list[Row]], None]
) -> None:
    """All rows of a stage that are not there yet; saved after each set."""
    whole = stage == "all"
    main = "scores" if whole else "others"
    done = {(r["network"], r["set"]) for r in rows if (r["stage"], r["name"]) == (main, "doubt")}
    for name, opened, ordinary in networks(shared):
        every_set = sets(shared, name, 1 if whole else every, 4 if whole else 8)
        todo = [data for data in every_set if (name, data.name) not in done]
        if not todo:
            continue
        segmenter = opened()
        fits: dict[str, Score] = {"doubt:FILE": fit_score("doubt", segmenter, ordinary)}
        for dataset in todo:
            plain = parse_scores(NEAREST if whole else [*STATELESS, EXTRA])
            parts: dict[str, dict[str, Score]] = {main: plain | fits}
            if not whole and (name, dataset.name) in ABLATED:
                parts["terms"] = {key: only(*which) for key, which in TERMS.items()}
                parts["growth"] = {
                    f"{n} images": fit_score("doubt", segmenter, Some(ordinary, 14 // n, n))
                    for n in GROWTH
                }
            unknown = UNKNOWN if dataset.class_names else ()
            old = [(name, dataset.name, part) for part in parts]
            rows[:] = [r for r in rows if (r["network"], r["set"], r["stage"]) not in old]
            rows += of_set(name, segmenter, dataset, parts, unknown)
            save(rows)


def elsewhere(folder: Path, rows: list[Row], save: Callable[[list[Row]], None]) -> None:
    """Networks of aerial photographs, one class each left out, and of vessels."""
    done = {(row["network"], row["set"]) for row in rows}
    for path in sorted(folder.glob("dubai-*")) + sorted(folder.glob("vessels")):
        _, _, unknown = path.name.partition("-")
        place = f"dubai:{folder / 'half'}" if unknown else f"folder:{folder / 'chase'}"
        test, ordinary = open_dataset(f"{place}:test"), open_dataset(f"{place}:train")
        if (path.name, test.name) in done:
            continue
        segmenter = dm.load(str(path))
        few = Some(ordinary, len(ordinary) // 14, 14)
        fits: dict[str, Score] = {"doubt:FILE": fit_score("doubt", segmenter, few)}
        parts = {"elsewhere": parse_scores([*NEAREST, "island"]) | fits}
        rows += of_set(path.name, segmenter, test, parts, (unknown,) if unknown else ())
        save(rows)


def of_set(
    name: str,
    segmenter: Segmenter,
    dataset: Dataset,
    parts: dict[str, dict[str, Score]],
    unknown: tuple[str, ...],
) -> list[Row]:
    """The rows of one network and set."""
    scores = {key: score for members in parts.values() for key, score in members.items()}
    part_of = {key: part for part, members in parts.items() for key in members}
    found = dm.evaluate(
        segmenter, dataset, scores, unknown=unknown, replicates=100, options=Options(examples=0)
    )
    figures = found.figures
    return [
        {"name": score, "network": name, "set": dataset.name, "stage": part, "images": len(dataset)}
        | row(figures, score)
        for score, part in part_of.items()
    ]


def row(figures: Row, score: str) -> Row:
    """Figures of one score, and how they differ from max softmax's."""
    kept: Row = {}
    for kind, keys in KEPT.items():
        own, other = figures["scores"][score][kind], figures["scores"]["max_softmax"][kind]
        if own["auprc"] is None:
            continue
        label = "" if kind == "unknown" else "wrong_"
        for key in keys:
            kept[label + key] = short(own.get(key))
        kept[f"{label}auprc_interval"] = [short(x) for x in own["auprc_interval"] or ()]
        kept[f"{label}auprc_ratio"] = short(own["auprc"] / other["auprc"])
        kept[f"{label}auprc_difference"] = short(own["auprc"] - other["auprc"])
        kept[f"{label}fpr95_difference"] = short(own["fpr95"] - other["fpr95"])
        for pair in figures["differences"]:
            of, _, key = pair["figure"].partition(".")
            if of == kind and set(pair["scores"]) == {score, "max_softmax"}:
                sign = 1 if pair["scores"][0] == score else -1
                ends = sorted(sign * x for x in pair["interval"])
                kept[f"{label}{key}_difference_interval"] = [short(x) for x in ends]
    return kept


def summed_up(rows: list[Row]) -> list[Row]:
    """The same figures by score over all pairs of network and set, and pair by pair."""
    found: list[Row] = []
    for stage, name in dict.fromkeys((row["stage"], row["name"]) for row in rows):
        own = [row for row in rows if (row["stage"], row["name"]) == (stage, name)]
        own = [row for row in own if "auprc_ratio" in row]
        about = {"name": name, "set": "all pairs", "stage": stage}
        found += [about | over_pairs(own)] if own else []
    for row in rows:
        if row["stage"] in ("scores", "elsewhere"):
            found.append(row | {"name": row["network"] + ", " + row["set"], "set": row["name"]})
            found[-1] |= {"stage": "pairs" if row["stage"] == "scores" else "pairs elsewhere"}
            del found[-1]["network"]
    return found


def over_pairs(rows: list[Row]) -> Row:
    """Mean, worst and number of pairs of network and set."""
    ratios = [row["auprc_ratio"] for row in rows]
    changes = [row["fpr95_difference"] for row in rows]
    return {
        "pairs": len(rows),
        "auprc_ratio": short(statistics.geometric_mean(ratios)),
        "worst_ratio": min(ratios),
        "at_least_2": sum(ratio >= 2 for ratio in ratios),
        "fpr95_difference": short(statistics.mean(changes)),
        "worst_fpr95_difference": max(changes),
    }


def short(value: float | None) -> float | None:
    """Five digits."""
    return None if value is None else float(f"{value:.5g}")


VIEWED = "all pairs of views"
VIEWS = {
    "mirror": ((1.0,), True),
    "sides 1 and 2": ((1.0, 2.0), False),
    "sides 1 and 2, mirror": ((1.0, 2.0), True),
}


def views(given: Namespace) -> list[Row]:
    """`doubt` of means over views, over max softmax of the image as it is; and what they take."""
    there = stages.read("doubt")["rows"]
    rows = [row for row in there if row["stage"] != "views"]
    own = [row for row in there if row["stage"] == "views" and row["set"] != VIEWED]
    for name, opened, _ in networks(given.shared):
        for dataset in sets(given.shared, name, given.every, 8):
            if any(row["set"] == f"{name}, {dataset.name}" for row in own):
                continue
            unknown = UNKNOWN if dataset.class_names else ()
            plain = opened()
            looks: dict[str, Segmenter] = {"": plain}
            other = name == "espnetv2-1.0" and "roadanomaly21" in dataset.name
            larger = name == CAMVID[0] or other
            shown = VIEWS if larger else {"mirror": VIEWS["mirror"]}
            looks |= {view: Views(plain, *how) for view, how in shown.items()}
            found = {v: doubt_and_softmax(seen, dataset, unknown) for v, seen in looks.items()}
            base = found[""]["max_softmax"]["unknown"]
            for view, score in itertools.product(looks, ("doubt", "max_softmax")):
                mine = found[view][score]["unknown"]
                row = {"name": ", ".join(filter(None, (score, view))), "stage": "views"}
                row |= {"set": f"{name}, {dataset.name}", "images": len(dataset)}
                row |= {"auprc": short(mine["auprc"]), "fpr95": short(mine["fpr95"])}
                row["auprc_ratio"] = short(mine["auprc"] / base["auprc"])
                own.append(row | {"fpr95_difference": short(mine["fpr95"] - base["fpr95"])})
            stages.put(TOPIC, rows + own, given.conditions)
    for look in dict.fromkeys(row["name"] for row in own):
        about = {"name": look, "set": VIEWED, "stage": "views"}
        own.append(about | over_pairs([row for row in own if row["name"] == look]))
    return rows + own


def doubt_and_softmax(segmenter: Segmenter, dataset: Dataset, unknown: tuple[str, ...]) -> Row:
    """Their figures."""
    scores = parse_scores(["max_softmax", "doubt"])
    options = Options(examples=0)
    found = dm.evaluate(segmenter, dataset, scores, unknown=unknown, replicates=20, options=options)
    return cast(Row, found.figures["scores"])


def costs(given: Namespace) -> list[Row]:
    """Processor time of one image on one thread, the best of five, over the network's own."""
    rows = [row for row in stages.read("doubt")["rows"] if row["stage"] != "cost"]
    for name, opened, ordinary in networks(given.shared):
        segmenter = opened()
        fitted = fit_score("doubt", segmenter, Some(ordinary, 7, 2))
        seconds = seconds_of(segmenter, fitted, ordinary[0].image[None])
        for step, own in seconds.items():
            row = {"name": step, "set": name, "stage": "cost", "repeats": 5}
            rows.append(row | {"processor_seconds": short(own)})
            with_it = own / seconds["forward"] + (step != "forward")
            rows[-1]["processor_ratio_to_forward"] = short(with_it)
    return rows


def seconds_of(segmenter: Segmenter, fitted: Score, image: Tensor) -> dict[str, float]:
    """Of the network, and of what comes on top of it."""
    listening = listening_to(segmenter, fitted.layers if isinstance(fitted, Doubt) else ())
    prediction = listening(image)
    full = resize_logits(prediction.native_logits, prediction.size)
    wide = Prediction(full, prediction.size)
    steps: dict[str, Callable[[], object]] = {
        "forward": lambda: listening(image),
        "doubt": lambda: doubt(prediction),
        "doubt:FILE": lambda: fitted(prediction),
        "doubt, full-size logits": lambda: doubt(wide),
    }
    seconds = dict.fromkeys(steps, math.inf)
    for _ in range(5):
        for step, run in steps.items():
            start = time.process_time()
            run()
            seconds[step] = min(seconds[step], time.process_time() - start)
    return seconds


def stage(name: str) -> Callable[[Namespace], list[Row]]:
    """Rows of a stage, kept after each set, and what they sum up to."""

    def rows_of(given: Namespace) -> list[Row]:
        given.conditions["every"] = given.every
        path = stages.RESULTS / "doubt.json"
        there = stages.read("doubt")["rows"] if path.exists() else []
        rows = [row for row in there if "network" in row]
        cost = [row for row in there if row["stage"] in ("cost", "views")]

        def keep(rows: list[Row]) -> None:
            stages.put(TOPIC, rows + summed_up(rows) + cost, given.conditions)

        if name in STREETS:
            measure(given.shared, given.every, name, rows, keep)
        elif given.elsewhere:
            elsewhere(given.elsewhere, rows, keep)
        return rows + summed_up(rows) + cost

    return rows_of


TOPIC = stages.Topic(
    "doubt",
    "python benchmarks/doubt.py --elsewhere FOLDER",
    key=(),
    conditions={
        "replicates": 100,
        "every": 5,
        "fit": "14 images, no labels",
        "unknown in CamVid": list(UNKNOWN),
        "chosen on": "all these sets and networks but those elsewhere, from native logits",
    },
)
STAGES = {name: stages.Stage(TOPIC, stage(name)) for name in (*STREETS, "elsewhere")}
STAGES["views"] = stages.Stage(TOPIC, views)
STAGES["cost"] = stages.Stage(TOPIC, costs)
OPTIONS = {
    "--every": {"type": int, "default": 5, "help": "of the images of larger sets, in `others`"},
    "--elsewhere": {"type": Path, "help": "folder of the networks of the stage `elsewhere`"},
}

if __name__ == "__main__":
    stages.run(__doc__, STAGES, OPTIONS)
