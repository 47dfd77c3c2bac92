"""Densities: of features (DDU), and with a head of its own beside negatives (DenseHybrid).

    python benchmarks/density.py [--spectral FOLDER] [--stages table,ablation,time,regions,hybrid]
    python benchmarks/density.py --networks NAME=FOLDER+FOLDER+...,... --stages seeds

Unknown: pedestrian and bicyclist of CamVid. Stages `table` (feature density against softmax
entropy, dropout and ensembles, all methods on test), `ablation` (variants of the density on val and
test) and `time` (milliseconds, on an idle machine) write `benchmarks/results/ddu.json`: fitted on
train, chosen on val, reported on test. `FOLDER` is what this wrote:

    doubtmap train camvid:../shared/data/camvid:train --recipe spectral --coefficient 3 \
        --validation camvid:../shared/data/camvid:val --model ../shared/models/camvid9 \
        --from-scratch --hold-out pedestrian,bicyclist --epochs 20 --batch 4 --crop 288x384 \
        --rate 2e-3 --class-weights 0.25 --validate-every 2 --seed 1 --out FOLDER

Stage `regions` (also `ddu.json`) asks where in the image density is ahead: areas of the patch
measures on all patches, on those inside regions, at borders, and with those of unknown pixels, for
`camvid9` and `camvid9-overconfident`, whose softmax is sure of nearly all that it was trained on.
Densities and `doubt` are fitted on every 4th image of train, figures are of every 4th of val and
test. `density` has the exponent that leaves half of the pixels, `density, certainty 64` that of
the other stages, `density, border N` is fitted without pixels up to N away from another label,
and `--densities 'certainty=128;border=8,certainty=64' --only camvid9` tells it from its power.

Stage `seeds` (also `ddu.json`): means over networks of seeds 1, 2, 3, and `FIGURE_runs` of each, of
every 8th image. They go on from `camvid9`: `plain` with `--recipe plain`, `dropout` with
`--recipe plain --dropout-rate 0.2`, `spectral` with `--recipe spectral --coefficient 3` (`with
batch norms`: `--normalize-batch-norm`), each with `--hold-out pedestrian,bicyclist --batch 4 --crop
192x256 --epochs 2 --rate 3e-4 --class-weights 0.25 --seed SEED` (`of 6 epochs`: `--epochs 6`).
Density and `doubt:FILE` are fitted on each anew, on every 8th image of train and 14 of these. `5
passes` drop 0.2 of what the classifier sees. `--every 1`: all of train and test, no passes.

Stage `hybrid` (`hybrid.json`, `--seeds 1,2`) asks whether a head of its own pays beside negatives.
It trains `camvid9` as `benchmarks/nflowjs.py` does, with a flow that learns along, and a second
head (1x1 convolutions with 64 hidden channels on the classifier's features) that tells pasted
pixels from known ones. Two losses: `published`, cross entropy + 0.03 mean logsumexp of pasted
pixels + 0.3 binary cross entropy of the head; `with divergence`, the Jensen-Shannon divergence to
uniform with weight 1 in place of the logsumexp. On CamVid val with the two classes unknown, and
with objects pasted in: the divergence of these networks, the head alone, and the hybrid score
`log sigmoid(head) - logsumexp`. Networks stay in DIR.

Reference:
    DenseHybrid: Hybrid Anomaly Detection for Dense Open-set Recognition (Grcic, Bevandic, Segvic,
    2022), https://arxiv.org/abs/2207.02606. Departures: a small network, two epochs, negatives of a
    flow; the head has one hidden layer without batch norm.
"""

from __future__ import annotations

import hashlib
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from doubt import Some, both_doubts
from nflowjs import FREE, SMALL, School, val_sets
from stages import (
    FIGURES,
    HELD_OUT,
    Measured,
    Row,
    Stage,
    Topic,
    in_turns,
    mean_of,
    measured,
    networks_of,
    rows_of_runs,
    run,
    show,
)
from torch import Tensor

import doubtmap as dm
from doubtmap.datasets import VOID, Dataset
from doubtmap.fitting import fit_score
from doubtmap.models import MonteCarloDropout
from doubtmap.models.distilled import Head, attach, said_by
from doubtmap.prediction import Prediction, Score, Segmenter, listening_to
from doubtmap.scores import Density
from doubtmap.scores.gaussians import Gaussians
from doubtmap.scores.parsing import parse_scores
from doubtmap.training.dudes import classifier_of
from doubtmap.training.flow_training import cut, patch_corners
from doubtmap.training.negative_learning import NegativeLearning, drawn_size, paste_patches, pulled
from doubtmap.training.networks import Start
from doubtmap.training.nflowjs import NFlowJS
from doubtmap.training.optimizing import Processes
from doubtmap.training.recipe import Objective, cross_entropy

