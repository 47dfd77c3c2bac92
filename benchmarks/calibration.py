"""Every calibration method on CamVid, in-domain and shifted: `benchmarks/results/calibration.json`.

    python benchmarks/calibration.py [--shared ../shared] [--work FOLDER]
    python benchmarks/calibration.py --stages selector,ensemble
    python benchmarks/calibration.py --stages beside,same --peers PEERS
    EDGENETS=CHECKOUT python benchmarks/calibration.py --stages cityscapes

A stage for each network, which runs once for each image; its outputs and what was measured stay in
FOLDER, so that a stopped run goes on. `selector` tells selective scaling which pixels are wrong,
less and less of it true; `ensemble` holds the mean of five networks beside one of them. `beside`
fits our methods, fiducio's and netcal's to the same pixels and holds them to another drive, `same`
to the same drives; PEERS is where these were installed to with `pip install --target PEERS
--no-deps fiducio netcal`. `cityscapes` has many classes, as the paper had: ESPNetv2 with 19
(`../shared/models/edgenets_city.py`; EDGENETS names a checkout of sacmehta/EdgeNets) on the five
labelled images at hand, each measured by what was fitted on the four others. One thread.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
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
from doubtmap.datasets import CORRUPTIONS, Corrupted, Outline, Outlines, Sample, open_outlines
from doubtmap.datasets.class_tables import COCO, VOC
from doubtmap.datasets.reading import read_image
from doubtmap.engine import Pairs
from doubtmap.engine.splitting import split_images
from doubtmap.metrics import Confusion, Reliability
from doubtmap.metrics.bootstrap import interval
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from doubtmap.prediction import Prediction

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
OTHER_DRIVE = (
    *("identity", "temperature", "temperature_mix", "histogram", "isotonic", "meta", "local"),
    *("selective(temperature=2)", "selective(temperature=2,balance=4)"),
    *("selective(temperature=2,inputs=all)", "selective", "selective(others=temperature)"),
    *("selective_soft", "selective_confidence", "selective_confidence(inputs=all)"),
)
"""Methods that are also fitted on one drive and measured on another."""
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
class Kept:
    """Predictions and labels in files, by image."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        for file in self.files:
            found = safetensors.torch.load_file(file)
            size = (found["label"].shape[1], found["label"].shape[2])
            features = found["features"].float() if "features" in found else None
            prediction = Prediction(found["logits"], size, features=features)
            yield prediction, found["label"].long()


