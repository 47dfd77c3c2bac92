"""The default score `doubt`, without and with a fit, against every other score.

    EDGENETS=CHECKOUT python benchmarks/doubt.py [--shared ../shared] [--every 5]

Networks: three of CamVid in `../shared/models`, and ESPNetv2 of Cityscapes in three widths where
EDGENETS names a checkout of sacmehta/EdgeNets (`../shared/models/edgenets_city.py`). Sets:
RoadAnomaly21, Fishyscapes Static, the small objects of RoadAnomaly21, CamVid val and test. Fits
see 14 ordinary images without labels: of CamVid train, or of Cityscapes.

Rows: one for each network, set and score, `auprc_ratio` being over max softmax and
`auprc_difference` paired over images; with `stage` "scores", "terms" (one factor left out, or
alone) or "growth" (images in the fit). Rows of the set "all pairs" sum them up: geometric mean,
worst and number of pairs of network and set; those of the stage "pairs" list them. `images` says
how many were judged: all of RoadAnomaly21, every `--every`-th of the others, every eighth of
CamVid. A network and set whose rows are in the file already are not measured again; remove the
file to start anew.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stages
import torch
from stages import Row
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import Dataset, Sample, open_dataset, open_images
from doubtmap.datasets.dataset import Derived
from doubtmap.evaluation.evaluate import Options
from doubtmap.fitting import fit_score
from doubtmap.prediction import Prediction, Score, Segmenter, at_least_float32
from doubtmap.scores import STATELESS
from doubtmap.scores.default import on_image, terms
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


@dataclass(frozen=True, eq=False)
class Some(Derived):
    """Every so many-th sample of a data set, `count` at most."""

    dataset: Dataset
    step: int = 1
    count: int = 10**6

    @property
    def name(self) -> str:
        """The other's."""
        return self.dataset.name

    def __len__(self) -> int:
        return min(-(-len(self.dataset) // self.step), self.count)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.dataset.sample_name(index * self.step)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index * self.step]


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


def sets(shared: Path, name: str, every: int) -> Iterator[Dataset]:
    """The sets of a network."""
    data = shared / "data"
    yield Named(open_dataset(f"smiyc:{data / 'roadanomaly21'}"), "roadanomaly21")
    small = Some(open_dataset(f"smiyc:{data / 'roadanomaly21_small'}"), every)
    yield Named(small, "roadanomaly21_small")
    yield Some(open_dataset(f"fishyscapes:{data / 'fishyscapes_static'}"), every)
    for split in ("test", "val") if name in CAMVID else ():
        yield Some(open_dataset(f"camvid:{data / 'camvid'}:{split}"), 8)


@dataclass(frozen=True, eq=False)
class Named(Derived):
    """A data set under another name."""

    dataset: Dataset
    name: str

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]


def measure(
    shared: Path, every: int, rows: list[dict[str, Any]], save: Callable[[list[Any]], None]
) -> None:
    """All rows that are not there yet; saved after each set."""
    done = {(row["network"], row["set"]) for row in rows}
    for name, opened, ordinary in networks(shared):
        todo = [data for data in sets(shared, name, every) if (name, data.name) not in done]
        if not todo:
            continue
        segmenter = opened()
        fits: dict[str, Score] = {"doubt:FILE": fit_score("doubt", segmenter, ordinary)}
        for dataset in todo:
            parts: dict[str, dict[str, Score]] = {"scores": fits}
            if (name, dataset.name) in ABLATED:
                parts["terms"] = {key: only(*which) for key, which in TERMS.items()}
                parts["growth"] = {
                    f"{n} images": fit_score("doubt", segmenter, Some(ordinary, 14 // n, n))
                    for n in GROWTH
                }
            rows += of_set(name, segmenter, dataset, parts)
            save(rows)


def of_set(
    name: str, segmenter: Segmenter, dataset: Dataset, parts: dict[str, dict[str, Score]]
) -> list[dict[str, Any]]:
    """The rows of one network and set."""
    scores = parse_scores([*STATELESS, EXTRA])
    part_of = dict.fromkeys(scores, "scores")
    for part, members in parts.items():
        scores |= members
        part_of |= dict.fromkeys(members, part)
    unknown = UNKNOWN if dataset.class_names else ()
    found = dm.evaluate(
        segmenter, dataset, scores, unknown=unknown, replicates=100, options=Options(examples=0)
    )
    figures = found.figures
    return [
        {"name": score, "network": name, "set": dataset.name, "stage": part, "images": len(dataset)}
        | row(figures, score)
        for score, part in part_of.items()
    ]


def row(figures: dict[str, Any], score: str) -> dict[str, Any]:
    """Figures of one score, and how they differ from max softmax's."""
    kept: dict[str, Any] = {}
    for kind, keys in KEPT.items():
        own, other = figures["scores"][score][kind], figures["scores"]["max_softmax"][kind]
        if own["auprc"] is None:
            continue
        label = "" if kind == "unknown" else "wrong_"
        for key in keys:
            kept[label + key] = short(own.get(key))
        kept[f"{label}auprc_interval"] = [short(x) for x in own["auprc_interval"] or ()]
        kept[f"{label}auprc_ratio"] = short(own["auprc"] / other["auprc"])
        kept[f"{label}fpr95_difference"] = short(own["fpr95"] - other["fpr95"])
        for pair in figures["differences"]:
            if pair["figure"] == f"{kind}.auprc" and set(pair["scores"]) == {score, "max_softmax"}:
                sign = 1 if pair["scores"][0] == score else -1
                kept[f"{label}auprc_difference"] = short(sign * pair["difference"])
                ends = sorted(sign * x for x in pair["interval"])
                kept[f"{label}auprc_difference_interval"] = [short(x) for x in ends]
    return kept


def summed_up(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same figures by score over all pairs of network and set, and pair by pair."""
    found: list[dict[str, Any]] = []
    for stage, name in dict.fromkeys((row["stage"], row["name"]) for row in rows):
        own = [row for row in rows if (row["stage"], row["name"]) == (stage, name)]
        ratios = [row["auprc_ratio"] for row in own]
        about = {"name": name, "set": "all pairs", "stage": stage, "pairs": len(own)}
        found.append(
            about
            | {
                "auprc_ratio": short(statistics.geometric_mean(ratios)),
                "worst_ratio": min(ratios),
                "at_least_2": sum(ratio >= 2 for ratio in ratios),
                "fpr95_difference": short(statistics.mean(r["fpr95_difference"] for r in own)),
                "worst_fpr95_difference": max(r["fpr95_difference"] for r in own),
            }
        )
    for row in rows:
        if row["name"] in ("doubt", "doubt:FILE", "max_softmax"):
            found.append(row | {"name": row["network"] + ", " + row["set"], "set": row["name"]})
            found[-1] |= {"stage": "pairs"}
            del found[-1]["network"]
    return found


def short(value: float | None) -> float | None:
    """Five digits."""
    return None if value is None else float(f"{value:.5g}")


def figures(given: Namespace) -> list[Row]:
    """Rows of every network and set, kept after each set, and what they sum up to."""
    given.conditions["every"] = given.every
    path = stages.RESULTS / "doubt.json"
    there = stages.read("doubt")["rows"] if path.exists() else []
    rows = [row for row in there if "network" in row]

    def keep(rows: list[Row]) -> None:
        stages.put(TOPIC, rows + summed_up(rows), given.conditions)

    measure(given.shared, given.every, rows, keep)
    return rows + summed_up(rows)


TOPIC = stages.Topic(
    "doubt",
    "python benchmarks/doubt.py",
    key=(),
    conditions={
        "replicates": 100,
        "every": 5,
        "fit": "14 images, no labels",
        "unknown in CamVid": list(UNKNOWN),
        "chosen on": "all these sets and networks, from caches of lower resolution",
    },
)
STAGES = {"figures": stages.Stage(TOPIC, figures)}
OPTIONS = {"--every": {"type": int, "default": 5, "help": "of the images of larger sets"}}

if __name__ == "__main__":
    stages.run(__doc__, STAGES, OPTIONS)