AS_PUBLISHED = "density(layer=classifier,scale=none,certainty=0)"
FITS = {
    "default": "density(certainty=64)",
    "as published": AS_PUBLISHED,
    "before activation": "density(scale=none,certainty=0)",
    "unit length": "density(certainty=0)",
    "certainty 1": "density(certainty=1)",
    "certainty 16": "density(certainty=16)",
    "certainty 256": "density(certainty=256)",
    "certainty 64, not unit length": "density(certainty=64,scale=none)",
    "certainty 64, after activation": "density(certainty=64,layer=classifier)",
}
READS = {
    "": "",
    "any": "at=any",
    "any, prior": "at=any,prior=true",
    "tied": "covariance=tied",
    "tied, any": "covariance=tied,at=any",
    "rank 16": "rank=16",
    "project 32": "project=32",
    "shrinkage 1e-4": "shrinkage=0.0001",
    "shrinkage 0.1": "shrinkage=0.1",
}
OF_MEMBERS = ("entropy", "mutual_information", "member_entropy", "member_spread")
FEW = 20
"""Replicates of a row without intervals."""
AREAS = ("p_accurate_certain_area", "p_uncertain_inaccurate_area", "pavpu_area")


def fitted(given: Namespace, model: Path, name: str, wanted: str) -> Path:
    """Fit on train, once."""
    options = hashlib.sha256(f"{wanted} {Density.FIT_OPTIONS}".encode()).hexdigest()[:8]
    file = f"{model.parent.name}-{model.name}-{name}-{options}.safetensors".replace(" ", "_")
    if not (given.work / file).exists():
        fit_score(wanted, dm.load(model), camvid(given, "train"), out=given.work / file)
    return given.work / file


def camvid(given: Namespace, split: str, every: int = 1) -> Dataset:
    """Every so many-th image of a split."""
    whole = dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")
    return Some(whole, every) if every > 1 else whole


def rows_of(
    segmenter: Segmenter,
    data: Dataset,
    scores: Mapping[str, Score],
    replicates: int = FEW,
    parts: Sequence[str] = (),
) -> Iterator[Row]:
    """A row for each score, with intervals where there are more than a few replicates."""
    asked: Row = {"unknown": list(HELD_OUT), "replicates": replicates, "progress": show}
    figures = dm.evaluate(segmenter, data, scores, **asked).figures
    for name, found in figures["scores"].items():
        row: Row = {"name": name, "miou": figures["segmentation"]["miou"]}
        row |= {area: found["wrong"][area] for area in AREAS}
        row |= {f"{part}.{area}": found["wrong"][part][area] for part in parts for area in AREAS}
        for kind in ("unknown", "wrong"):
            for figure in FIGURES:
                row[f"{kind}.{figure}"] = found[kind][figure]
                if replicates > FEW:
                    row[f"{kind}.{figure}_interval"] = found[kind][f"{figure}_interval"]
        yield row


def table(given: Namespace) -> Iterator[Row]:
    """Every method on test, or those networks whose titles `only` has."""
    given.conditions["threads of table"] = torch.get_num_threads()
    camvid9 = given.shared / "models" / "camvid9"
    singles = {"camvid9": camvid9, "member 1": Path(ensemble(given, 1))}
    singles |= {"spectral": given.spectral} if given.spectral is not None else {}
    several: dict[str, Callable[[], Segmenter]] = {
        "camvid9, 5 passes, dropout 0.2 added": lambda: MonteCarloDropout(dm.load(camvid9), 5, 0.2),
        "ensemble of 3": lambda: dm.load(ensemble(given, 3)),
        "ensemble of 5": lambda: dm.load(ensemble(given, 5)),
    }
    for title in given.only.split(";") if given.only else (*singles, *several):
        single = title in singles
        names = with_density(given, singles[title]) if single else {n: n for n in OF_MEMBERS}
        segmenter = dm.load(singles[title]) if single else several[title]()
        scores = dict(zip(names.values(), parse_scores(list(names)).values()))
        for row in rows_of(segmenter, camvid(given, "test"), scores, 300, ("per_pixel",)):
            yield row | {"set": "camvid test", "name": f"{title}: {row['name']}"}


