"""Negatives in training: what they are worth on unknown objects, on roads and from the air.

    python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,... [--shared ../shared] \
        [--stages road,short,val,time,flows] [--work DIR]
    python benchmarks/nflowjs.py --halved DIR --stages halve
    python benchmarks/nflowjs.py --halved DIR --stages aerial --networks CLASS/NAME=FOLDER,...
    python benchmarks/nflowjs.py --work DIR --stages "teach,trust,trust flows" [--seeds 1,2,3]

Writes `benchmarks/results/nflowjs.json`: the rows of the stages that are asked for, all networks
at once. What was measured is kept in `--work`, and taken from there for the same weights and set.
Folders of one name are networks that differ by `--seed` alone; one name is `plain`, which the
others are compared with. Networks of the road start from `camvid9`, which never learnt pedestrian
and bicyclist, and differ only by what is pasted (`DATA` is camvid:../shared/data/camvid:train).
Their flows are free, as all were before there was a trust region, but for `flow held`: FREE is
`--flow-rate 1e-4 --flow-trust inf --newest-flow`. Those of stage `road` have ten epochs:

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --recipe nflowjs --negatives none|noise|real:../shared/data/coco128:train|flow \
        [FREE] [--flow-weight 0.03] --out FOLDER

Those of stage `short` are trained for two (FLOW is the file that the first run trains):

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --batch 4 --crop 288x384 --epochs 2 --rate 3e-4 --class-weights 0.25 --seed SEED \
        --recipe nflowjs --negatives none|shuffled|flow [--flow FLOW] \
        [FREE] [--freeze-flow] [--divergence kl] --out FOLDER

Those of stage `trust` are what `teach` trains, as these are but with `--crop 192x256`, one for each
of `--seeds`; a run that was stopped goes on where it was. The flow of a seed learns alone for 600
steps, and all networks of the seed begin with it: `flow` with FREE, `flow held` with the defaults,
`negative class` with FREE and `--negative-class`; `plain` pastes nothing. Every 8th image of the
sets of CamVid; `doubt:FILE` is fitted on each network, on 14 images of CamVid train. `longer`
compares those of seed 1 with one of five epochs. `trust flows` tells the same of their flows as
`flows`.

Sets of `road` and `short`: CamVid test with the two held-out classes unknown; CamVid test with one
COCO object pasted into each image, unscaled, of the half of `coco128` that no training saw, people
and known things left out (pedestrians and bicyclists of CamVid itself are void there), the first
networks of all names with one pasting, the second with another, and so on; every fourth image of
CamVid test with a window of known content of another image in it, called unknown, a control: an
AUROC above one half is a score that finds seams; RoadAnomaly21; of `road` Fishyscapes Static. Stage
`val`, on which choices are made: CamVid val, and with objects of the half that `real` has seen.
Stage `aerial`: `dubai_aerial` at half size, test tiles, the network's held-out CLASS unknown; a
base network learns the other classes for 8 epochs from `camvid9` (`--crop 256x256 --batch 4
--class-weights 0.25 --rate 1e-3 --seed 1`), and goes on for 8 with `--recipe nflowjs --rate 1e-4
--flow-steps 400` and FREE.

Pixels are pooled, void left out. Intervals are the 2.5 and 97.5 % percentiles, moved to the figure,
of 300 bootstrap replicates over images, frames of a drive in blocks of ten; they do not know how
networks of other seeds differ. Stage `time` is the processor time of one thread, all networks in
turn; `flows` tells how far the samples of the flows are from what they drew before they learnt
beside a network.
"""

from __future__ import annotations

import hashlib
import json
import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doubt import Some
from PIL import Image
from stages import HELD_OUT, Measured, Row, Stage, Topic, in_turns, measured, rows_of_runs, run
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, Dataset, Pasted, Sample, open_dataset, open_outlines
from doubtmap.fitting import fit_score
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import prepared
from doubtmap.training import NFlowJS, Settings, train
from doubtmap.training.flow_training import read_flow

PLAIN = "plain"
NEGATIVE = "negative.safetensors"
OTHER, BEST = ", other scores", ", best"
"""Ends of stages: rows that the docs leave out, and a row for each network and set."""
SHORT = ("camvid test", "camvid test with objects", "camvid test with seams", "roadanomaly21")
"""Sets of stage `short`."""
Networks = dict[str, list[Path]]
Scores = Mapping[str, Callable[[Prediction], Tensor]]

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


def few_sets(shared: Path, seed: int) -> dict[str, Chosen]:
    """Of the test sets of the road what a small training is judged on."""
    sets = road_sets(shared, seed)
    camvid = ("camvid test", "camvid test with objects")
    few = {title: (*sets[title][:2], 8, 2) for title in camvid}
    return few | {"roadanomaly21": sets["roadanomaly21"]}


