"""Real road scenes: every score, unknown objects as things, and objects pasted into CamVid.

    python benchmarks/roads.py [--shared ../shared] [--stages camvid,...,objects,probability]

Stages named by a set (`benchmarks/results/main_job.json`): every score by `evaluate`. `lengths`
(the same file): the length of the features held to what is usual in the predicted class, on every
12th image of CamVid train, beside the norms that it is made of; every 4th image of CamVid, every
third of Fishyscapes Static. `before` (the same file and images, but Fishyscapes): norms of the
gradient in the convolution before the last layer, by a backward pass, beside those in the last.

`objects` (`objects.json`). Thresholds: `chosen` is the best pixel F1 on CamVid val, which is what a
user can have; `oracle` the best pixel F1 on the very images that are measured, as the published
figures have it. Labelled components of fewer pixels than the set's size are void; an object counts
as right, and a labelled component as found, from a PPV or sIoU of .25 on. `probability`: P(unknown)
of objects of entropy, held to left-out images and to other sets; objects from 50 pixels on, unknown
from a quarter of their labelled pixels on.

`pasting` (`pasting.json`, `--model MODEL --name NAME` for another network). Objects of the half
`test` of coco128 that the network has no class for, one in each of the 233 test images, in three
passes with other draws (seeds 0 to 2). Pedestrians and bicyclists of CamVid, which the network was
not taught, are void, as are the data set's void pixels. Figures are means over the passes,
`NAME_deviation` their deviation with divisor 2; the interval of the AUPRC is that of the first
pass, from the bootstrap over images, moved to the mean. `open_miou`, of the first pass, refuses
pixels above the threshold that finds 95 % of the pixels of objects of the half `train` in the 101
images of val; `found` and `false_alarms` are what it finds and refuses in test.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from doubt import Some
from stages import HELD_OUT, Row, Stage, Topic, measured, rows_of_runs, run, show
from torch import Tensor, nn

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, ComponentSizes, Dataset, pasted_passes
from doubtmap.decisions.threshold import choose_threshold
from doubtmap.engine import Pairs
from doubtmap.engine.run import Run
from doubtmap.engine.splitting import folds_of
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.open_set import refused_figures, take_thresholds
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.kernels import log_feature_norm, log_weight_norm
from doubtmap.metrics import Components, Ranking
from doubtmap.metrics.accumulator import Array, State
from doubtmap.metrics.bootstrap import BootstrapSums, Weights, interval
from doubtmap.metrics.events import event_reliability
from doubtmap.models import NetworkSegmenter
from doubtmap.objects import ObjectProbability, ObjectRule, find_objects
from doubtmap.objects.find import class_indices
from doubtmap.objects.fitting import FOLDS, LabelledObjects, cross_fitted, labelled_objects
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores import STATELESS
from doubtmap.scores.gradient_norm import LARGEST_LOG
from doubtmap.scores.parsing import parse_scores

ALL_SCORES = [name for name in STATELESS if name != "gradient"] + [
    f"gradient(p={p},label={label},variant={variant})"
    for variant in ("exact", "published")
    for label in ("predicted", "uniform")
    for p in (0.1, 0.3, 0.5, 1, 2)
]
SETS: dict[str, Row] = {
    "camvid": {"data": "camvid:{}/camvid:test", "unknown": HELD_OUT, "sizes": (50, 50)},
    "camvid val": {"data": "camvid:{}/camvid:val", "unknown": HELD_OUT},
    "roadanomaly21": {"data": "smiyc:{}/roadanomaly21", "sizes": (500, 100)},
    "roadanomaly21 at 360x640": {"data": "smiyc:{}/roadanomaly21", "input_size": (360, 640)},
    "fishyscapes static": {"data": "fishyscapes:{}/fishyscapes_static"},
    "fishyscapes static at 360x720": {
        "data": "fishyscapes:{}/fishyscapes_static",
        "input_size": (360, 720),
    },
}
"""`sizes` of predicted and labelled components, where objects are measured, too."""
OBJECT_SCORES = parse_scores("entropy,divergence,gradient(p=0.3),gradient(p=0.5,label=uniform)")
GROUND = ("road", "pavement")
GROUND_SHARES = {"on the ground": 0.2, "amid the ground": 0.5}
PASTING_SCORES = "max_softmax,entropy,max_logit,divergence"
PASSES = 3


def camvid9(given: Namespace, input_size: tuple[int, int] | None = None) -> Segmenter:
    """The network."""
    return dm.load(given.shared / "models" / "camvid9", input_size=input_size)


def opened(name: str, given: Namespace) -> Dataset:
    """A set."""
    return dm.open_dataset(SETS[name]["data"].format(given.shared / "data"))


def main_job(name: str, given: Namespace) -> list[Row]:
    """A row for each score on one set, and one for the network."""
    settings, dataset = SETS[name], opened(name, given)
    segmenter = camvid9(given, settings.get("input_size"))
    unknown = list(settings.get("unknown", ()))
    figures = dm.evaluate(segmenter, dataset, ALL_SCORES, unknown=unknown, progress=show).figures
    rows = [{"name": n, "set": name} | flat(found) for n, found in figures["scores"].items()]
    network = {"name": "network", "set": name}
    rows.append(network | flat(figures, ("segmentation", "calibration")))
    conditions = {key: figures[key] for key in ("data", "model", "seconds", "notes")}
    conditions["model"]["source"] = "models/camvid9"
    bounds = [value for row in rows for key, value in row.items() if key.endswith("_bounds")]
    conditions["widest_bounds"] = max(high - low for low, high in filter(None, bounds))
    conditions["differences"] = [d for d in figures["differences"] if "entropy" in d["scores"]]
    given.conditions[name] = conditions
    return rows


def flat(figures: Row, groups: tuple[str, ...] = ("unknown", "wrong")) -> Row:
    """`GROUP.FIGURE` of each, but the IoU of single classes."""
    found = ((group, figure) for group in groups for figure in figures[group])
    return {f"{group}.{name}": figures[group][name] for group, name in found if name != "iou"}


EVERY = {"camvid": 4, "camvid val": 4, "roadanomaly21": 1, "fishyscapes static": 3}
"""Which images `lengths` and `before` see of a set."""
ORDER = 0.3  # of the norms of `lengths`


def lengths(given: Namespace) -> Iterator[Row]:
    """Rows of norms with the features, without, and with their length against its class's own."""
    segmenter = camvid9(given)
    train = Some(dm.open_dataset(f"camvid:{given.shared}/data/camvid:train"), 12)
    scores: dict[str, Score] = {"entropy": dm.scores.entropy, "doubt": dm.scores.doubt}
    scores |= parse_scores(f"gradient(p={ORDER}),gradient(of=bias,p={ORDER})")
    scores["length of its class"] = of_usual_length(*usual_lengths(segmenter, train))
    for name, every in EVERY.items():
        unknown = tuple(SETS[name].get("unknown", ()))
        found = measured(segmenter, opened(name, given), unknown, every, scores=scores)
        for row in rows_of_runs("camvid9", [found], ()):
            yield {"set": f"{name}, lengths"} | row


