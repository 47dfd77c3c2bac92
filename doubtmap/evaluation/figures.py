"""From sums to figures, curves, intervals and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doubtmap.datasets.dataset import UNKNOWN, ComponentSizes
from doubtmap.datasets.fingerprints import image_files
from doubtmap.engine.run import Run
from doubtmap.evaluation.components import ComponentTally
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.score_figures import (
    SHARE,
    UNKNOWN_FIGURES,
    Figures,
    Measured,
    curves_of,
    differences_of,
    mean_of,
    number,
    predicted_figures,
    removal_figures,
)
from doubtmap.evaluation.tally import Tally
from doubtmap.metrics import Components, Confusion
from doubtmap.metrics.accumulator import State
from doubtmap.metrics.bootstrap import BootstrapSums, interval
from doubtmap.metrics.reliability import ReliabilitySums
from doubtmap.version import __version__

UNNAMED = "unnamed"
"""Of several unknown classes the pixels that the data set calls unknown, and by no class."""

LIMITS = {"brier": (0.0, 2.0), "nll": (0.0, np.inf)}


def segmentation_figures(
    tally: Tally, class_names: tuple[str, ...], labelled: list[int]
) -> Figures:
    """The data set's mIoU, IoU per class and accuracy, with intervals.

    Args:
        tally: the sums.
        class_names: the model's, or empty.
        labelled: the model's classes that the data set labels; others have no IoU.
    """
    confusion = tally.confusion
    if confusion is None:
        return {"miou": None, "accuracy": None, "iou": {}}
    names = _named(class_names, len(confusion.counts))
    iou: dict[str, float | None] = dict.fromkeys(names)
    iou |= {names[index]: number(confusion.iou[index]) for index in labelled}
    figures: Figures = {
        "miou": number(confusion.mean_iou(labelled)),
        "accuracy": number(confusion.accuracy),
    }
    for name, figure in (
        ("miou", lambda state: Confusion(state["counts"]).mean_iou(labelled)),
        ("accuracy", lambda state: Confusion(state["counts"]).accuracy),
    ):
        replicates = tally.segmentation.figures(figure)
        figures[f"{name}_interval"] = interval(figures[name], replicates, SHARE)
    return figures | {"iou": iou}


def calibration_figures(tally: Tally) -> Figures:
    """Calibration of the softmax over the pixels with a class."""
    names = ("ece", "mce", "adaptive_ece", "classwise_ece", "brier", "nll", "ks")
    if tally.reliability is None:
        return dict.fromkeys((*names, "ece_per_image")) | {"bins": tally.bins}
    figures: Figures = {name: number(getattr(tally.reliability, name)) for name in names}
    figures["ece_per_image"] = mean_of([row.get("ece") for row in tally.images])
    for name in ("ece", "classwise_ece", "brier", "nll"):
        replicates = tally.segmentation.figures(
            lambda state, name=name: getattr(_reliability(state), name)  # type: ignore[misc]
        )
        figures[f"{name}_interval"] = interval(figures[name], replicates, LIMITS.get(name, SHARE))
    return figures | {"bins": tally.bins}


def component_figures(components: Components, replicates: BootstrapSums) -> Figures:
    """Component figures of one score, with intervals."""
    figures: Figures = {}
    for name in ("siou", "ppv", "f1"):
        figures[name] = number(getattr(components, name))
        values = replicates.figures(
            lambda state, name=name: getattr(Components(**state), name)  # type: ignore[misc]
        )
        figures[f"{name}_interval"] = interval(figures[name], values, SHARE)
    return figures


def _reliability(state: State) -> ReliabilitySums:
    return ReliabilitySums(state["confidence"], state["classwise"], state["losses"])


def summarise(
    run: Run,
    tally: Tally,
    measured: dict[str, Measured],
    components: dict[str, ComponentTally],
    sizes: ComponentSizes,
    files: Mapping[str, Any],
) -> Results:
    """Figures and curves from the sums; `files` is what is said of the data set's."""
    names = run.segmenter.class_names
    scores = {name: one.figures for name, one in measured.items()}
    strange = _strange_classes(run, tally)
    labelled = sorted({c for c in run.matching.targets if c >= 0} if run.matching else set())
    for name, figures in scores.items():
        blank: dict[str, Any] = dict.fromkeys(("siou", "ppv", "f1"))
        if name in components:
            found = components[name]
            blank = component_figures(found.components, found.replicates)
            blank |= {"threshold": found.threshold, "threshold_mode": found.mode}
        figures["unknown"] |= blank
        if strange:
            figures["unknown"]["by_class"] = _by_class(strange, tally, name, measured[name])
        own = tally.scores[name]
        taken = _named(names, len(next(own.by_predicted.each())["pixels"]))
        figures["by_predicted_class"] = predicted_figures(own, taken)
        figures["removal"] = removal_figures(own, labelled)
    right, wrong, known_only, unknown = (int(count) for count in tally.kinds)
    known = right + wrong + known_only
    figures = {
        "doubtmap": __version__,
        "command": "",
        "seed": 0,
        "threads": torch.get_num_threads(),
        "directory": str(Path.cwd()),
        "model": run.segmenter.description,
        "data": {
            "name": run.dataset.name,
            "images": len(tally.images),
            "images_with_both": with_both(tally),
            "pixels": {"known": known, "unknown": unknown, "void": tally.void},
            **({"unknown_classes": _counted(strange, tally)} if strange else {}),
            **files,
        },
        "segmentation": segmentation_figures(tally, names, labelled),
        "calibration": calibration_figures(tally),
        "scores": scores,
        "differences": differences_of(measured),
        "images": _rows(run, tally),
        "seconds": {},
        "notes": list(_notes(run, tally, components, sizes)),
    }
    if run.skipped:
        figures["data"]["skipped"] = run.skipped.reasons
    curves = curves_of(tally, measured)
    if tally.confusion is not None:
        curves["removal"] = {n: {k: s["removal"][k] for k in REMOVAL} for n, s in scores.items()}
    return Results(figures, curves, names, [])


