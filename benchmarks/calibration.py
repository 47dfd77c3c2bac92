"""Every calibration method on CamVid, in-domain and shifted: `benchmarks/results/calibration.json`.

    python benchmarks/calibration.py [--shared ../shared] [--work FOLDER]
    python benchmarks/calibration.py --stages selector,ensemble
    python benchmarks/calibration.py --stages beside,same --peers PEERS
    EDGENETS=CHECKOUT python benchmarks/calibration.py --stages cityscapes,voc,voc-1,voc-2,voc-3
    EDGENETS=CHECKOUT python benchmarks/calibration.py --stages coco-1,coco-2,coco-3

A stage for each network, which runs once for each image. `selector` tells selective scaling which
pixels are wrong, less and less of it true; `ensemble` holds the mean of five networks beside one of
them. `beside` fits our methods, fiducio's and netcal's to the same pixels and holds them to another
drive, `same` to the same drives; PEERS is where these were installed to with `pip install --target
PEERS --no-deps fiducio netcal`. The last have many classes, as the paper had: ESPNetv2 (EDGENETS
names a checkout of sacmehta/EdgeNets) with the 19 of Cityscapes on the five labelled images there,
and with the 21 of VOC on the photographs of `coco128`; then with the 81 of COCO, or those of VOC, a
last layer taught on half of the photographs and measured on the others, three halves. Every image
is measured by what was fitted on others. One thread.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from stages import Row, Stage, Topic, apart, best_of, run
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import doubtmap as dm
from doubtmap.calibration import Calibrator, Identity, Selective, Temperature, parse_method
from doubtmap.calibration.calibrate import CANDIDATES, choose
from doubtmap.calibration.calibrator import recalibrated
from doubtmap.calibration.comparison import Comparison, compare
from doubtmap.calibration.pixels import draw_pixels
from doubtmap.calibration.selective import HOTTEST, log_odds_of_wrong
from doubtmap.calibration.temperature import best_inverse
from doubtmap.datasets import CORRUPTIONS, Corrupted, Outlines, Sample, open_outlines
from doubtmap.datasets.class_tables import CITYSCAPES_TRAIN_IDS, COCO, VOC
from doubtmap.datasets.reading import read_image
from doubtmap.engine import Pairs
from doubtmap.engine.run import Remembered
from doubtmap.engine.splitting import split_images
from doubtmap.metrics import Confusion, Reliability
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from doubtmap.prediction import Prediction

Pair = tuple[Prediction, Tensor]
NETWORKS = ("camvid9-overconfident", "camvid9")
METHODS = (
    *("identity", "temperature", "temperature_mix", "histogram", "isotonic", "vector", "dirichlet"),
    *("meta", "local", "local(inputs=all)"),
    *("selective(temperature=2)", "selective(temperature=10)", "selective(temperature=1e10)"),
    *("selective(temperature=2,balance=4)", "selective(temperature=2,inputs=all)"),
    *("selective", "selective(temperature=accuracy)"),
    *(f"selective(others={x})" for x in ("temperature", "vector", "dirichlet", "meta", "local")),
    *("selective_soft", "selective_confidence", "selective_confidence(inputs=all)"),
)
HERE_ONLY = {"vector", "dirichlet", "local(inputs=all)", "selective(temperature=accuracy)"}
HERE_ONLY |= {"selective(temperature=10)", "selective(temperature=1e10)"}
HERE_ONLY |= {f"selective(others={x})" for x in ("vector", "dirichlet", "meta", "local")}
"""Methods that are not fitted on one drive and measured on another."""
SHIFTED = (
    *("identity", "temperature", "histogram", "selective(temperature=2)"),
    *("selective(temperature=2,inputs=all)", "selective", "selective(others=temperature)"),
    *("selective_soft", "selective_confidence"),
)
"""Methods that are also measured on the corruptions."""
RUN = 10
"""Consecutive frames that stay on one side of a split."""
CORRUPTED_IMAGES = 12


@dataclass(frozen=True)
class Some:
    """Images of passes that follow one another, by their places in them."""

    passes: Sequence[Iterable[Pair]]
    places: Sequence[int]

    def __iter__(self) -> Iterator[Pair]:
        chosen = set(self.places)
        return (pair for at, pair in enumerate(chain(*self.passes)) if at in chosen)


class CamVid:
    """What a network gives of CamVid val and test, as often as asked for one run of it.

    Args:
        given: options.
        model: as `dm.load` takes it.
        every: so many images go on to the next; features are kept where all are asked for.
    """

    def __init__(self, given: Namespace, model: str, every: int = 1) -> None:
        self.segmenter = dm.load(model)
        data = [dm.open_dataset(f"camvid:{given.shared}/data/camvid:{k}") for k in ("val", "test")]
        self.val, self.test = data
        chosen = [range(0, len(some), every) for some in data]
        self.names = [some.sample_name(i) for some, own in zip(data, chosen) for i in own]
        passes = [Pairs(self.segmenter, some, indices=own) for some, own in zip(data, chosen)]
        whole = Some(passes, range(len(self.names)))
        self.some = partial(Some, [Remembered(whole, features=every == 1)])
        self.drives = [self.places(drive) for drive in ("0016E5", "Seq05VD", "0001TP")]

    def places(self, drive: str) -> list[int]:
        """Of a drive's images."""
        return [at for at, name in enumerate(self.names) if name.startswith(drive)]

    def protocols(self) -> dict[str, tuple[Some, dict[str, Some]]]:
        """What is fitted on, and what is tested on, by name."""
        val, day, dusk = self.drives
        even, odd = (
            [at for drive in (val, day) for k, at in enumerate(drive) if k // RUN % 2 == side]
            for side in (0, 1)
        )
        two = {"same drives": self.some(odd), "dusk": self.some(dusk)}
        one = {"another drive": self.some(day), "dusk": self.some(dusk)}
        return {"two day drives": (self.some(even), two), "one day drive": (self.some(val), one)}


def fitted_to(pairs: Iterable[Pair], methods: Iterable[str]) -> dict[str, Calibrator]:
    """Fitted methods by name."""
    return {name: parse_method(name)(pairs) for name in methods}


def rows_of(found: Comparison, about: Row) -> Iterator[Row]:
    """A row for each method of a comparison that holds `identity` and `temperature`."""
    for name in found.names:
        row = about | {"name": name, "images": len(found.sums)} | found.figures(name)
        row["ece_over_raw"] = row["ece"] / found.ece("identity")
        for figure in ("ece", "ece_per_image_10_bins"):
            difference, bounds = found.difference(name, "temperature", figure)
            row[f"{figure}_minus_temperature"] = difference
            row[f"{figure}_minus_temperature_interval"] = bounds
        yield short(row)


def settings_of(calibrator: Calibrator) -> dict[str, Any]:
    """The few numbers of a calibrator that a reader wants to see."""
    named = ("temperature", "weights", "threshold", "offset", "slope")
    found = {name: getattr(calibrator, name, None) for name in named}
    return {k: v for k, v in found.items() if isinstance(v, (float, tuple))}


def selector_quality(pairs: Iterable[Pair], calibrator: Any) -> dict[str, float]:
    """Flagged pixels, wrong ones among them, flagged ones among the wrong, all told rightly."""
    found = Confusion.empty(2)
    for prediction, label in pairs:
        flag = log_odds_of_wrong(calibrator.selector, prediction)[:, 0] > 0
        found.update(flag.long(), (prediction.classes != label).long(), label >= 0)
    (spared, alarms), (missed, both) = found.counts / found.counts.sum()
    quality = {"flagged": alarms + both, "precision": both / (alarms + both)}
    return quality | {"recall": both / (missed + both), "accuracy": spared + both}


def short_of_the_optimum(pairs: Some) -> dict[str, dict[str, float]]:
    """What a temperature fit gives that stops too early: ECE at several temperatures."""
    steps = (1.0, 1.05, 1.1, 1.16, 1.25, 1.35, 1.49, 1.66)
    found = compare(pairs, {f"{t:g}": Temperature(temperature=t) for t in steps})
    names = ("ece", "ece_per_image", "ece_per_image_10_bins", "nll")
    return {name: {key: found.figures(name)[key] for key in names} for name in found.names}


def labels_taken_anew(pairs: Some, calibrator: Calibrator) -> dict[str, float]:
    """ECE and accuracy where labels stay, and where they are taken from the probabilities."""

    def anew(prediction: Prediction) -> Prediction:
        after = calibrator(prediction)  # probabilities may tie where logits do not
        return Prediction(after.probabilities.clamp_min(1e-38).log(), after.size)

    found = compare(pairs, {"kept": calibrator, "taken anew": anew})
    each = [(name, found.figures(name)) for name in found.names]
    return {f"{key}, labels {name}": of[key] for name, of in each for key in ("ece", "accuracy")}


def confidence_of(pairs: Some) -> list[float]:
    """Mean confidence of the right pixels and of the wrong ones."""
    found: list[list[Tensor]] = [[], []]
    for prediction, label in pairs:
        there, wrong = label >= 0, prediction.classes != label
        confidence = prediction.probabilities.amax(1)
        for k, chosen in enumerate((~wrong, wrong)):
            found[k].append(confidence[chosen & there])
    return [float(torch.cat(some).double().mean()) for some in found]


def auto(pairs: Some, names: list[str]) -> dict[str, Any]:
    """What `--method auto` takes, given the images to fit on."""
    fit, other = (
        replace(pairs, places=[pairs.places[k] for k in part])
        for part in split_images([names[at] for at in pairs.places])
    )
    fitted: dict[str, Calibrator] = {"identity": Identity()} | fitted_to(fit, CANDIDATES)
    return dict(zip(("taken", "notes"), choose(compare(other, fitted))))


def seconds_of(pairs: Some, fitted: dict[str, Calibrator], forward: float) -> dict[str, Any]:
    """What a method adds to the forward pass, in seconds for an image and as a share of it.

    Up to calibrated logits: on the native grid where the method acts there, else at full size.
    """
    prediction = next(iter(pairs))[0]

    def fresh() -> Prediction:
        logits, features = prediction.native_logits, prediction.features
        return Prediction(logits, prediction.size, features=features)

    ways = {name: lambda c=c: c(fresh()).native_logits for name, c in fitted.items()}
    seconds = best_of(ways, 5)
    return {name: {"seconds": s, "over_forward": s / forward} for name, s in seconds.items()}


def compared(network: str, given: Namespace) -> Iterator[Row]:
    """All rows of one network: both protocols, and the corruptions."""
    camvid, told = CamVid(given, str(given.shared / "models" / network)), {}
    for fitted_on, (pairs, tests) in camvid.protocols().items():
        two = fitted_on == "two day drives"
        fitted = fitted_to(pairs, [m for m in METHODS if two or m not in HERE_ONLY])
        for test, some in tests.items():
            about = {"network": network, "fitted_on": fitted_on, "set": test}
            yield from rows_of(compare(some, fitted, block=RUN), about)
        told[fitted_on] = {
            "images": len(pairs.places),
            "fitted": {name: settings_of(c) for name, c in fitted.items()},
            "selector": {
                "selective": {k: selector_quality(x, fitted["selective"]) for k, x in tests.items()}
            },
            "auto": auto(pairs, camvid.names),
        }
        if two:
            told |= more_of(camvid, pairs, tests, fitted)
            yield from shifted(network, camvid, tests["same drives"], fitted)
    given.conditions[network] = short(told)


def more_of(
    camvid: CamVid, pairs: Some, tests: dict[str, Some], fitted: dict[str, Calibrator]
) -> dict[str, Any]:
    """What the page tells beside the rows."""
    few = {test: replace(some, places=some.places[::5]) for test, some in tests.items()}
    right, wrong = confidence_of(few["same drives"])
    told: dict[str, Any] = {"temperatures": short_of_the_optimum(few["same drives"])}
    told["confidence"] = {"right pixels": right, "wrong pixels": wrong}
    huge = "selective(temperature=1e10)"
    told[huge] = {test: labels_taken_anew(some, fitted[huge]) for test, some in few.items()}
    image = camvid.val[0].image[None]
    camvid.segmenter(image)
    forward = float(best_of({"forward": lambda: camvid.segmenter(image)}, 5)["forward"])
    return told | {"forward_seconds": forward, "cost": seconds_of(pairs, fitted, forward)}


def shifted(
    network: str, camvid: CamVid, same: Some, fitted: dict[str, Calibrator]
) -> Iterator[Row]:
    """Rows of the corruptions of test images of the same drives."""
    places = [at - len(camvid.val) for at in same.places if at >= len(camvid.val)]
    chosen = places[:: max(1, len(places) // CORRUPTED_IMAGES)]
    few = {name: fitted[name] for name in SHIFTED}
    for kind in CORRUPTIONS:
        for strength in range(1, 6):
            worse = Pairs(camvid.segmenter, Corrupted(camvid.test, kind, strength), indices=chosen)
            about = {"network": network, "fitted_on": "two day drives", "set": f"{kind} {strength}"}
            yield from rows_of(compare(worse, few, block=RUN), about)


def short(value: Any) -> Any:
    """The same with numbers of six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: short(inner) for key, inner in value.items()}
    return [short(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@dataclass
class Truth:
    """Pairs that say of the image at hand which pixels are wrong, as an oracle must know."""

    pairs: Iterable[Pair]
    wrong: Tensor | None = None
    number: int = 0

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        for number, (prediction, label) in enumerate(self.pairs):
            self.number, self.wrong = number, prediction.classes != label
            yield prediction, label


def flags(wrong: Tensor, found: float, spared: float, seed: int) -> Tensor:
    """Which pixels a selector flags that finds and spares so many, by chance alone."""
    draw = torch.rand(wrong.shape, generator=seeded(seed))
    return torch.where(wrong, draw < found, draw >= spared)


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle(Calibrator):
    """Selective scaling whose selector is told the labels, not all of them truly.

    Args:
        truth: of the image at hand.
        found: share of the wrong pixels that it flags.
        spared: share of the right ones that it does not.
        temperature: of what it flags.
    """

    truth: Truth
    found: float
    spared: float
    temperature: float

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale what is flagged."""
        assert self.truth.wrong is not None
        flagged = flags(self.truth.wrong, self.found, self.spared, self.truth.number)[:, None]
        logits = torch.where(flagged, prediction.logits / self.temperature, prediction.logits)
        return recalibrated(prediction, logits, keep=True)


TOLD = {f"all pixels {a:g}": (a, a) for a in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)}
TOLD |= {f"wrong pixels {r:g}": (r, 1.0) for r in (0.1, 0.25, 0.5, 0.75)}
"""How much of what the selector is told is true, by name: of the wrong pixels, of the right."""
TRAINED = ("selective(temperature=2)", "selective", "selective(inputs=all)")


def oracles(fit: Iterable[Pair], truth: Truth) -> dict[str, Oracle]:
    """The selectors of `TOLD`, with T = 2 and with T fitted to what they flag."""
    pixels = draw_pixels(fit)
    made = {}
    for name, (found, spared) in TOLD.items():
        flagged = pixels.where(flags(pixels.wrong, found, spared, 0))
        fitted = 1 / best_inverse(flagged, least=1 / HOTTEST)
        for kind, temperature in (("T = 2", 2.0), ("T fitted", fitted)):
            about = {"truth": truth, "found": found, "spared": spared, "temperature": temperature}
            made[f"{name}, {kind}"] = Oracle(**about)
    return made


def selector(given: Namespace) -> Iterator[Row]:
    """ECE against the selector's accuracy, from chance to the oracle; beside trained ones."""
    for network in NETWORKS:
        camvid = CamVid(given, str(given.shared / "models" / network))
        val, day, dusk = camvid.drives
        fit, test = camvid.some(val), camvid.some(sorted(day + dusk)[::2])
        truth = Truth(test)
        fitted = fitted_to(fit, ("identity", "temperature", *TRAINED)) | oracles(fit, truth)
        about = {"network": "selector", "fitted_on": "CamVid val", "set": network}
        for row in rows_of(compare(truth, fitted, block=RUN // 2), about):
            yield short(row | about_selector(fitted[row["name"]], 1 - row["accuracy"], test))


def about_selector(calibrator: Calibrator, wrong: float, test: Iterable[Pair]) -> Row:
    """How good a selector is, told of so many wrong pixels or held to `test`, and T; or nothing."""
    if isinstance(calibrator, Oracle):
        found, spared = calibrator.found, calibrator.spared
        told = {"selector_recall": found, "selector_accuracy": found * wrong + spared * (1 - wrong)}
    elif isinstance(calibrator, Selective):
        quality = selector_quality(test, calibrator)
        told = {f"selector_{key}": quality[key] for key in ("recall", "accuracy")}
    else:
        return {}
    return told | {"temperature": calibrator.temperature}


THIRD = 3
"""Every third image is enough, and five networks look at it."""
MEMBER = ("identity", "temperature", "temperature_mix", "selective", "selective_confidence")


def ensemble(given: Namespace) -> Iterator[Row]:
    """Five networks' mean probability beside the first of them, raw and with a temperature."""
    members = [str(given.shared / "models" / "camvid9-ensemble" / str(k)) for k in range(1, 6)]
    first, all_five = (
        CamVid(given, model, every=THIRD).protocols() for model in (members[0], ",".join(members))
    )
    for fitted_on, (fit, tests) in first.items():
        fit_mean, means = all_five[fitted_on]
        single, mean = fitted_to(fit, MEMBER), fitted_to(fit_mean, MEMBER[:2])
        mean = dict(zip(("deep ensemble", "deep ensemble, temperature"), mean.values()))
        for test, pairs in tests.items():
            one = compare(pairs, single, block=RUN // THIRD)
            two = compare(means[test], mean, block=RUN // THIRD)
            found = replace(  # as one, so that differences are paired
                one,
                names=one.names + two.names,
                sums=[np.concatenate(both) for both in zip(one.sums, two.sums)],
                losses=[np.concatenate(both) for both in zip(one.losses, two.losses)],
            )
            about = {"network": "camvid9-ensemble", "fitted_on": fitted_on, "set": test}
            yield from rows_of(found, about)


PIXELS = 50_000
"""On which all fit, and as many others on which they are measured."""
BESIDE = (
    *("identity", "temperature", "class_temperature", "temperature_mix", "histogram", "isotonic"),
    *("vector", "vector_kept", "dirichlet", "dirichlet_kept", "order_preserving"),
    "argmax_preserving",
)
FIDUCIO = {
    "temperature": "TemperatureScaling",
    "ensemble temperature": "EnsembleTemperatureScaling",
    "vector": "VectorScaling",
    "dirichlet": "DirichletCalibration",
    "class-conditional matrix": "ClassConditionalMatrixScaling",
    "order-preserving matrix": "OrderPreservingMatrixScaling",
    "argmax-preserving matrix": "ArgmaxPreservingMatrixScaling",
}
SAME = (
    *("identity", "temperature", "vector", "dirichlet", "order_preserving", "argmax_preserving"),
    *("order-preserving matrix", "argmax-preserving matrix", "IsotonicRegression"),
)
"""What is also held to the drives that it was fitted on."""
NETCAL = ("HistogramBinning", "IsotonicRegression")
"""Its scaling methods do not fit beside this SciPy and PyTorch: all weights stay at 1."""
Logits = list[tuple[Tensor, Tensor]]
"""Of a sample: full-size logits `(N, C)` and labels, image by image."""


def some_pixels(pairs: Some) -> Logits:
    """Equally many pixels of every fourth image."""
    pairs = replace(pairs, places=pairs.places[::4])
    each = [draw_pixels([pair], values=9 * PIXELS) for pair in pairs]
    count = PIXELS // len(each)
    chosen = [torch.randperm(len(one.labels), generator=seeded(0))[:count] for one in each]
    return [(one.values[at], one.labels[at]) for one, at in zip(each, chosen)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


Way = Callable[[Tensor], Tensor]
"""From `(1, C, N, 1)` logits to probabilities."""


def as_image(logits: Tensor) -> Tensor:
    return logits.T[None, :, :, None].contiguous()


def fit_own(name: str, logits: Tensor, labels: Tensor) -> Way:
    prediction = Prediction(as_image(logits), (len(logits), 1))
    calibrator = parse_method(name)([(prediction, labels[None, :, None])])
    return lambda logits: calibrator(Prediction(logits, logits.shape[-2:])).probabilities


def fit_fiducio(name: str, logits: Tensor, labels: Tensor) -> Way:
    calibrator = getattr(importlib.import_module("fiducio"), FIDUCIO[name])()
    calibrator.fit(as_image(logits), labels[None, :, None])
    found: Way = calibrator.transform
    return found


def fit_netcal(name: str, logits: Tensor, labels: Tensor) -> Way:
    kinds = importlib.import_module("netcal.binning")
    calibrator = getattr(kinds, name)(**({"bins": 15} if name == "HistogramBinning" else {}))
    calibrator.fit(logits.softmax(1).numpy(), labels.numpy())

    def calibrated(logits: Tensor) -> Tensor:
        p = logits.softmax(1)[0, :, :, 0].T.numpy()
        return as_image(torch.from_numpy(calibrator.transform(p)))

    return calibrated


def beside_one(fit_to: Callable[..., Way], name: str, fit: Logits, test: Logits) -> Row:
    """One way, measured on other pixels than it was fitted on."""
    start = time.process_time()
    calibrated = fit_to(name, *map(torch.cat, zip(*fit)))
    seconds = time.process_time() - start
    classwise, changed, pairs = Reliability(test[0][0].shape[1]), 0, []
    for logits, labels in test:
        before = Prediction(as_image(logits), (len(logits), 1))
        p, truth = calibrated(before.native_logits), labels[None, :, None]
        after = replace(before, native_logits=p.clamp_min(1e-12).log().float(), classes_of=before)
        classwise.update(after.logits, truth, None, before.classes)
        changed += int((p.gather(1, before.classes[:, None])[:, 0] < p.amax(1)).sum())
        pairs.append((after, truth))
    found = compare(pairs, {name: Identity()}, block=RUN // 4)
    figures, whole = found.figures(name), found.within(name, "all")
    return {key: figures[key] for key in ("ece", "ece_interval", "nll", "brier")} | {
        "confidence_minus_accuracy": whole["confidence"] - whole["accuracy"],
        "classwise_ece": classwise.classwise_ece,
        "labels_changed": changed / sum(len(labels) for _, labels in test),
        "seconds_fit": seconds,
    }


def beside(given: Namespace, drives: str) -> Iterator[Row]:
    """Our methods, fiducio's and netcal's on the same pixels, each in a process of its own.

    Args:
        given: options.
        drives: `another` than was fitted on, or the `same`, with whole runs of frames kept apart.
    """
    if given.peers is None:
        return
    sys.path.append(str(given.peers))
    ways = {
        "doubtmap": (fit_own, BESIDE),
        "fiducio 0.2": (fit_fiducio, FIDUCIO),
        "netcal 1.4": (fit_netcal, NETCAL),
    }
    for network in NETWORKS:
        camvid = CamVid(given, str(given.shared / "models" / network))
        val, day, dusk = camvid.drives
        both, where = (camvid.some(val), camvid.some(sorted(day + dusk))), "pixels of CamVid test"
        about = {"network": "beside"}
        if drives == "same":
            even, tests = camvid.protocols()["two day drives"]
            both, where = (even, tests["same drives"]), "pixels of the same drives"
            about = {"network": "beside, same drives"}
        fit, test = map(some_pixels, both)
        for library, (fit_to, names) in ways.items():
            for name in names if drives == "another" else [n for n in names if n in SAME]:
                row = apart(beside_one, fit_to, name, fit, test)
                told = about | {"set": f"{network}, {where}", "name": f"{library}: {name}"}
                yield told | {"pixels": PIXELS} | short(row)


MANY = ("identity", "temperature", "selective", "selective_confidence", "vector")
"""On many classes; the last one's fit does not converge where classes have no labelled pixel."""
TOLD_FEW = ("all pixels 0.7", "all pixels 1", "wrong pixels 0.25")
SIDE = 384
"""Of the photographs, for which the network was made, and of their label maps."""
SAME_THING = {"airplane": "aeroplane", "couch": "sofa", "dining table": "diningtable"}
SAME_THING |= {"motorcycle": "motorbike", "potted plant": "pottedplant", "tv": "tvmonitor"}
"""VOC's names of COCO's classes, where they differ."""
EPOCHS = 20


class Photographs:
    """COCO's photographs and label maps from their outlines, smaller things over larger ones."""

    component_sizes = None

    def __init__(self, outlines: Outlines, class_names: tuple[str, ...]) -> None:
        self.name, self.class_names = outlines.name, class_names
        by_image = groupby(outlines.outlines, lambda outline: outline.image)
        self.outlines = {image: list(group) for image, group in by_image}
        self.files = list(self.outlines)

    def __len__(self) -> int:
        return len(self.files)

    def sample_name(self, index: int) -> str:
        """The file's."""
        return self.files[index].stem

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.files[index])
        label = torch.zeros(image.shape[1:])
        things = [(one.class_name, *one.mask()) for one in self.outlines[self.files[index]]]
        for name, mask, top, left in sorted(things, key=lambda thing: -int(thing[1].sum())):
            known = [n for n in (name, SAME_THING.get(name)) if n in self.class_names]
            box = label[top : top + mask.shape[0], left : left + mask.shape[1]]
            box[torch.from_numpy(mask)] = self.class_names.index(known[0]) if known else 0
        small = F.interpolate(image[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        label = F.interpolate(label[None, None], (SIDE, SIDE), mode="nearest-exact")[0, 0]
        return Sample(self.sample_name(index), small[0].round().byte(), label.short())


def voc() -> nn.Module:
    """ESPNetv2 of the checkout that EDGENETS names, with the 21 classes of VOC."""
    root = os.environ["EDGENETS"]
    sys.path.insert(0, root)
    network = importlib.import_module("model.segmentation.espnetv2").espnetv2_seg(
        Namespace(s=2.0, classes=21, channels=3, weights="", dataset="pascal", num_classes=1000)
    )
    weights = f"model/segmentation/model_zoo/espnetv2/espnetv2_s_2.0_pascal_{SIDE}x{SIDE}.pth"
    network.load_state_dict(torch.load(f"{root}/{weights}", "cpu", weights_only=True))
    return network.eval()


class Retaught(nn.Module):
    """The encoder of a network and one linear layer on what it gives at 1/8 and 1/16."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.last = network, nn.Conv2d(768, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at 1/8."""
        heard: list[Tensor] = []
        encoder = self.network.base_net
        hooks = [
            layers[-1].register_forward_hook(lambda _, __, out: heard.append(out))
            for layers in (encoder.level3, encoder.level4)
        ]
        self.network(x)
        for hook in hooks:
            hook.remove()
        fine, coarse = heard
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([fine, coarse], 1))


def taught(photographs: Photographs, seed: int) -> nn.Module:
    """The network with a last layer for other classes, which alone learns: on a grid of 48 x 48."""
    torch.manual_seed(seed)
    network = Retaught(voc(), len(photographs.class_names)).eval()
    pairs, step = list(Pairs(load(network, photographs), photographs)), SIDE // 48
    heard = torch.cat([prediction.features[0].flatten(1).T for prediction, _ in pairs])
    data = TensorDataset(heard, torch.cat([y[0, ::step, ::step].flatten() for _, y in pairs]))
    optimizer = torch.optim.Adam(network.last.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for x, y in DataLoader(data, 1024, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(network.last(x[:, :, None, None])[:, :, 0, 0], y).backward()
            optimizer.step()
    return network


def load(network: nn.Module, photographs: Photographs) -> dm.Segmenter:
    names = photographs.class_names
    return dm.load(network, classes=names, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def in_turn(
    pairs: Pairs, folds: int, methods: tuple[str, ...] = MANY, told: bool = False
) -> Iterator[Row]:
    """Rows of methods, every image measured by what was fitted on the other folds.

    Args:
        pairs: predictions and labels.
        folds: of every so many-th image each.
        methods: by name.
        told: whether selectors that are told the truth come with them.
    """
    images = range(len(pairs))
    some = partial(Some, [Remembered(pairs, features=False)])
    measured, about = [], defaultdict(list)
    for fold in range(folds):
        test = some(images[fold::folds])
        fit, truth = some([at for at in images if at % folds != fold]), Truth(test)
        fitted = fitted_to(fit, methods)
        fitted["selective(temperature=2)"] = replace(fitted["selective"], temperature=2.0)
        if told:
            few = oracles(fit, truth).items()
            fitted |= {name: c for name, c in few if name.split(",")[0] in TOLD_FEW}
        measured.append(compare(truth, fitted, block=1))
        for name, calibrator in fitted.items():
            wrong = 1 - measured[-1].accuracy(name)
            about[name].append(about_selector(calibrator, wrong, test))
        print(f"  {len(measured)} of {folds}", flush=True)
    whole = replace(
        measured[0],
        sums=[row for part in measured for row in part.sums],
        losses=[row for part in measured for row in part.losses],
    )
    for row in rows_of(whole, {}):
        of = about[row["name"]]
        yield row | {key: short(float(np.mean([one[key] for one in of]))) for key in of[0]}


def cityscapes(given: Namespace) -> Iterator[Row]:
    """19 classes: every image by what was fitted on the others."""
    data = dm.open_dataset(f"cityscapes:{given.shared}/data/cityscapes_few:train")
    about = {"network": "cityscapes", "set": "five images, each by the others"}
    reference, names = f"{given.shared}/models/edgenets_city.py:load", tuple(CITYSCAPES_TRAIN_IDS)
    segmenter = dm.load(f"python:{reference}", classes=names, input_size=(512, 1024))
    for row in in_turn(Pairs(segmenter, data), len(data)):
        yield about | row


NAMES = {"voc": tuple(VOC), "coco": ("background", *COCO)}


def of_photographs(given: Namespace, network: str) -> Iterator[Row]:
    """The classes of VOC or COCO, as they come or with a last layer taught on a half; two folds."""
    kind, _, seed = network.partition("-")
    path, names = f"{given.shared}/data/coco128", NAMES[kind]
    if not seed:
        measured, net = Photographs(open_outlines(path), names), voc()
    else:
        learnt, measured = (
            Photographs(open_outlines(f"{path}:{half}", seed=int(seed) - 1), names)
            for half in ("train", "test")
        )
        net = taught(learnt, int(seed))
    pairs, methods = Pairs(load(net, measured), measured), MANY[:-1] if seed else MANY
    for row in in_turn(pairs, 2, methods, told=network in ("voc", "coco-1")):
        yield {"network": network, "set": measured.name} | row


TOPIC = Topic(
    "calibration",
    "python benchmarks/calibration.py",
    ("network",),
    {"threads": 1, "bins": 15, "bootstrap_block": RUN},
)
ROWS: dict[str, Callable[[Namespace], Iterator[Row]]]
ROWS = {network: partial(compared, network) for network in NETWORKS}
ROWS |= {"selector": selector, "ensemble": ensemble, "cityscapes": cityscapes}
ROWS |= {"beside": partial(beside, drives="another"), "same": partial(beside, drives="same")}
TAUGHT = [f"{kind}-{k}" for kind in NAMES for k in (1, 2, 3)]
ROWS |= {network: partial(of_photographs, network=network) for network in ("voc", *TAUGHT)}
STAGES = {name: Stage(TOPIC, rows) for name, rows in ROWS.items()}
OPTIONS = {"--peers": {"type": Path, "help": "of `beside`: a folder, see above"}}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default=",".join(NETWORKS))