def ensemble(given: Namespace, count: int) -> str:
    """So many networks of other seeds."""
    return ",".join(f"{given.shared}/models/camvid9-ensemble/{i + 1}" for i in range(count))


def with_density(given: Namespace, model: Path) -> dict[str, str]:
    """Scores of a single network, and what the table calls them."""
    default = fitted(given, model, "default", FITS["default"])
    published = fitted(given, model, "as published", AS_PUBLISHED)
    return {name: name for name in ("max_softmax", "entropy", "divergence")} | {
        f"density:{default}": "density",
        f"density(at=any):{default}": "density, any class",
        f"mahalanobis:{published}": "mahalanobis, as published",
        f"mahalanobis(relative=true):{published}": "relative mahalanobis",
        f"density(at=any,covariance=full):{published}": "density, as published",
    }


def ablation(given: Namespace) -> Iterator[Row]:
    """Variants of the density, one change at a time, on val (to choose) and test (to report)."""
    given.conditions["threads of ablation"] = torch.get_num_threads()
    model = given.shared / "models" / "camvid9"
    names = {"entropy": "entropy"}
    for name, wanted in FITS.items():
        file = fitted(given, model, name, wanted)
        for read, options in (READS if name == "default" else {"": "", "any": "at=any"}).items():
            key = f"density({options}):{file}" if options else f"density:{file}"
            names[key] = f"{name}{', ' if read else ''}{read}"
    scores = dict(zip(names.values(), parse_scores(list(names)).values()))
    for split in ("val", "test"):
        for row in rows_of(dm.load(model), camvid(given, split), scores):
            ranks = {key: row[key] for key in row if key.startswith(("unknown", "wrong"))}
            yield {"set": f"camvid {split}", "name": f"camvid9: {row['name']}"} | ranks


def times(given: Namespace) -> list[Row]:
    """Milliseconds for an image, all ways in turn, and the ratio to the plain network."""
    given.conditions["threads of time"] = torch.get_num_threads()
    model = given.shared / "models" / "camvid9"
    images = [sample.image[None] for sample in Some(camvid(given, "test"), 10, 20)]
    plain, density = dm.load(model), Density.load(fitted(given, model, "default", FITS["default"]))
    listening = listening_to(plain, density.layers)
    ensembles = {n: dm.load(ensemble(given, n)) for n in (3, 5)}
    sampled = MonteCarloDropout(plain, 5, 0.2)
    scored: dict[str, Callable[[Tensor], object]] = {
        "plain network": lambda x: plain(x),
        "entropy": lambda x: dm.scores.entropy(plain(x)),
        "density": lambda x: density(listening(x)),
        "density, any class": lambda x: replace(density, at="any")(listening(x)),
        "dropout, 5 passes": lambda x: dm.scores.mutual_information(sampled(x)),
        "ensemble of 3": lambda x: dm.scores.mutual_information(ensembles[3](x)),
        "ensemble of 5": lambda x: dm.scores.mutual_information(ensembles[5](x)),
    }
    where = {"set": "camvid9, 480x360, 64 features, 9 classes"}
    return [row | where for row in in_turns(scored, images, time.perf_counter)] + budget()