def usual_lengths(segmenter: Segmenter, data: Dataset) -> tuple[Tensor, Tensor]:
    """`(C,)` mean and deviation of the logarithm of the features' norm, by predicted class."""
    sums = torch.zeros(3, len(segmenter.class_names), dtype=torch.float64)
    for prediction, _ in Pairs(segmenter, data, HELD_OUT):
        length, classes = length_and_class(prediction)
        for place, part in enumerate((torch.ones_like(length), length, length**2)):
            sums[place].index_add_(0, classes.flatten(), part.flatten().double())
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean**2).sqrt()


def length_and_class(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """`(B, h, w)` of both, on the native grid."""
    assert prediction.features is not None and prediction.window.single
    return log_feature_norm(prediction.features, ORDER), prediction.native_logits.argmax(1)


def of_usual_length(mean: Tensor, deviation: Tensor) -> Score:
    """`|| S - y ||_p log(1 + |z|)`: a long feature and a short one are as strange."""

    def score(prediction: Prediction) -> Tensor:
        length, classes = length_and_class(prediction)
        strange = ((length - mean[classes]) / deviation[classes]).abs().log1p().float()
        norm = log_weight_norm(prediction.native_logits, ORDER, "predicted", "exact").exp()
        return prediction.to_size((norm * strange)[:, None])[:, 0]

    return score


HEAD = tuple(f"decode_head.fpn_bottleneck.{n}" for n in ("conv", "batch_norm", "activation"))
"""The layer of `camvid9` before the last, and what lies between them."""
NORMS = [(label, p) for label in ("predicted", "uniform") for p in (0.1, 0.3, 0.5, 1.0, 2.0)]


@dataclass(frozen=True)
class LayerBefore:
    """A network whose predictions carry norms of gradients in the convolution before the last.

    What comes after it sees one pixel, so one backward pass of the sum of all pixels' losses has
    the gradient of each at its output. The norm in the weights is the norm of that, times the norm
    of the patch that the convolution saw.
    """

    network: NetworkSegmenter
    head: tuple[str, ...] = (*HEAD, "decode_head.classifier")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, images: Tensor) -> Prediction:
        """Predict, twice: `layers["norms"]` is `(B, N, h, w)`."""
        module: nn.Module = self.network.source.backend.module  # type: ignore[attr-defined]
        first, *rest = map(module.get_submodule, self.head)
        (call,) = self.network.calls(images, self.head[:1])
        said = call.output.requires_grad_()
        with torch.enable_grad():
            logarithms = nn.Sequential(*rest)(said).log_softmax(1)
        chosen = F.one_hot(logarithms.argmax(1), logarithms.shape[1]).movedim(-1, 1)
        targets = {"predicted": chosen, "uniform": torch.full(chosen.shape, 1 / chosen.shape[1])}
        maps = []
        for label, p in NORMS:
            loss = -(targets[label] * logarithms).sum()
            (slope,) = torch.autograd.grad(loss, said, retain_graph=True)
            logarithm = log_feature_norm(slope, p) + log_norm_of_patches(call.input, first, p)
            norm = logarithm.clamp_max(LARGEST_LOG).exp()  # beyond goes on as that of gradient does
            maps.append(norm * (1 + (logarithm - LARGEST_LOG).clamp_min(0)))
        return replace(self.network(images), layers={"norms": torch.stack(maps, 1)})


