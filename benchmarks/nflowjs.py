"""Negatives in training: what they are worth on unknown objects, on roads and from the air.

    python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,... [--shared ../shared] \
        [--stages road,short,val,flows] [--work DIR]
    python benchmarks/nflowjs.py --halved DIR --stages halve,aerial --networks CLASS/NAME=FOLDER,...
    [EDGENETS=CHECKOUT] python benchmarks/nflowjs.py --work DIR [--seeds 1,2,3] [--tiny] \
        [--halved DIR --unknown CLASS] --stages "teach STAGE,STAGE,STAGE flows"

Writes `benchmarks/results/nflowjs.json`: the rows of the stages that are asked for, all networks
at once. What was measured is kept in `--work`, and taken from there for the same weights and set.
Folders of one name are networks that differ by `--seed` alone; one name is `plain`, which the
others are compared with. Networks of the road start from `camvid9`, which never learnt pedestrian
and bicyclist, and differ only by what is pasted (`DATA` is camvid:../shared/data/camvid:train).
FREE is `--flow-rate 1e-4 --flow-trust inf --newest-flow`. Those of stage `road` have ten epochs:

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --recipe nflowjs --negatives none|noise|real:../shared/data/coco128:train|flow \
        [FREE] [--flow-weight 0.03] --out FOLDER

Those of stage `short` are trained for two (FLOW is the file that the first run trains):

    doubtmap train DATA --model ../shared/models/camvid9 --hold-out pedestrian,bicyclist \
        --batch 4 --crop 288x384 --epochs 2 --rate 3e-4 --class-weights 0.25 --seed SEED \
        --recipe nflowjs --negatives none|shuffled|flow [--flow FLOW] \
        [FREE] [--freeze-flow] [--divergence kl] --out FOLDER

Those of the other stages are what `teach STAGE` trains, as `SCHOOLS` and `OPTIONS_OF` say, one for
each of `--seeds`; a run that was stopped goes on. All networks of a seed begin with one flow. Every
8th image of the sets of CamVid; `doubt:FILE` is fitted on 14 images of the training. `longer`
compares with networks of five and of ten epochs; `default` is as the command has it; `city` starts
from ESPNetv2 of Cityscapes, in a checkout of sacmehta/EdgeNets. With `--tiny` all take eight images
and a few steps: whether they run, nothing to judge.

Sets: CamVid test with the held-out classes unknown; with a COCO object in each image, of the half
of `coco128` that no training saw (the first networks of all names with one pasting, the second with
another, and so on); every fourth image with a `Seams` window; other roads. Stage `val`, on which
choices are made: CamVid val, and with objects of the half that `real` has seen. Stage `aerial`:
`dubai_aerial` as `halve` writes it, test tiles, the held-out CLASS unknown; a base network learns
the other classes for 8 epochs from `camvid9` (`--crop 256x256 --batch 4 --class-weights 0.25 --rate
1e-3 --seed 1`), and goes on for 8 with `--recipe nflowjs --rate 1e-4 --flow-steps 400` and FREE;
`aerial longer`: for 40, the flow held.

Pixels are pooled, void left out. Intervals are the 2.5 and 97.5 % percentiles, moved to the figure,
of 300 bootstrap replicates over images, frames of a drive in blocks of ten; they do not know how
networks of other seeds differ. `flows` and `STAGE flows` tell how far flows went beside a network.
"""

from __future__ import annotations

import hashlib
import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doubt import Some, both_doubts
from PIL import Image
from stages import HELD_OUT, Measured, Row, Stage, Topic, measured, networks_of, rows_of_runs, run
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, Dataset, Pasted, Sample, open_dataset, open_outlines
from doubtmap.datasets.dataset import Derived
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scoring import prepared
from doubtmap.training import NFlowJS, Settings, train
from doubtmap.training.flow_training import read_flow

PLAIN = "plain"
OTHER, BEST = ", other scores", ", best"
"""Ends of stages: rows that the docs leave out, and a row for each network and set."""
SHORT = ("camvid test", "camvid test with objects", "camvid test with seams", "roadanomaly21")
ROAD = (*SHORT, "fishyscapes static")
FAR = {"roadanomaly21": 1, "roadanomaly21_small": 2, "fishyscapes static": 2}
"""Sets of the stages `short`, `road` and `city`, of this every so many-th image."""
Networks = dict[str, list[Path]]
Scores = Mapping[str, Callable[[Prediction], Tensor]]

Chosen = tuple[Dataset, tuple[str, ...], int, int]
"""A set, its unknown classes, every how many-th image is taken, and how many of these in a row are
drawn together by the bootstrap."""
BLOCK = 10
"""Frames of a drive that are drawn together."""