REMOVAL = ("removed", "miou", "risk")
"""Of a score's `removal`, what is a curve."""


def _named(class_names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The model's classes, by number where they have no names."""
    return class_names or tuple(str(index) for index in range(count))


def _strange_classes(run: Run, tally: Tally) -> dict[int, str]:
    """Names of the unknown classes by their labels, where there are several; else empty."""
    labels = run.matching.unknown if run.matching else ()
    if len(labels) < 2:
        return {}
    names = {label: run.dataset.class_names[label] for label in labels}
    bare = any(UNKNOWN in score.strange.of for score in tally.scores.values())
    return names | ({UNKNOWN: UNNAMED} if bare else {})


def _counted(strange: Mapping[int, str], tally: Tally) -> Figures:
    """Pixels and images of each unknown class; all scores have seen the same."""
    first = next(iter(tally.scores.values())).strange.of
    found = {name: first.get(label) for label, name in strange.items()}
    return {
        name: {"pixels": sums.count if sums else 0, "images": sums.images if sums else 0}
        for name, sums in found.items()
    }


def _by_class(strange: Mapping[int, str], tally: Tally, score: str, measured: Measured) -> Figures:
    """A score's figures of each unknown class, and its recall at the score's threshold."""
    sums, at = tally.scores[score].strange.of, measured.figures["unknown"].get("threshold")
    found: Figures = {}
    for label, name in strange.items():
        keys = [f"{key}{end}" for key in UNKNOWN_FIGURES for end in ("", "_bounds", "_interval")]
        found[name] = dict.fromkeys(keys) | measured.strange.get(label, {})
        recall = sums[label].recall(at) if label in sums and at is not None else None
        found[name]["recall"] = None if recall is None else number(recall)
        found[name]["recall_bounds"] = None if recall is None else list(recall.bounds)
    return found


def _rows(run: Run, tally: Tally) -> list[dict[str, Any]]:
    """The table of images, each with its file where it has one of its own."""
    files = image_files(run.dataset)
    found = {index: {"file": str(file)} for index, file in enumerate(files) if file is not None}
    return [row | found.get(row["index"], {}) for row in tally.images]


def with_both(tally: Tally) -> int:
    """Images with unknown and known pixels, over which the unknown's per-image figures are."""
    return sum(any("unknown" in s for s in row["scores"].values()) for row in tally.images)


def _notes(
    run: Run, tally: Tally, components: dict[str, ComponentTally], sizes: ComponentSizes
) -> Iterator[str]:
    """What a reader of the figures must know."""
    yield from run.notes
    if run.matching:
        yield from run.matching.notes
    right, wrong, _, unknown = tally.kinds
    if unknown and with_both(tally) < len(tally.images):
        yield (
            f"unknown, per image: means over the {with_both(tally)} of {len(tally.images)} images "
            f"that have both unknown and known pixels."
        )
    for name, found in _counted(_strange_classes(run, tally), tally).items():
        if unknown and not found["pixels"]:
            yield f"unknown.by_class.{name}: no pixel is labelled so, so these figures are null."
    if not unknown:
        yield "unknown: no pixel is labelled unknown, so these figures are null."
    if right + wrong == 0:
        yield "segmentation, calibration, removal, wrong: no pixel has a class, so these are null."
    elif wrong == 0 or right == 0:
        yield "wrong: all pixels are right, or all are wrong, so ranking figures are null."
    if components:
        origin = "the data set's" if run.dataset.component_sizes == sizes else "chosen"
        given = [name for name, found in components.items() if found.mode == "given"]
        oracle = len(given) < len(components)
        at = ["the threshold of the best pixel F1 on these same images"] if oracle else []
        at += [f"the threshold given for {', '.join(given)}"] if given else []
        yield (
            f"Components: {origin} sizes, at least {sizes.predicted} predicted and "
            f"{sizes.labelled} labelled pixels, at {', or at '.join(at)}."
        )
    if run.skipped and run.skipped.reasons:
        reason = next(iter(run.skipped.reasons.values()))
        yield f"{len(run.skipped.reasons)} images could not be used, and were skipped: {reason}"