def log_norm_of_patches(seen: Tensor, layer: Any, p: float) -> Tensor:
    """`(B, h, w)`, logarithm of the p-norm of what a convolution sees for each of its outputs."""
    powers, ones = (p * log_feature_norm(seen, p))[:, None].exp(), torch.ones(layer.kernel_size)
    how = (None, layer.stride, layer.padding, layer.dilation)
    return F.conv2d(powers, ones[None, None].to(powers), *how)[:, 0].log() / p


def norm_before(place: int) -> Score:
    """One of `NORMS`, that of the uniform label negated, as `gradient` does."""
    sign = -1 if NORMS[place][0] == "uniform" else 1
    return lambda prediction: sign * prediction.to_size(prediction.layers["norms"])[:, place]


def before(given: Namespace) -> Iterator[Row]:
    """Norms in the layer before the last, and in the last."""
    scores = parse_scores("entropy,max_softmax")
    for place, (label, p) in enumerate(NORMS):
        scores |= parse_scores(f"gradient(p={p:g},label={label})")
        scores[f"layer before (p={p:g},label={label})"] = norm_before(place)
    for name in ("camvid", "camvid val", "roadanomaly21"):
        unknown = list(SETS[name].get("unknown", ()))
        data = Some(opened(name, given), EVERY[name])
        figures = dm.evaluate(LayerBefore(camvid9(given)), data, scores, unknown=unknown).figures
        for score, found in figures["scores"].items():
            yield {"set": f"{name}, layers", "name": score} | flat(found)


FIGURES: dict[str, Callable[[State], float]] = {
    "objects_per_image": lambda s: ratio(s["objects"][0], s["images"][0]),
    "recall": lambda s: ratio(s["found"][0], s["labelled"][0]),
    "precision": lambda s: 1 - ratio(s["spurious"][0], s["predicted"][0]),
    "siou": lambda s: components(s).siou,
    "ppv": lambda s: components(s).ppv,
    "f1": lambda s: components(s).f1,
}
"""Of things."""


def ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def components(state: State) -> Components:
    return Components(**{name: state[name] for name in Components().state()})