def budget() -> list[Row]:
    """The density beside a SegFormer-B0 at 512 x 1024: 256 features, 19 classes."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)).eval()
    plain = dm.load(network)
    image = torch.rand(1, 3, 512, 1024)
    channels = plain(image).require_features("density").shape[1]
    factor = torch.randn(19, channels, channels, dtype=torch.float64) / 16
    covariance = factor @ factor.mT + torch.eye(channels, dtype=torch.float64)
    count = torch.full((19,), 10_000)
    mean = torch.randn(19, channels, dtype=torch.float64)
    gaussians = Gaussians(count, count.double(), count.double(), mean, covariance)
    variants = {
        "density": Density(gaussians),
        "density, tied": Density(gaussians, covariance="tied"),
        "density, project 32": Density(gaussians, project=32),
        "density, project 32, any class": Density(gaussians, at="any", project=32),
        "density, rank 16, any class": Density(gaussians, at="any", rank=16),
        "density, any class": Density(gaussians, at="any"),
    }
    scored: dict[str, Callable[[Tensor], object]] = {"plain network": lambda x: plain(x)}
    for name, density in variants.items():
        scored[name] = lambda x, density=density: density(plain(x))
    where = {"set": f"SegFormer-B0, 512x1024, {channels} features, 19 classes"}
    return [row | where for row in in_turns(scored, [image] * 4, time.perf_counter)]


NETWORKS = ("camvid9", "camvid9-overconfident")
PARTS = ("inside", "border", "with_unknown")
DENSITIES = ";border=2;border=4;border=8;certainty=64"


def seeds(given: Namespace) -> Iterator[Row]:
    """Means over networks that differ by their seed alone; everything is fitted on each."""
    for title, folders in given.networks.items():
        runs = [list(fitted_anew(title, dm.load(folder), given)) for folder in folders]
        for rows in zip(*runs):
            part = f", every {given.every}th image" * (given.every > 1)
            yield mean_of(rows[0]["name"], rows) | {"set": f"camvid test{part}"}


def fitted_anew(title: str, model: Segmenter, given: Namespace) -> Iterator[Row]:
    """A row for each score of one network, and of its passes with dropout."""
    train, test = (camvid(given, split, given.every) for split in ("train", "test"))
    density = fit_score("density", model, train)
    scores: dict[str, Score] = {
        "max_softmax": dm.scores.max_softmax,
        "entropy": dm.scores.entropy,
        "density": density,
        "density, any class": replace(density, at="any"),
        **both_doubts(model, train),
    }
    for row in rows_of(model, test, scores):
        yield row | {"name": f"{title}: {row['name']}"}
    if title.startswith(("plain", "dropout")) and given.every > 1:
        for row in rows_of(MonteCarloDropout(model, 5, 0.2), test, parse_scores(OF_MEMBERS)):
            yield row | {"name": f"{title}, 5 passes: {row['name']}"}


def regions(given: Namespace) -> Iterator[Row]:
    """Patch measures by region, of scores that need no fit, of density, and of doubt."""
    given.conditions["images of regions"] = "every 4th of train, val and test"
    for network in given.only.split(";") if given.only else NETWORKS:
        model, train = dm.load(given.shared / "models" / network), camvid(given, "train", 4)
        scores: dict[str, Score] = {
            "max_softmax": dm.scores.max_softmax,
            "entropy": dm.scores.entropy,
            "doubt": fit_score("doubt", model, train),
        }
        about: dict[str, Row] = {}
        for options in given.densities.split(";"):
            fit = fit_score(f"density({options})", model, train)
            assert isinstance(fit, Density)
            effective = float(fit.gaussians.effective.sum() / fit.gaussians.pixels.sum())
            name = f"density, {options.replace('=', ' ')}".removesuffix(", ")
            for full, at in ((name, "predicted"), (f"{name}, any class", "any")):
                about[full] = {"certainty": fit.certainty, "effective": effective}
                scores[full] = replace(fit, at=at)
        for split in ("val", "test"):
            for row in rows_of(model, camvid(given, split, 4), scores, parts=PARTS):
                kept = {key: row[key] for key in row if "area" in key or key == "unknown.auprc"}
                place = {"set": f"{network}, camvid {split}", "name": row["name"]}
                yield place | kept | about.get(row["name"], {})


HIDDEN, HEAD_RATE = 64, 0.006
LOSSES = {"published": (0.03, 0.0, 0.3), "with divergence": (0.0, 1.0, 0.3)}
"""Weights of logsumexp, divergence and the head's cross entropy."""