SMALL = Settings(epochs=2, batch=4, crop=(192, 256), rate=3e-4, class_weights=0.25, workers=1)
"""How the networks of `trust` are trained."""
TOLD_MORE = ("trust", "longer")
"""Stages with `doubt`, and `negative` where a network has one."""
FREE = {"flow_rate": 1e-4, "flow_trust": math.inf, "flow_replay": False}
"""Of a flow that goes as far as it likes, as all did before there was a region."""
TAUGHT: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "flow": FREE,
    "flow held": {},
    "negative class": FREE | {"negative_class": True},
}
"""Options of each."""

SCORES: Scores = {
    "max_softmax": dm.scores.max_softmax,
    "entropy": dm.scores.entropy,
    "max_logit": dm.scores.max_logit,
    "divergence": dm.scores.divergence,
}


def compared(stage: str, given: Namespace) -> list[Row]:
    """Rows of all networks on all sets of a stage, set by set."""
    found: dict[str, dict[str, list[Measured]]] = {}
    for name, folders in given.networks.items():
        for seed, folder in enumerate(folders):
            for title, chosen in sets_of(stage, name, seed, given).items():
                one = remembered(folder, title, seed, chosen, given, stage in TOLD_MORE)
                found.setdefault(title, {}).setdefault(name.split("/")[-1], []).append(one)
    rows = []
    for title, by_name in found.items():
        for name, runs in by_name.items():
            new = rows_of_runs(name, runs, by_name.get(PLAIN, ()) if name != PLAIN else ())
            rows += [{"set": title} | row for row in new]
    named = [{"stage": stage + (OTHER if is_other(row, rows) else "")} | row for row in rows]
    return named + [{"stage": stage + BEST} | row for row in best_of_sets(rows)]


def sets_of(stage: str, name: str, seed: int, given: Namespace) -> dict[str, Chosen]:
    """The sets of a stage."""
    if stage == "aerial":
        return aerial_set(given.halved, name.split("/")[0])
    if stage == "val":
        return val_sets(given.shared, seed)
    if stage in TOLD_MORE:
        return few_sets(given.shared, seed)
    sets = road_sets(given.shared, seed)
    return sets if stage == "road" else {title: sets[title] for title in SHORT}


def remembered(
    folder: Path, title: str, seed: int, chosen: Chosen, given: Namespace, more: bool = False
) -> Measured:
    """What one network does on one set, from `--work` if it was measured before.

    With `more` scores: `doubt`, fitted on it, and `negative` where it has one.
    """
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    path = (
        given.work
        / title
        / f"{weights}-{seed}{f'-blocks-{chosen[-1]}' if chosen[-1] > 1 else ''}.npz"
    )
    if not path.exists():
        print(f"{folder}:")
        network, scores = opened(folder, given.shared if more else None)
        measured(network, *chosen, scores=scores).save(path)
    return Measured.load(path)