@dataclass
class Measured:
    """The sums of one way to find objects, over images, and their replicates."""

    rule: ObjectRule
    sums: State = field(default_factory=dict)
    replicates: BootstrapSums = field(default_factory=lambda: BootstrapSums(300))

    def take(
        self, score: Array, classes: Array, label: Array, labelled: int, weights: Array
    ) -> None:
        """Take an image."""
        things = find_objects(score, classes, self.rule)
        flagged = torch.zeros(label.shape, dtype=torch.bool).numpy()
        for thing in things:
            flagged |= thing.on_image(label.shape)
        frame = Components()
        smallest = self.rule.smallest, labelled
        frame.update(flagged, label == UNKNOWN, label != VOID, *smallest)
        state = frame.state() | {
            "objects": torch.tensor([float(len(things))]).numpy(),
            "images": torch.ones(1).numpy(),
        }
        self.sums = {name: self.sums.get(name, 0) + array for name, array in state.items()}
        self.replicates.add(state, weights)

    def row(self) -> Row:
        """Figures and intervals."""
        row: Row = {}
        for name, figure in FIGURES.items():
            value = figure(self.sums)
            row[name] = None if math.isnan(value) else value
            row[f"{name}_interval"] = interval(row[name], self.replicates.figures(figure), (0, 1e9))
        return row


def frames(
    segmenter: Segmenter, data: Dataset, unknown: tuple[str, ...], stage: str
) -> Iterator[tuple[dict[str, Array], Array, Array]]:
    """Score maps, classes and labels of each image."""
    for prediction, label in Pairs(segmenter, data, unknown, stage=stage, progress=show):
        maps = {name: score(prediction)[0].numpy() for name, score in OBJECT_SCORES.items()}
        yield maps, prediction.classes[0].numpy(), label[0].numpy()


def oracles(segmenter: Segmenter, data: Dataset, unknown: tuple[str, ...]) -> dict[str, float]:
    """The threshold of the best pixel F1 on these images, by score."""
    rankings = {name: Ranking(1 << 19) for name in OBJECT_SCORES}
    for maps, _, label in frames(segmenter, data, unknown, "oracle"):
        for name, values in maps.items():
            rankings[name].update(values, label == UNKNOWN, label != VOID)
    return {name: ranking.curve.best_f1()[1] for name, ranking in rankings.items()}


def objects(given: Namespace) -> Iterator[Row]:
    """All ways to find objects, on the sets that have sizes."""
    segmenter, val = camvid9(given), opened("camvid val", given)
    asked = partial(choose_threshold, segmenter, val, of="unknown", by="f1", unknown=HELD_OUT)
    chosen = {name: asked(name, progress=show).threshold for name in OBJECT_SCORES}
    for name in SETS:
        if "sizes" in SETS[name]:
            yield from objects_on(name, segmenter, chosen, given)


def objects_on(
    name: str, segmenter: Segmenter, chosen: dict[str, float], given: Namespace
) -> list[Row]:
    """A row for each way, on one set."""
    data, sizes = opened(name, given), ComponentSizes(*SETS[name]["sizes"])
    unknown = SETS[name].get("unknown", ())
    best = oracles(segmenter, data, unknown)
    ground = class_indices(GROUND, segmenter.class_names)
    ways: dict[tuple[str, str], Measured] = {}
    for score in OBJECT_SCORES:
        limit, small = chosen[score], sizes.predicted
        ways[score, "chosen"] = Measured(ObjectRule(limit, small))
        for word, share in GROUND_SHARES.items():
            rule = ObjectRule(limit, small, on=ground, on_share=share)
            ways[score, f"chosen, {word}"] = Measured(rule)
        ways[score, "oracle"] = Measured(ObjectRule(best[score], small))
    weights = Weights()
    for index, frame in enumerate(frames(segmenter, data, unknown, name)):
        maps, classes, label = frame
        for (score, _), way in ways.items():
            way.take(maps[score], classes, label, sizes.labelled, weights(index))
    return [
        {"name": f"{score}, {way}", "set": name, "stage": "objects", "threshold": m.rule.threshold}
        | m.row()
        for (score, way), m in ways.items()
    ]