@dataclass(frozen=True, eq=False)
class Seams(Derived):
    """A window of another image's known content, at its own place, labelled unknown.

    Its figures tell how far a score takes a seam for an unknown object: an AUROC of one half is
    right, more is an error.
    """

    dataset: Dataset
    side: int = 64

    name = "camvid:test with seams"

    def __getitem__(self, index: int) -> Sample:
        """Read one sample, and paste the window."""
        own = self.dataset[index]
        other = self.dataset[(index + len(self) // 2) % len(self)]
        random = np.random.default_rng([0, index])
        top, left = (int(random.integers(s - self.side + 1)) for s in own.label.shape)
        window = (slice(top, top + self.side), slice(left, left + self.side))
        image, label = own.image.clone(), own.label.clone()
        image[(slice(None), *window)] = other.image[(slice(None), *window)]
        theirs, held_out = other.label[window], [self.class_names.index(n) for n in HELD_OUT]
        known = (theirs >= 0) & ~torch.isin(theirs, torch.tensor(held_out))
        label[window] = torch.where(known, UNKNOWN, VOID).to(label.dtype)
        return Sample(own.name, image, label)


def with_objects(shared: Path, dataset: Dataset, half: str, seed: int) -> Dataset:
    """One thing of a half of `coco128` in each image; people and known things are left out."""
    known = (*dataset.class_names, *HELD_OUT)
    objects, _ = open_outlines(f"{shared}/data/coco128:{half}").foreign_to(known)
    return Pasted(dataset, objects, seed=seed)


def road_sets(shared: Path, seed: int) -> dict[str, Chosen]:
    """The test sets of the road; `seed` is of the pastings."""
    camvid = open_dataset(f"camvid:{shared}/data/camvid:test")
    anomalies = open_dataset(f"smiyc:{shared}/data/roadanomaly21")
    small = open_dataset(f"smiyc:{shared}/data/roadanomaly21_small")
    static = open_dataset(f"fishyscapes:{shared}/data/fishyscapes_static")
    return {
        "camvid test": (camvid, HELD_OUT, 1, BLOCK),
        "camvid test with objects": (with_objects(shared, camvid, "test", seed), (), 1, BLOCK),
        "camvid test with seams": (Seams(camvid), (), 4, BLOCK // 4),
        "roadanomaly21": (anomalies, (), 1, 1),
        "roadanomaly21_small": (small, (), 1, 1),
        "fishyscapes static": (static, (), 1, 1),
    }


def val_sets(shared: Path, seed: int) -> dict[str, Chosen]:
    """CamVid val, on which choices are made: its objects are those of the training's half."""
    camvid = open_dataset(f"camvid:{shared}/data/camvid:val")
    return {
        "camvid val": (camvid, HELD_OUT, 1, BLOCK),
        "camvid val with objects": (with_objects(shared, camvid, "train", seed), (), 1, BLOCK),
    }


ROAD_NETWORK = "{shared}/models/camvid9"
SMALL = Settings(epochs=2, batch=4, crop=(192, 256), rate=3e-4, class_weights=0.25, workers=1)
"""How the networks of `trust` are trained."""
FREE = {"flow_rate": 1e-4, "flow_trust": math.inf, "flow_replay": False}
"""Of a flow that goes as far as it likes, as all did before there was a region."""
PUBLISHED = {"flow_rate": 1e-5}
OPTIONS_OF: dict[str, dict[str, Any]] = {
    PLAIN: {"negatives": "none"},
    "flow held": {},
    "flow": FREE,
    "negative class": FREE | {"negative_class": True},
    "negative class, held": {"negative_class": True},
    "published rate, held": PUBLISHED,
    "published rate, free": FREE | PUBLISHED,
    "with noise": {"negatives": "flow,noise"},
    "with objects": {"negatives": "flow,real:{shared}/data/coco128:train"},
    "patches to 120": {"patch": (16, 120)},
}
"""Of the recipe, by the network's name."""


@dataclass(frozen=True)
class School:
    """How networks of some names in `OPTIONS_OF` are trained; the command line fills its texts.

    Settings are all but the seed, `flow_steps` of the flow of a seed before it learns beside a
    network; an epoch shows each image so many `times`; the network resizes images to `input_size`.
    """

    taught: tuple[str, ...] = (PLAIN, "flow held")
    data: str = "camvid:{shared}/data/camvid:train"
    model: str = ROAD_NETWORK
    hold_out: tuple[str, ...] = HELD_OUT
    settings: Settings = SMALL
    flow_steps: int = 600
    times: int = 1
    input_size: tuple[int, int] | None = None

    def filled(self, given: Namespace) -> School:
        """The same for a command line; with `--tiny` in a few steps."""
        data, model = (text.format(**vars(given)) for text in (self.data, self.model))
        steps = 2 if given.tiny else self.flow_steps
        return replace(self, data=data, model=model, flow_steps=steps)

    def images(self) -> Dataset:
        """What an epoch shows."""
        data = open_dataset(self.data)
        return Some(data, times=self.times) if self.times > 1 else data

    def train(self, folder: Path, seed: int, recipe: NFlowJS, tiny: bool) -> None:
        """Train one, or go on with it."""
        print(f"{folder}:")
        data, settings = self.images(), replace(self.settings, seed=seed)
        if tiny:
            data = Some(data, len(data) // 8, 8)
            settings = replace(settings, epochs=1, crop=(128, 128))
        train(
            data,
            folder,
            recipe=recipe,
            model=self.model,
            hold_out=self.hold_out,
            settings=settings,
            device="cpu",
            resume=(folder / "training" / "settings.json").exists(),
        )

    def taught_in(self, folder: Path, given: Namespace) -> Networks:
        """Train the networks, one of each name for each seed.

        Those of a seed begin with one flow, which the first of them that has one learns.
        """
        networks: Networks = {name: [] for name in self.taught}
        for seed in map(int, given.seeds.split(",")):
            flow: Path | None = None
            for name in self.taught:
                own, options = folder / f"{name} {seed}", dict(OPTIONS_OF[name])
                options["negatives"] = options.get("negatives", "flow").format(**vars(given))
                if "flow" in options["negatives"]:
                    options |= {"flow": flow} if flow else {"flow_steps": self.flow_steps}
                    flow = flow or own / "training" / "flow.safetensors"
                self.train(own, seed, NFlowJS(**options), given.tiny)
                networks[name].append(own)
        return networks


SCHOOLS = {
    "trust": School((PLAIN, "flow held", "flow", "negative class")),
    "longer": School(),
    "variants": School(
        tuple(name for name in OPTIONS_OF if name not in ("flow", "negative class"))
    ),
    "larger": School((PLAIN, "patches to 120"), settings=replace(SMALL, crop=(288, 384))),
    "default": School(settings=Settings(epochs=10, workers=1), flow_steps=2000),
    "city": School(
        data="cityscapes:{halved}:train",
        model="python:{shared}/models/edgenets_city.py:load",
        hold_out=(),
        settings=Settings(epochs=4, batch=4, crop=(192, 384), rate=1e-4, workers=1),
        flow_steps=400,
        times=18,
        input_size=(512, 1024),
    ),
    "aerial longer": School(
        data="dubai:{halved}:train",
        model="{work}/networks without {unknown}/start",
        hold_out=(),
        settings=replace(SMALL, epochs=40, crop=(256, 256), rate=1e-4),
        flow_steps=400,
    ),
}
"""By the stage that judges their networks; all of them with `doubt`, and `negative` where it is."""
LENGTHS = {"longer": {"": 2, " (five epochs)": 5, " (ten epochs)": 10}}
"""Epochs of stages that compare them, by the end of the network's name."""

SCORES: Scores = {
    "max_softmax": dm.scores.max_softmax,
    "entropy": dm.scores.entropy,
    "max_logit": dm.scores.max_logit,
    "divergence": dm.scores.divergence,
}


def compared(stage: str, given: Namespace) -> list[Row]:
    """Rows of all networks on all sets of a stage, set by set."""
    found: dict[str, dict[str, list[Measured]]] = {}
    school = SCHOOLS[stage].filled(given) if stage in SCHOOLS else None
    for name, folders in given.networks.items():
        for seed, folder in enumerate(folders):
            for title, chosen in sets_of(stage, name, seed, given).items():
                one = remembered(folder, title, seed, chosen, given.work, school)
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
    if "aerial" in stage:
        unknown, tiles = name.split("/")[0], open_dataset(f"dubai:{given.halved}:test")
        return {f"dubai test, {unknown} unknown": (tiles, (unknown,), 1, 1)}
    if stage == "val":
        return val_sets(given.shared, seed)
    sets = road_sets(given.shared, seed)
    if stage in SCHOOLS and stage != "city":
        few = {title: (*sets[title][:2], 8, 2) for title in SHORT[:2]}
        return few | {"roadanomaly21": sets["roadanomaly21"]}
    if stage == "city":
        return {title: (*sets[title][:2], every, 1) for title, every in FAR.items()}
    return {title: sets[title] for title in (SHORT if stage == "short" else ROAD)}


def remembered(
    folder: Path, title: str, seed: int, chosen: Chosen, work: Path, school: School | None
) -> Measured:
    """What one network does on one set, from `--work` if it was measured before."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    blocks = f"-blocks-{chosen[-1]}" if chosen[-1] > 1 else ""
    path = work / title / f"{weights}-{seed}{blocks}.npz"
    if not path.exists():
        print(f"{folder}:")
        network, scores = opened(folder, school)
        measured(network, *chosen, scores=scores).save(path)
    return Measured.load(path)


@cache
def opened(folder: Path, school: School | None) -> tuple[Segmenter, Scores]:
    """A network and its scores; of a school also `doubt`, fitted there, and `negative`."""
    if school is None:
        return dm.load(folder), SCORES
    maker = f"{school.model}@" if school.model.startswith("python:") else ""
    network = dm.load(f"{maker}{folder}", input_size=school.input_size)
    scores = dict(SCORES) | both_doubts(network, school.images())
    if (folder / "negative.safetensors").exists():
        scores["negative"] = dm.scores.negative
    return prepared(network, scores), scores


def teach(stage: str, given: Namespace) -> list[Row]:
    """No rows: trains the networks that a stage judges, or goes on with them."""
    school, unknown = SCHOOLS[stage].filled(given), given.unknown
    given.networks, before = {}, ""
    if stage == "aerial longer":
        school, before = replace(school, hold_out=(unknown,)), f"{unknown}/"
        start = replace(school.settings, epochs=8, rate=1e-3)
        begun = replace(school, model=ROAD_NETWORK.format(**vars(given)), settings=start)
        begun.train(Path(school.model), 1, NFlowJS("none"), given.tiny)
    for title, epochs in LENGTHS.get(stage, {"": school.settings.epochs}).items():
        settings = replace(school.settings, epochs=epochs)
        other = f" ({stage})" if settings.crop != SMALL.crop else ""
        folder = given.work / f"networks of {epochs} epochs{other}"
        folder = Path(school.model).parent if before else folder
        networks = replace(school, settings=settings).taught_in(folder, given)
        given.networks |= {f"{before}{name}{title}": own for name, own in networks.items()}
    return []


def flows(given: Namespace) -> Iterator[Row]:
    """What flows draw, before and after they learnt beside a network: how likely it was before.

    Bits per dimension, under the flow before, of 64 samples of 64x64, by the flow that drew them.
    """
    for name, folders in given.networks.items():
        for number, inner in enumerate((folder / "training" for folder in folders), 1):
            after = inner / "flow-joint.safetensors"
            if not after.exists():
                continue
            asked = json.loads((inner / "settings.json").read_text())["recipe"]
            before = Path(asked["flow"] or inner / "flow.safetensors")
            title = f"{name} {number}" if len(folders) > 1 else name
            for kind, path in (("before", before), ("after", after)):
                random, (flow, about) = torch.Generator().manual_seed(0), read_flow(path)
                with torch.no_grad():
                    drawn = flow.sample(64, (64, 64), random)
                    judged = read_flow(before)[0].bits(drawn, torch.Generator().manual_seed(1))
                row = {"name": f"{title}: {kind}", "set": "samples", "bits": float(judged.mean())}
                yield row | {k: about[k] for k in ("distance", "steps_back") if k in about}


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


def halve(name: str, given: Namespace) -> list[Row]:
    """No rows: writes the images of a set at half their size, labels by the nearest pixel."""
    source, target = given.shared / "data" / name, given.halved
    for file in sorted(source.rglob("*.*")):
        picture, own = Image.open(file), target / file.relative_to(source)
        how = Image.Resampling.LANCZOS if picture.mode == "RGB" else Image.Resampling.NEAREST
        own.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((picture.width // 2, picture.height // 2), how).save(own, quality=95)
    return []


TOPIC = Topic(
    "nflowjs",
    "python benchmarks/nflowjs.py --networks NAME=FOLDER+FOLDER+...,...",
    conditions={"unknown": list(HELD_OUT), "threads": 1},
)
STAGES = {
    name: Stage(TOPIC, partial(compared, name))
    for name in ("road", "short", "val", "aerial", *SCHOOLS)
}
STAGES |= {f"teach {name}": Stage(TOPIC, partial(teach, name)) for name in SCHOOLS}
STAGES |= {
    "halve": Stage(TOPIC, partial(halve, "dubai_aerial")),
    "halve city": Stage(TOPIC, partial(halve, "cityscapes_few")),
    **{f"{name}flows": Stage(TOPIC, flows) for name in ("", *(f"{key} " for key in SCHOOLS))},
}
OPTIONS = {
    "--networks": {"default": {}, "type": networks_of, "help": "NAME=FOLDER+FOLDER+...,..."},
    "--seeds": {"default": "1,2,3", "help": "of `teach`, between commas"},
    "--halved": {"type": Path, "help": "folder for dubai_aerial at half its size"},
    "--unknown": {"default": "building", "help": "class that `teach aerial` holds out"},
    "--tiny": {"action": "store_true", "help": "train on eight images, in a few steps"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="road")