@cache
def opened(folder: Path, shared: Path | None) -> tuple[Segmenter, Scores]:
    """A network and its scores; with `shared` also `doubt`, fitted on it, and `negative`."""
    network = dm.load(folder)
    if shared is None:
        return network, SCORES
    camvid = open_dataset(f"camvid:{shared}/data/camvid:train")
    images = Some(camvid, len(camvid) // 14, 14)
    scores = SCORES | {"doubt": dm.scores.doubt, "doubt:FILE": fit_score("doubt", network, images)}
    if (folder / NEGATIVE).exists():
        scores["negative"] = dm.scores.negative
    return prepared(network, scores), scores


def teach(given: Namespace) -> list[Row]:
    """No rows: trains the networks that `trust` judges, or goes on with them."""
    folders = {
        name: [given.work / "networks" / f"{name} {seed}" for seed in given.seeds]
        for name in TAUGHT
    }
    for place, seed in enumerate(given.seeds):
        flow = folders["flow"][place] / "training" / "flow.safetensors"
        for name, options in TAUGHT.items():
            recipe = NFlowJS("none")
            if name != PLAIN:
                own = {"flow_steps": 600} if name == "flow" else {"flow": flow}
                recipe = NFlowJS(**own, **options)
            folder = folders[name][place]
            print(f"{folder}:")
            train(
                open_dataset(f"camvid:{given.shared}/data/camvid:train"),
                folder,
                recipe=recipe,
                model=f"{given.shared}/models/camvid9",
                hold_out=HELD_OUT,
                settings=replace(SMALL, seed=seed),
                device="cpu",
                resume=(folder / "training" / "settings.json").exists(),
            )
    given.networks = folders
    return []


def times(given: Namespace) -> list[Row]:
    """Milliseconds for an image, and the ratio to the first network's."""
    data = open_dataset(f"camvid:{given.shared}/data/camvid:test")
    images = [data[index].image[None] for index in range(0, 230, 6)]
    loaded = {name: dm.load(folders[0]) for name, folders in given.networks.items()}
    loaded |= {f"{name} again": dm.load(f[0]) for name, f in list(given.networks.items())[:1]}
    ways = {
        f"{name}: divergence": lambda x, network=network: dm.scores.divergence(network(x))
        for name, network in loaded.items()
    }
    return [row | {"set": "camvid test, 480x360"} for row in in_turns(ways, images)]


def flows(given: Namespace) -> list[Row]:
    """What flows draw, before and after they learnt beside a network: how likely it was before.

    Bits per dimension, under the flow before, of 64 samples of 64x64, by the flow that drew them.
    """
    rows = []
    for name, folders in given.networks.items():
        for number, folder in enumerate(folders, 1):
            title = f"{name} {number}" if len(folders) > 1 else name
            if (folder / "training" / "flow-joint.safetensors").exists():
                rows += flows_of(title, folder / "training")
    return rows


def flows_of(title: str, inner: Path) -> list[Row]:
    """Two rows, of one network."""
    asked = json.loads((inner / "settings.json").read_text())["recipe"]
    first = Path(asked["flow"] or inner / "flow.safetensors")
    before, _ = read_flow(first)
    rows: list[Row] = []
    for kind, path in (("before", first), ("after", inner / "flow-joint.safetensors")):
        random, (flow, about) = torch.Generator().manual_seed(0), read_flow(path)
        with torch.no_grad():
            drawn = flow.sample(64, (64, 64), random)
            bits = before.bits(drawn, torch.Generator().manual_seed(1)).mean()
        rows.append({"name": f"{title}: {kind}", "set": "samples", "bits": float(bits)})
        rows[-1] |= {k: about[k] for k in ("distance", "steps_back") if k in about}
    return rows


def is_other(row: Row, rows: Sequence[Any]) -> bool:
    """Whether a row is left out of the tables of the docs.

    Of `plain` all scores are shown, of the others the divergence and the best by AUPRC.
    """
    network, _, score = row["name"].partition(": ")
    if network == PLAIN or score == "divergence" or "unknown.auprc" not in row:
        return False
    own = [r for r in rows if r["set"] == row["set"] and r["name"].startswith(f"{network}: ")]
    return row is not max(own, key=lambda r: float(r["unknown.auprc"]))


SHOWN = (": divergence", ": doubt", ": doubt:FILE", ": negative")


def best_of_sets(rows: Sequence[Any]) -> list[Row]:
    """Of all sets the plain networks' best score and the others' `SHOWN`, as rows of one set."""
    found = []
    for title in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == title]
        plain = [row for row in own if row["name"].startswith(f"{PLAIN}: ")]
        shown = [max(plain, key=lambda row: float(row["unknown.auprc"]))] if plain else []
        shown += [r for r in plain if r not in shown and r["name"].endswith(SHOWN[1:3])]
        shown += [r for r in own if r not in plain and r["name"].endswith(SHOWN)]
        found += [row | {"name": f"{title}: {row['name']}", "set": "all"} for row in shown]
    return found


def halved(given: Namespace) -> list[Row]:
    """No rows: writes what stage `aerial` reads."""
    halve(given.shared, given.halved)
    return []


def networks_of(text: str) -> Networks:
    """`NAME=FOLDER+FOLDER+...,...` of the command line."""
    pairs = (pair.split("=", 1) for pair in text.split(",") if pair)
    return {name: [Path(folder) for folder in folders.split("+")] for name, folders in pairs}


def read_seeds(text: str) -> tuple[int, ...]:
    """`1,2,3` of the command line."""
    return tuple(map(int, text.split(",")))


TOPIC = Topic(
    "nflowjs",
    "python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,...",
    conditions={"unknown": list(HELD_OUT), "threads": 1},
)
COMPARED = ("road", "short", "trust", "longer", "val", "aerial")
STAGES = {name: Stage(TOPIC, partial(compared, name)) for name in COMPARED} | {
    "time": Stage(TOPIC, times),
    "flows": Stage(TOPIC, flows),
    "trust flows": Stage(TOPIC, flows),
    "halve": Stage(TOPIC, halved),
    "teach": Stage(TOPIC, teach),
}
OPTIONS = {
    "--networks": {"default": {}, "type": networks_of, "help": "NAME=FOLDER+FOLDER+...,..."},
    "--seeds": {"default": (1, 2, 3), "type": read_seeds, "help": "of `teach`, between commas"},
    "--halved": {"type": Path, "help": "folder for dubai_aerial at half its size"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="road,time")