class HybridLearning(NegativeLearning):
    """`NegativeLearning` with a head that tells pasted pixels from known ones."""

    weights: tuple[float, float, float]

    @classmethod
    def on(cls, objective: NegativeLearning, start: Start, loss: str) -> HybridLearning:
        """The same objective, with a head."""
        classifier, channels, _ = classifier_of(start)
        head = Head(classifier, channels, HIDDEN, {"target": "pasted"})
        attach(objective.network, head)
        objective.__class__ = cls
        assert isinstance(objective, cls)
        objective.weights, objective.mine = LOSSES[loss], f"network.{head.layer}."
        return objective

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss; those of weight 0 are left out."""
        size = drawn_size(self.sides)
        corners, clean = patch_corners(labels, size)
        content = cut(images, corners, size).detach()
        patches, shapes = self.source(content, clean)
        mixed, pasted = paste_patches(images, pulled(patches, self.pull), shapes, corners)
        with said_by(self.network) as said:
            logits = self.logits(mixed)
        size = (labels.shape[-2], labels.shape[-1])
        logits, head = (F.interpolate(maps, size, mode="bilinear") for maps in (logits, said[-1]))
        head = head[:, 0]
        known = labels.masked_fill(pasted, VOID)
        counts = pasted | (known >= 0)
        terms = {
            "cross_entropy": cross_entropy(logits, known, self.class_weights, self.processes),
            "logsumexp": logits.logsumexp(1)[pasted].mean(),
            "divergence": self._divergence(logits, pasted),
            "head": F.binary_cross_entropy_with_logits(head[counts], pasted[counts].float()),
        }
        for name, weight in zip(("logsumexp", "divergence", "head"), self.weights):
            terms[name] = weight * terms[name]
        assert self.flow is not None
        return terms | {"bits": self._bits(self.flow, content, clean)}

    def rate_of(self, name: str, rate: float) -> float:
        """The head has a rate of its own, too."""
        return HEAD_RATE if name.startswith(self.mine) else super().rate_of(name, rate)


@dataclass(frozen=True)
class Hybrid(NFlowJS):
    """The recipe."""

    loss: str = "published"

    def __call__(
        self, start: Start, class_weights: Tensor | None, processes: Processes
    ) -> Objective:
        """What is trained."""
        objective = super().__call__(start, class_weights, processes)
        assert isinstance(objective, NegativeLearning)
        return HybridLearning.on(objective, start, self.loss)


def hybrid_score(prediction: Prediction) -> Tensor:
    """`log sigmoid(head) - logsumexp`: log of how likely pasted, minus the log density of known."""
    pasted = dm.scores.distilled(prediction).clamp(min=torch.finfo(torch.float32).tiny)
    return pasted.log() + dm.scores.energy(prediction)


def hybrid(given: Namespace) -> Iterator[Row]:
    """Both losses, means over networks that differ by their seed."""
    given.conditions["seeds"] = given.seeds
    scores = {
        "divergence": dm.scores.divergence,
        "head": dm.scores.distilled,
        "hybrid": hybrid_score,
    }
    flow, start = given.flow, f"{given.shared}/models/camvid9"
    data, given.tiny = f"camvid:{given.shared}/data/camvid:train", False
    school = School(given, data, start, HELD_OUT, replace(SMALL, crop=(288, 384)))
    for loss in LOSSES:
        found: dict[str, list[Measured]] = {}
        for number, seed in enumerate(map(int, given.seeds.split(","))):
            folder = given.work / f"{loss.replace(' ', '-')}-{seed}"
            if not (folder / "model.safetensors").exists():
                school.train(folder, seed, Hybrid(loss=loss, flow=flow, **FREE))
            flow = flow or folder / "training" / "flow.safetensors"
            for title, chosen in val_sets(given.shared, number).items():
                one = measured(dm.load(folder), *chosen, scores=scores)
                found.setdefault(title, []).append(one)
        for title, runs in found.items():
            yield from ({"set": title} | row for row in rows_of_runs(loss, runs, ()))


DDU = Topic(
    "ddu",
    "python benchmarks/density.py --stages table,ablation,time,regions --spectral FOLDER",
    ("stage", "set", "name"),
    {"unknown": list(HELD_OUT)},
)
HYBRID = Topic(
    "hybrid", "python benchmarks/density.py --stages hybrid", (), {"unknown": list(HELD_OUT)}
)
STAGES = {
    "table": Stage(DDU, table, None),
    "ablation": Stage(DDU, ablation, None),
    "time": Stage(DDU, times, None),
    "regions": Stage(DDU, regions),
    "seeds": Stage(DDU, seeds),
    "hybrid": Stage(HYBRID, hybrid),
}
OPTIONS = {
    "--spectral": {"type": Path, "help": "of `table`: a folder, see above"},
    "--only": {"default": "", "help": "of `table` and `regions`: networks, between ;"},
    "--densities": {"default": DENSITIES, "help": "of `regions`: options of a fit, between ;"},
    "--networks": {"default": {}, "type": networks_of, "help": "of `seeds`"},
    "--every": {"default": 8, "type": int, "help": "of `seeds`: of train and of test"},
    "--seeds": {"default": "1,2", "help": "of `hybrid`"},
    "--flow": {"type": Path, "help": "of `hybrid`: a trained flow; default: the first run's"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default="table,ablation,time")