def keep(
    segmenter: dm.Segmenter,
    dataset: Any,
    folder: Path,
    indices: list[int],
    features: bool = True,
) -> list[Path]:
    """Run the network on images that are not in the folder yet; the files by index."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{dataset.sample_name(index)}.safetensors" for index in indices]
    todo = [index for index, file in zip(indices, files) if not file.exists()]
    if not todo:
        return files
    pairs = Pairs(segmenter, dataset, indices=todo)
    for index, (prediction, label) in zip(todo, pairs):
        assert not prediction.align_corners
        assert prediction.covered in (None, tuple(map(float, prediction.size)))
        content = {
            "logits": prediction.native_logits,
            "label": label.to(torch.int16),
        }
        if features:
            assert prediction.features is not None
            content["features"] = prediction.features.half()
        target = folder / f"{dataset.sample_name(index)}.safetensors"
        part = target.with_suffix(".part")
        safetensors.torch.save_file({k: v.contiguous() for k, v in content.items()}, part)
        part.replace(target)
    return files


Files = dict[str, list[Path]]


def parts(files: Files) -> dict[str, tuple[Kept, dict[str, Kept]]]:
    """The two protocols: what is fitted on, and what is tested on, by name."""
    day = [file for file in files["test"] if file.name.startswith("Seq05VD")]
    dusk = [file for file in files["test"] if file.name.startswith("0001TP")]
    mixed = [files["val"], day]
    even = [f for drive in mixed for i, f in enumerate(drive) if i // RUN % 2 == 0]
    odd = [f for drive in mixed for i, f in enumerate(drive) if i // RUN % 2 == 1]
    same = {"same drives": Kept(tuple(odd)), "dusk": Kept(tuple(dusk))}
    other = {"another drive": Kept(tuple(day)), "dusk": Kept(tuple(dusk))}
    return {
        "two day drives": (Kept(tuple(even)), same),
        "one day drive": (Kept(tuple(files["val"])), other),
    }


def fit_all(pairs: Kept, methods: tuple[str, ...], folder: Path) -> dict[str, Calibrator]:
    """Fitted methods by name; those of an earlier run are read."""
    fitted: dict[str, Calibrator] = {}
    for name in methods:
        file = folder / (re.sub(r"\W+", "_", name) + ".safetensors")
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            start = time.time()
            dm.calibration.save_calibrator(parse_method(name)(pairs), file)
            print(f"  {name}: {time.time() - start:.1f} s", flush=True)
        fitted[name] = dm.calibration.load_calibrator(file)
    return fitted


def measured(
    network: str,
    fitted_on: str,
    test: str,
    pairs: Kept,
    fitted: dict[str, Calibrator],
    folder: Path,
) -> list[dict[str, Any]]:
    """A row for each method; those of an earlier run are read."""
    start = time.time()
    file = folder / f"{fitted_on}, {test}.json".replace(" ", "-")
    if file.exists():
        kept: list[dict[str, Any]] = json.loads(file.read_text())
        return kept
    about = {"network": network, "fitted_on": fitted_on, "set": test}
    rows = list(rows_of(compare(pairs, fitted, block=RUN), about))
    print(f"  {test}: {time.time() - start:.0f} s", flush=True)
    file.write_text(json.dumps(rows))
    return rows


def rows_of(found: Comparison, about: Row) -> Iterator[Row]:
    """A row for each method of a comparison that holds `identity` and `temperature`."""
    for name in found.names:
        difference, bounds = found.difference(name, "temperature")
        row = about | {"name": name, "images": len(found.sums)} | found.figures(name)
        row["ece_over_raw"] = row["ece"] / found.ece("identity")
        row["ece_minus_temperature"] = difference
        row["ece_minus_temperature_interval"] = bounds
        figure = "ece_per_image_10_bins"
        difference, bounds = found.difference(name, "temperature", figure)
        row[f"{figure}_minus_temperature"] = difference
        row[f"{figure}_minus_temperature_interval"] = bounds
        yield row


def settings_of(calibrator: Calibrator) -> dict[str, Any]:
    """The few numbers of a calibrator that a reader wants to see."""
    named = ("temperature", "weights", "threshold", "offset", "slope")
    found = {name: getattr(calibrator, name, None) for name in named}
    return {k: v for k, v in found.items() if isinstance(v, (float, tuple))}


def selector_quality(pairs: Any, calibrator: Any) -> dict[str, float]:
    """Flagged pixels, wrong ones among them, flagged ones among the wrong, all told rightly."""
    pixels = flagged = wrong = both = 0
    for prediction, label in pairs:
        there = label >= 0
        flag = (log_odds_of_wrong(calibrator.selector, prediction)[:, 0] > 0)[there]
        bad = (prediction.classes != label)[there]
        pixels, flagged = pixels + len(bad), flagged + int(flag.sum())
        wrong, both = wrong + int(bad.sum()), both + int((flag & bad).sum())
    found = {"flagged": flagged / pixels, "precision": both / flagged, "recall": both / wrong}
    return found | {"accuracy": 1 - (flagged + wrong - 2 * both) / pixels}


def short_of_the_optimum(pairs: Kept) -> dict[str, dict[str, float]]:
    """What a temperature fit gives that stops too early: ECE at several temperatures."""
    steps = (1.0, 1.05, 1.1, 1.16, 1.25, 1.35, 1.49, 1.66)
    found = compare(pairs, {f"{t:g}": Temperature(temperature=t) for t in steps})
    names = ("ece", "ece_per_image", "ece_per_image_10_bins", "nll")
    return {name: {key: found.figures(name)[key] for key in names} for name in found.names}


def labels_taken_anew(pairs: Kept, calibrator: Calibrator) -> dict[str, float]:
    """ECE and accuracy where labels stay, and where they are taken from the probabilities."""
    found = {}
    for name in ("kept", "taken anew"):
        reliability, right, pixels = Reliability(9), 0, 0
        for prediction, label in pairs:
            after, there = calibrator(prediction), label >= 0
            classes = after.classes if name == "kept" else after.probabilities.argmax(1)
            reliability.update(after.logits, label.clamp_min(0), there, classes)
            right, pixels = right + int((classes == label).sum()), pixels + int(there.sum())
        found |= {f"ece, labels {name}": reliability.ece}
        found |= {f"accuracy, labels {name}": right / pixels}
    return found


def confidence_of(pairs: Kept) -> tuple[float, float]:
    """Mean confidence of the right pixels and of the wrong ones."""
    sums, counts = [0.0, 0.0], [0, 0]
    for prediction, label in pairs:
        there = label >= 0
        confidence = prediction.probabilities.amax(1)[there].double()
        wrong = (prediction.classes != label)[there]
        for k, chosen in enumerate((~wrong, wrong)):
            sums[k] += float(confidence[chosen].sum())
            counts[k] += int(chosen.sum())
    return sums[0] / counts[0], sums[1] / counts[1]


def auto(pairs: Kept, file: Path) -> dict[str, Any]:
    """What `--method auto` takes, given the images to fit on; read where it is known."""
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text())
        return known
    one, two = split_images([file.stem for file in pairs.files])
    fit, other = (Kept(tuple(pairs.files[i] for i in part)) for part in (one, two))
    fitted: dict[str, Calibrator] = {"identity": Identity()}
    fitted |= {name: parse_method(name)(fit) for name in CANDIDATES}
    taken, notes = choose(compare(other, fitted))
    print(f"  auto takes {taken}", flush=True)
    file.write_text(json.dumps({"taken": taken, "notes": list(notes)}))
    return {"taken": taken, "notes": list(notes)}


def seconds_of(pairs: Kept, fitted: dict[str, Calibrator], forward: float) -> dict[str, Any]:
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


def forward_seconds(segmenter: dm.Segmenter, dataset: Any) -> float:
    image = dataset[0].image[None]
    segmenter(image)
    return float(best_of({"forward": lambda: segmenter(image)}, 5)["forward"])


def in_domain(network: str, files: Files, home: Path, told: dict[str, Any]) -> Iterator[Row]:
    """Rows of both protocols; what was fitted goes into `told`."""
    for fitted_on, (pairs, tests) in parts(files).items():
        print(f"{network}, fitted on {fitted_on}", flush=True)
        methods = METHODS if fitted_on == "two day drives" else OTHER_DRIVE
        fitted = fit_all(pairs, methods, home / fitted_on.replace(" ", "-"))
        for test, kept in tests.items():
            yield from measured(network, fitted_on, test, kept, fitted, home)
        told[fitted_on] = {
            "images": len(pairs),
            "fitted": {name: settings_of(c) for name, c in fitted.items()},
            "selector": {
                name: {test: selector_quality(kept, c) for test, kept in tests.items()}
                for name, c in fitted.items()
                if name in ("selective", "selective(inputs=all)")
            },
            "auto": auto(pairs, home / f"auto-{fitted_on}.json".replace(" ", "-")),
        }


def shifted(
    network: str,
    segmenter: dm.Segmenter,
    test: Any,
    chosen: list[int],
    fitted: dict[str, Calibrator],
    home: Path,
) -> Iterator[Row]:
    """Rows of the corruptions."""
    for kind in CORRUPTIONS:
        for strength in range(1, 6):
            worse = Corrupted(test, kind, strength)
            kept = Kept(tuple(keep(segmenter, worse, home / f"{kind}-{strength}", chosen)))
            name = f"{kind} {strength}"
            yield from measured(network, "two day drives", name, kept, fitted, home)


def compared(network: str, given: Namespace) -> list[Row]:
    """All rows of one network."""
    segmenter = dm.load(given.shared / "models" / network)
    home, data = given.work / network, given.shared / "data" / "camvid"
    sets = {split: dm.open_dataset(f"camvid:{data}:{split}") for split in ("val", "test")}
    files = of_camvid(given, network)
    told: dict[str, Any] = {}
    rows = list(in_domain(network, files, home, told))
    pairs, tests = parts(files)["two day drives"]
    fitted = fit_all(pairs, METHODS, home / "two-day-drives")
    few = {test: Kept(kept.files[::5]) for test, kept in tests.items()}
    told["temperatures"] = short_of_the_optimum(few["same drives"])
    right, wrong = confidence_of(few["same drives"])
    told["confidence"] = {"right pixels": right, "wrong pixels": wrong}
    huge = "selective(temperature=1e10)"
    told[huge] = {test: labels_taken_anew(kept, fitted[huge]) for test, kept in few.items()}
    told["forward_seconds"] = forward_seconds(segmenter, sets["val"])
    told["cost"] = seconds_of(pairs, fitted, told["forward_seconds"])
    names = {file.stem for file in tests["same drives"].files}
    chosen = [i for i in range(len(sets["test"])) if sets["test"].sample_name(i) in names]
    chosen = chosen[:: max(1, len(chosen) // CORRUPTED_IMAGES)]
    few_methods = {name: fitted[name] for name in SHIFTED}
    rows += shifted(network, segmenter, sets["test"], chosen, few_methods, home)
    given.conditions[network] = short(told)
    return [short(row) for row in rows]


def short(value: Any) -> Any:
    """The same with numbers of six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: short(inner) for key, inner in value.items()}
    return [short(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def of_camvid(given: Namespace, network: str, *, model: str = "", every: int = 1) -> Files:
    """What a network gives of CamVid val and test: kept files by split.

    Args:
        given: options.
        network: folder of what is kept.
        model: as `dm.load` takes it; default: that folder of the networks.
        every: so many images go on to the next; features are kept where all are asked for.
    """
    segmenter, home = dm.load(model or given.shared / "models" / network), given.work / network
    found = {}
    for split in ("val", "test"):
        data = dm.open_dataset(f"camvid:{given.shared}/data/camvid:{split}")
        chosen = list(range(0, len(data), every))
        found[split] = keep(segmenter, data, home / split, chosen, every == 1)
    return found


@dataclass
class Truth:
    """Pairs that say of the image at hand which pixels are wrong, as an oracle must know."""

    pairs: Any
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


ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
FOUND = (0.1, 0.25, 0.5, 0.75)
"""Shares of the wrong pixels that a selector finds which flags no right one."""
TOLD = {f"all pixels {a:g}": (a, a) for a in ACCURACIES}
TOLD |= {f"wrong pixels {r:g}": (r, 1.0) for r in FOUND}
"""How much of what the selector is told is true, by name: of the wrong pixels, of the right."""
TRAINED = ("selective(temperature=2)", "selective", "selective(inputs=all)")


def oracles(fit: Any, truth: Truth) -> dict[str, Oracle]:
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
        files, home = of_camvid(given, network), given.work / network
        fit, test = Kept(tuple(files["val"])), Kept(tuple(files["test"][::2]))
        truth, names = Truth(test), ("identity", "temperature", *TRAINED)
        fitted = fit_all(fit, names, home / "one-day-drive") | oracles(fit, truth)
        about = {"network": "selector", "fitted_on": "CamVid val", "set": network}
        for row in rows_of(compare(truth, fitted, block=RUN // 2), about):
            yield short(row | about_selector(fitted[row["name"]], 1 - row["accuracy"], test))


def about_selector(calibrator: Calibrator, wrong: float, test: Any) -> Row:
    """How good it is, and T.

    Args:
        calibrator: any; nothing is said of one without a selector.
        wrong: share of the pixels that are.
        test: that a trained selector is held to.
    """
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


def beside_each_other(one: Comparison, two: Comparison) -> Comparison:
    """Two comparisons on the same images as one, so that differences are paired."""
    return replace(
        one,
        names=one.names + two.names,
        sums=[np.concatenate(both) for both in zip(one.sums, two.sums)],
        losses=[np.concatenate(both) for both in zip(one.losses, two.losses)],
        classes=[],
        by_class=[],
    )


def ensemble(given: Namespace) -> Iterator[Row]:
    """Five networks' mean probability beside the first of them, raw and with a temperature."""
    members = [str(given.shared / "models" / "camvid9-ensemble" / str(k)) for k in range(1, 6)]
    one, all_five = (
        parts(of_camvid(given, f"camvid9-ensemble/{name}", model=model, every=THIRD))
        for name, model in (("one", members[0]), ("all", ",".join(members)))
    )
    for fitted_on, (fit, tests) in one.items():
        folder = given.work / "camvid9-ensemble" / fitted_on.replace(" ", "-")
        fit_mean, means = all_five[fitted_on]
        single = fit_all(fit, MEMBER, folder)
        mean = fit_all(fit_mean, MEMBER[:2], folder / "mean")
        mean = {
            "deep ensemble": mean["identity"],
            "deep ensemble, temperature": mean["temperature"],
        }
        for test, pairs in tests.items():
            found = beside_each_other(
                *(
                    compare(pairs, single, block=RUN // THIRD),
                    compare(means[test], mean, block=RUN // THIRD),
                )
            )
            about = {"network": "camvid9-ensemble", "fitted_on": fitted_on, "set": test}
            yield from map(short, rows_of(found, about))


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
Logits = tuple[Tensor, Tensor, Tensor]
"""Of a sample: full-size logits `(N, C)`, labels, and the number of each pixel's image."""


def some_pixels(pairs: Kept) -> Logits:
    """Equally many pixels of each image."""
    each = [draw_pixels(Kept((file,)), values=9 * PIXELS) for file in pairs.files]
    count = PIXELS // len(each)
    chosen = [torch.randperm(len(one.labels), generator=seeded(0))[:count] for one in each]
    numbers = torch.repeat_interleave(torch.arange(len(each)), torch.tensor([*map(len, chosen)]))
    values = torch.cat([one.values[at] for one, at in zip(each, chosen)])
    return values, torch.cat([one.labels[at] for one, at in zip(each, chosen)]), numbers


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_image(logits: Tensor) -> Tensor:
    return logits.T[None, :, :, None].contiguous()


def fit_own(name: str, fit: Logits) -> Callable[[Tensor], Tensor]:
    prediction = Prediction(as_image(fit[0]), (len(fit[0]), 1))
    calibrator = parse_method(name)([(prediction, fit[1][None, :, None])])

    def calibrated(logits: Tensor) -> Tensor:
        found = calibrator(Prediction(as_image(logits), (len(logits), 1)))
        return found.probabilities[0, :, :, 0].T

    return calibrated


def fit_fiducio(name: str, fit: Logits) -> Callable[[Tensor], Tensor]:
    import fiducio

    calibrator = getattr(fiducio, FIDUCIO[name])()
    calibrator.fit(as_image(fit[0]), fit[1][None, :, None])
    return lambda logits: calibrator.transform(as_image(logits))[0, :, :, 0].T


def fit_netcal(name: str, fit: Logits) -> Callable[[Tensor], Tensor]:
    kinds = importlib.import_module("netcal.binning")
    given = {"bins": 15} if name == "HistogramBinning" else {}
    calibrator = getattr(kinds, name)(**given)
    calibrator.fit(fit[0].softmax(1).numpy(), fit[1].numpy())
    return lambda logits: torch.from_numpy(calibrator.transform(logits.softmax(1).numpy()))


def beside_one(
    make: Callable[[str, Logits], Callable[[Tensor], Tensor]], name: str, fit: Logits, test: Logits
) -> Row:
    """One way, measured on other pixels than it was fitted on."""
    start = time.process_time()
    calibrated = make(name, fit)
    seconds = time.process_time() - start
    p, labels, count = calibrated(test[0]).double(), test[1], test[0].shape[1]
    classes = test[0].argmax(1)
    reliability = Reliability(count)
    log_p = p.clamp_min(1e-12).log()
    truth, shown = labels[None, :, None], classes[None, :, None]
    reliability.update(as_image(log_p.float()), truth, None, shown)
    own = torch.nn.functional.one_hot(labels, count)
    by_class = []
    for k in range(count):
        at = (p[:, k] * 15).ceil().long().sub(1).clamp(0, 14)
        gap = torch.zeros(15).double().index_add(0, at, p[:, k] - own[:, k])
        by_class.append(float(gap.abs().sum()) / len(p))
    confidence, right = p.gather(1, classes[:, None])[:, 0], (classes == labels).double()
    return {
        "ece": float(reliability.ece),
        "ece_interval": over_images(confidence, right, test[2], float(reliability.ece)),
        "confidence_minus_accuracy": float((confidence - right).mean()),
        "classwise_ece": float(np.mean(by_class)),
        "nll": float(-log_p.gather(1, labels[:, None]).mean()),
        "brier": float((p - own).square().sum(1).mean()),
        "labels_changed": float((p.gather(1, classes[:, None])[:, 0] < p.amax(1)).double().mean()),
        "seconds_fit": seconds,
    }


def over_images(confidence: Tensor, right: Tensor, numbers: Tensor, ece: float) -> list[float]:
    """95 % interval of the ECE where runs of images count Poisson(1) times each."""
    at = (confidence * 15).ceil().long().sub(1).clamp(0, 14)
    runs = numbers // (RUN // 4)
    sums = torch.zeros(int(runs.max()) + 1, 15, dtype=torch.float64)
    sums.index_put_((runs, at), right - confidence, accumulate=True)
    many = torch.bincount(runs).double()
    drawn = torch.poisson(torch.ones(300, len(sums), dtype=torch.float64), generator=seeded(0))
    found = interval(ece, ((drawn @ sums).abs().sum(1) / (drawn @ many)).numpy(), (0, 1))
    assert found is not None
    return found


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
        files = of_camvid(given, network)
        both, where = (files["val"], files["test"]), "pixels of CamVid test"
        if drives == "same":
            even, tests = parts(files)["two day drives"]
            both = list(even.files), list(tests["same drives"].files)
            where = "pixels of the same drives"
        fit, test = (some_pixels(Kept(tuple(part[::4]))) for part in both)
        for library, (make, names) in ways.items():
            for name in names if drives == "another" else [n for n in names if n in SAME]:
                row = apart(beside_one, make, name, fit, test)
                about = {"network": "beside" if drives == "another" else "beside, same drives"}
                about |= {"set": f"{network}, {where}", "name": f"{library}: {name}"}
                yield about | {"pixels": PIXELS} | short(row)


MANY = (
    *("identity", "temperature", "vector", "selective(temperature=2)", "selective"),
    *("selective(others=temperature)", "selective_confidence"),
)
TOLD_FEW = ("all pixels 0.7", "all pixels 0.9", "all pixels 1", "wrong pixels 0.25")
SIDE = 384
"""Of the photographs, for which the network was made, and of their label maps."""
SAME_THING = {"airplane": "aeroplane", "couch": "sofa", "dining table": "diningtable"}
SAME_THING |= {"motorcycle": "motorbike", "potted plant": "pottedplant", "tv": "tvmonitor"}
"""VOC's names of COCO's classes, where they differ."""
HALVES = (0, 1, 2)
"""Seeds of `open_outlines`: the network of 81 classes is taught anew on each."""
EPOCHS = 20


class Photographs:
    """COCO's photographs and label maps from their outlines, smaller things over larger ones."""

    component_sizes = None

    def __init__(self, outlines: Outlines, class_names: tuple[str, ...]) -> None:
        self.name, self.class_names = outlines.name, class_names
        self.outlines: dict[Path, list[Outline]] = {}
        for outline in outlines.outlines:
            self.outlines.setdefault(outline.image, []).append(outline)
        self.files = list(self.outlines)

    def __len__(self) -> int:
        return len(self.files)

    def sample_name(self, index: int) -> str:
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

    def features(self, x: Tensor) -> Tensor:
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
        return torch.cat([fine, coarse], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


@torch.enable_grad()
def taught(photographs: Photographs, seed: int) -> nn.Module:
    """The network with a last layer for other classes, which alone learns: on a grid of 48 x 48."""
    torch.manual_seed(seed)
    network = Retaught(voc(), len(photographs.class_names)).eval()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    values, labels = [], []
    for index in range(len(photographs)):
        sample = photographs[index]
        with torch.no_grad():
            found = network.features(((sample.image / 255 - mean) / std)[None])
        values.append(found[0].flatten(1).T)
        small = F.interpolate(sample.label[None, None].float(), found.shape[-2:])
        labels.append(small.flatten().long())
    data = TensorDataset(torch.cat(values), torch.cat(labels))
    optimizer = torch.optim.Adam(network.last.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for x, y in DataLoader(data, 1024, shuffle=True):
            loss = F.cross_entropy(network.last(x[:, :, None, None])[:, :, 0, 0], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


def in_turn(pairs: Any, folds: int, methods: tuple[str, ...], told: bool = False) -> Iterator[Row]:
    """Rows of methods, every image measured by what was fitted on the other folds.

    Args:
        pairs: predictions and labels, in a list.
        folds: of every so many-th image each.
        methods: by name.
        told: whether selectors that are told the truth come with them.
    """
    parts, about = [], {}
    for fold in range(folds):
        test = pairs[fold::folds]
        fit = [pair for at, pair in enumerate(pairs) if at % folds != fold]
        truth, fitted = Truth(test), {name: parse_method(name)(fit) for name in methods}
        if told:
            every = oracles(fit, truth)
            fitted |= {k: c for k, c in every.items() if k.split(",")[0] in TOLD_FEW}
        parts.append(compare(truth, fitted, block=1))
        for name, calibrator in fitted.items():
            of = about_selector(calibrator, 1 - parts[-1].accuracy(name), test)
            about.setdefault(name, []).append(of)
    whole = replace(parts[0], sums=sum((part.sums for part in parts), []))
    whole.losses, whole.classes = sum((part.losses for part in parts), []), []
    for row in rows_of(whole, {}):
        of = about[row["name"]]
        yield short(row | {key: float(np.mean([one[key] for one in of])) for key in of[0]})


def many(given: Namespace) -> Iterator[Row]:
    """19, 21 and 81 classes."""
    few = dm.open_dataset(f"cityscapes:{given.shared}/data/cityscapes_few:train")
    pairs = list(Pairs(city(given.shared), few))
    for row in in_turn(pairs, len(pairs), MANY):
        yield {"network": "many classes", "set": "Cityscapes, 19 classes"} | row
    coco = given.shared / "data" / "coco128"
    yield from of_photographs(voc(), Photographs(open_outlines(str(coco)), tuple(VOC)), "VOC")
    names = ("background", *COCO)
    for seed in HALVES:
        learnt, others = (
            Photographs(open_outlines(f"{coco}:{half}", seed=seed), names)
            for half in ("train", "test")
        )
        yield from of_photographs(taught(learnt, seed), others, f"COCO {seed + 1}", seed == 0)


def of_photographs(
    network: nn.Module, photographs: Photographs, name: str, told: bool = True
) -> Iterator[Row]:
    """Rows of one network."""
    names = photographs.class_names
    segmenter = dm.load(network, classes=names, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    pairs, confusion = list(Pairs(segmenter, photographs)), Confusion.empty(len(names))
    for prediction, label in pairs:
        confusion.update(prediction.classes, label, label >= 0)
    about = {"network": "many classes", "set": f"{name}, {len(names)} classes"}
    for row in in_turn(pairs, 4, MANY, told):
        yield about | row | {"miou": float(confusion.miou)}


def city(shared: Path) -> dm.Segmenter:
    """ESPNetv2 of the checkout that EDGENETS names."""
    spec = importlib.util.spec_from_file_location("city", shared / "models/edgenets_city.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dm.load(module.load(), classes=module.CLASSES, input_size=(512, 1024))


TOPIC = Topic(
    "calibration",
    "python benchmarks/calibration.py",
    ("network",),
    {"threads": 1, "bins": 15, "bootstrap_block": RUN},
)
STAGES = {network: Stage(TOPIC, partial(compared, network)) for network in NETWORKS}
STAGES |= {"selector": Stage(TOPIC, selector), "ensemble": Stage(TOPIC, ensemble)}
STAGES |= {
    "beside": Stage(TOPIC, partial(beside, drives="another")),
    "same": Stage(TOPIC, partial(beside, drives="same")),
}
STAGES["many"] = Stage(TOPIC, many)
OPTIONS = {"--peers": {"type": Path, "help": "of `beside`: a folder, see above"}}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS, default=",".join(NETWORKS))