def probability(given: Namespace) -> Iterator[Row]:
    """P(unknown) of objects of entropy: on left-out images of each set, and carried to others."""
    segmenter, (score,) = camvid9(given), parse_scores("entropy").items()
    asked = {"of": "unknown", "by": "f1", "unknown": HELD_OUT}
    limit = choose_threshold(segmenter, opened("camvid val", given), "entropy", **asked).threshold
    rule, found = ObjectRule(limit), {}
    for name in ("camvid val", "camvid", "roadanomaly21", "roadanomaly21 small"):
        small = f"smiyc:{given.shared}/data/roadanomaly21_small"
        data = opened(name, given) if name in SETS else dm.open_dataset(small)
        unknown = SETS.get(name, {}).get("unknown", ())
        things = labelled_objects(segmenter, data, score, rule, unknown=unknown, progress=show)
        names = [data.sample_name(index) for index in range(len(data))]
        said = cross_fitted(things, folds_of(names, FOLDS)[0], "entropy", rule)
        yield {"name": f"{name}: left-out images", "set": "all"} | held_to(things, said)
        found[name] = things
    pairs = [("camvid val", "camvid"), ("camvid val", "roadanomaly21")]
    for source, name in [*pairs, ("roadanomaly21 small", "roadanomaly21")]:
        own, things = found[source], found[name]
        model = ObjectProbability.fit(own.features, own.unknown, "entropy", rule)
        said = model.of_features(things.features)
        yield {"name": f"{name}: fitted to {source}", "set": "all"} | held_to(things, said)


def held_to(things: LabelledObjects, said: Array) -> Row:
    """What probabilities of objects came to, without the diagram."""
    judged = np.isfinite(said)
    told = event_reliability(said[judged], things.unknown[judged], things.image[judged]).told()
    return {name: value for name, value in told.items() if name != "diagram"}


def pasting(given: Namespace) -> list[Row]:
    """A row for each score of one network."""
    segmenter = dm.load(given.model) if given.model else camvid9(given)
    sets = {
        split: pasted_passes(
            dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}"),
            f"{given.shared}/data/coco128:{half}",
            segmenter.class_names,
            passes=PASSES,
        )
        for split, half in (("val", "train"), ("test", "test"))
    }
    passes, notes = sets["test"]
    options = Options(notes=notes, examples=0)
    figures = evaluate_passes(segmenter, passes, PASTING_SCORES, options=options).figures
    scores = parse_scores(PASTING_SCORES)
    asked, others = Run(segmenter, passes[0], scores, (), None), sets["val"][0][0]
    refusing = refused_figures(asked, others, take_thresholds(asked, others))
    given.conditions |= {"pixels": figures["data"]["pixels"], "images": len(passes[0])}
    given.conditions |= {"objects": notes, "torch": torch.__version__}
    return [pasted_row(given.name, score, figures, refusing) for score in scores]


def pasted_row(network: str, score: str, figures: Row, refusing: Row) -> Row:
    """Means over the passes, and what refusing costs in the first."""
    passes, first = figures["passes"], figures["scores"][score]["unknown"]
    title = score if network == "camvid9" else f"{network} {score}"
    row: Row = {"name": title, "set": passes["data"][0].split("@")[0]}
    for key in ("auprc", "fpr95", "auroc"):
        found = passes["scores"][score]["unknown"][key]
        row[f"unknown.{key}"] = found["mean"]
        row[f"unknown.{key}_deviation"] = found["deviation"]
    shift = row["unknown.auprc"] - first["auprc"]
    row["unknown.auprc_interval"] = [bound + shift for bound in first["auprc_interval"]]
    refused = refusing["scores"][score]
    row["miou"], row["open_miou"] = refusing["closed_miou"], refused["miou"]
    row["open_miou_interval"] = refused["miou_interval"]
    return row | {key: refused[key] for key in ("found", "false_alarms")}


COMMAND = "python benchmarks/roads.py"
MAIN_JOB = Topic("main_job", f"{COMMAND} --stages '{','.join(SETS)},lengths,before'", ("set",))
OBJECTS = Topic(
    "objects",
    f"{COMMAND} --stages objects,probability",
    conditions={
        "model": "models/camvid9",
        "chosen on": "camvid:val",
        "sizes": {name: own["sizes"] for name, own in SETS.items() if "sizes" in own},
        "right from": 0.25,
        "ground": {"classes": GROUND, "share of the ring": GROUND_SHARES},
        "replicates": 300,
    },
)
PASTING = Topic("pasting", f"{COMMAND} --stages pasting", ("name",), {"passes": PASSES})
STAGES = {name: Stage(MAIN_JOB, partial(main_job, name), None) for name in SETS} | {
    "lengths": Stage(MAIN_JOB, lengths),
    "before": Stage(MAIN_JOB, before),
    "objects": Stage(OBJECTS, objects),
    "probability": Stage(OBJECTS, probability),
    "pasting": Stage(PASTING, pasting),
}
OPTIONS = {
    "--model": {"help": "of `pasting`: another network"},
    "--name": {"default": "camvid9", "help": "of `pasting`: what to call it"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
