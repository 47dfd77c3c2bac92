"""From sums to figures, curves, intervals and what a reader must know of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from doubtmap.datasets.dataset import ComponentSizes
from doubtmap.datasets.fingerprints import about_files
from doubtmap.engine.run import Run
from doubtmap.evaluation.components import ComponentTally
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.tally import (
    BRIER,
    RIGHT,
    WRONG,
    ScoreTally,
    Tally,
    unknown_curve,
    wrong_curve,
)
from doubtmap.kernels.counted import curves as curves_of_rows
from doubtmap.metrics import (
    BinaryReliability,
    Components,
    Confusion,
    Histogram,
    Keeping,
    area_under_sparsification_error,
    sparsification,
)
from doubtmap.metrics.accumulator import Array, State
from doubtmap.metrics.bootstrap import BootstrapSums, interval
from doubtmap.metrics.histogram import Bins
from doubtmap.metrics.patches import (
    PatchAreas,
    patch_areas,
    patch_curve,
    patch_figures,
    replicated_patches,
)
from doubtmap.metrics.reliability import ReliabilitySums
from doubtmap.metrics.risk import areas_under_risk
from doubtmap.version import __version__

Figures = dict[str, Any]


UNKNOWN_FIGURES = ("auprc", "auroc", "fpr95")


WRONG_FIGURES = ("auprc", "auroc", "fpr95", "aurc")


SHARE = (0.0, 1.0)


LIMITS = {"brier": (0.0, 2.0), "nll": (0.0, np.inf)}


PATCH_FIGURES = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")


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
    names = class_names or tuple(str(index) for index in range(len(confusion.counts)))
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


COMPARED = ("unknown.auprc", "unknown.fpr95", "wrong.auprc", "wrong.fpr95")
"""Figures of which the results have paired differences between scores."""


def score_figures(tally: Tally) -> tuple[dict[str, Figures], list[Figures]]:
    """Every score's figures, and the paired differences of some between all pairs of scores."""
    figures: dict[str, Figures] = {}
    replicates: dict[str, dict[str, Array]] = {}
    tally.brier.view()
    with ThreadPoolExecutor(2, thread_name_prefix="doubtmap-figures") as pool:
        rows = {name: [row["scores"][name] for row in tally.images] for name in tally.scores}
        made = {
            name: pool.submit(_one_score, score, tally.brier, rows[name])
            for name, score in tally.scores.items()
        }
        for name, one in made.items():
            figures[name], replicates[name] = one.result()
    differences = []
    for figure in COMPARED:
        kind, key = figure.split(".")
        for a, b in itertools.combinations(figures, 2):
            if figures[a][kind][key] is None or figures[b][kind][key] is None:
                continue
            difference = figures[a][kind][key] - figures[b][kind][key]
            differences.append(
                {
                    "figure": figure,
                    "scores": [a, b],
                    "difference": difference,
                    "interval": interval(
                        difference,
                        replicates[a][figure] - replicates[b][figure],
                    ),
                }
            )
    return figures, differences


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


def _one_score(
    score: ScoreTally, brier: Histogram, rows: list[dict[str, Any]]
) -> tuple[Figures, dict[str, Array]]:
    bins = score.pixels.view()
    figures: Figures = {"unknown": {}, "wrong": {}}
    for kind, curve in (("unknown", unknown_curve(bins)), ("wrong", wrong_curve(bins))):
        exact = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr())
        for name, figure in zip(UNKNOWN_FIGURES, exact):
            figures[kind][name] = number(figure)
            figures[kind][f"{name}_bounds"] = list(figure.bounds) if curve.defined else None
            per_image = mean_of([row.get(kind, {}).get(name) for row in rows])
            figures[kind][f"{name}_per_image"] = per_image
    figures["wrong"]["aurc"] = number(_keeping(bins, errors=bins.counts[WRONG]).area_under_risk())
    sparse = _sparsification(score, brier)
    figures["wrong"]["ause"] = number(area_under_sparsification_error(*sparse))
    patches = score.patches.at_percentile(50)
    figures["wrong"] |= {name: number(getattr(patches, name)) for name in PATCH_FIGURES}
    figures["wrong"] |= _areas(score.patches.areas())
    figures["wrong"]["per_pixel"] = _per_pixel(bins)
    figures["wrong"] |= _claim(score)
    drawn = replicated_patches(score.patch_replicates.view().counts)
    for at, name in enumerate(PATCH_FIGURES):
        figures["wrong"][f"{name}_interval"] = interval(figures["wrong"][name], drawn[:, at], SHARE)
    drawn = _headline(score.replicates.view().counts)
    names = [f"unknown.{n}" for n in UNKNOWN_FIGURES] + [f"wrong.{n}" for n in WRONG_FIGURES]
    for at, name in enumerate(names):
        kind, key = name.split(".")
        value = figures[kind][key]
        figures[kind][f"{key}_interval"] = interval(value, drawn[:, at], SHARE)
    score.pixels.forget()
    return figures, dict(zip(names, drawn.T))


def _claim(score: ScoreTally) -> Figures:
    """How far a score is the probability of wrong that it claims to be; empty if it claims none."""
    figures: Figures = {}
    for name in ("ece", "brier") if score.claim is not None else ():
        figures[name] = number(getattr(score.claim, name))
        values = score.claim_replicates.figures(
            lambda state, name=name: getattr(BinaryReliability(**state), name)  # type: ignore[misc]
        )
        figures[f"{name}_interval"] = interval(figures[name], values, SHARE)
    return figures


def _headline(counts: Array) -> Array:
    """`(R, 7)`: the figures that get intervals, in the order of the names above.

    Args:
        counts: `(R, kinds, n)` of the replicates.
    """
    right, wrong, known_only, unknown = (counts[:, kind] for kind in range(4))
    pixels = right + wrong
    return np.concatenate(
        [
            curves_of_rows(unknown, pixels + known_only),
            curves_of_rows(wrong, right),
            areas_under_risk(pixels, wrong)[:, None],
        ],
        axis=1,
    )


def _per_pixel(bins: Bins) -> Figures:
    """The patch figures with patches of one pixel, straight from the histogram of pixels."""
    counts = bins.counts[[WRONG, RIGHT]]
    found = patch_figures(counts, 50)
    figures = {name: number(getattr(found, name)) for name in PATCH_FIGURES}
    return figures | _areas(patch_areas(counts))


def _areas(areas: PatchAreas) -> Figures:
    return {name: number(value) for name, value in asdict(areas).items()}


def _keeping(bins: Bins, errors: Array) -> Keeping:
    return Keeping(bins.counts[RIGHT] + bins.counts[WRONG], errors)


def _sparsification(score: ScoreTally, brier: Histogram) -> tuple[Array, Array, Array]:
    """Of the Brier score, against the order by the Brier score itself."""
    bins, oracle = score.errors.view(), brier.view()
    return sparsification(
        _keeping(bins, errors=bins.counts[BRIER]), Keeping(oracle.counts[0], oracle.counts[1])
    )


def curves(tally: Tally) -> Figures:
    """Curves for the report, thinned to a few hundred points."""
    has_unknown = bool(tally.kinds[-1])
    result: Figures = {"precision_recall": {}, "roc": {}}
    if tally.reliability is not None:
        result["reliability"] = _diagram(*tally.reliability.sums.diagram())
        result["wrong_reliability"] = {
            name: _diagram(*score.claim.diagram())
            for name, score in tally.scores.items()
            if score.claim is not None
        }
        result |= {"risk_coverage": {}, "sparsification": {}, "patches": {}, "pixels": {}}
    for name, score in tally.scores.items():
        bins = score.pixels.view()
        curve = unknown_curve(bins) if has_unknown else wrong_curve(bins)
        if curve.defined:
            recall, precision = curve.precision_recall()
            fpr, tpr = curve.roc()
            result["precision_recall"][name] = _lists(recall=recall, precision=precision)
            result["roc"][name] = _lists(fpr=fpr, tpr=tpr)
        if tally.reliability is not None:
            result["risk_coverage"][name] = _risk_coverage(bins)
            removed, error, oracle = _sparsification(score, tally.brier)
            if np.isfinite(error).all():
                result["sparsification"][name] = _lists(removed=removed, error=error, oracle=oracle)
            result["patches"][name] = _patch_curve(score.patches.histogram.view().counts)
            result["pixels"][name] = _patch_curve(bins.counts[[WRONG, RIGHT]])
        score.pixels.forget()
    return result


def _diagram(confidence: Array, accuracy: Array, share: Array) -> Figures:
    columns = {"confidence": confidence, "accuracy": accuracy}
    found = {name: [number(value) for value in values] for name, values in columns.items()}
    return found | {"share": share.tolist()}


def _risk_coverage(bins: Bins) -> Figures:
    coverage = np.arange(1, 101) / 100
    return _lists(coverage=coverage, risk=_keeping(bins, errors=bins.counts[WRONG]).risk(coverage))


def _patch_curve(counts: Array) -> Figures:
    percentiles = np.arange(5, 100, 5)
    found = patch_curve(counts, percentiles)
    columns = {name: [number(getattr(f, name)) for f in found] for name in PATCH_FIGURES}
    return {"percentile": percentiles.tolist()} | columns


def _reliability(state: State) -> ReliabilitySums:
    return ReliabilitySums(state["confidence"], state["classwise"], state["losses"])


def _lists(**arrays: Array) -> Figures:
    return {name: [float(f"{value:.5g}") for value in array] for name, array in arrays.items()}


def number(value: float) -> float | None:
    """A plain float, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def mean_of(values: list[float | None]) -> float | None:
    """Mean over the images that define a figure."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def summarise(
    run: Run, tally: Tally, components: dict[str, ComponentTally], sizes: ComponentSizes
) -> Results:
    """Figures and curves from the sums."""
    names = run.segmenter.class_names
    tally.images.sort(key=lambda row: int(row["index"]))
    scores, differences = score_figures(tally)
    for name, figures in scores.items():
        blank: dict[str, Any] = dict.fromkeys(("siou", "ppv", "f1"))
        if name in components:
            found = components[name]
            blank = component_figures(found.components, found.replicates)
            blank |= {"threshold": found.threshold, "threshold_mode": found.mode}
        figures["unknown"] |= blank
    if run.matching is None:  # a resumed run that had seen all images
        run.predict(run.dataset[tally.images[0]["index"]])
    labelled = sorted({c for c in run.matching.targets if c >= 0} if run.matching else set())
    right, wrong, known_only, unknown = (int(count) for count in tally.kinds)
    known = right + wrong + known_only
    figures = {
        "doubtmap": __version__,
        "command": "",
        "seed": 0,
        "model": run.segmenter.description,
        "data": {
            "name": run.dataset.name,
            "images": len(tally.images),
            "images_with_both": with_both(tally),
            "pixels": {"known": known, "unknown": unknown, "void": tally.void},
            **about_files(run.dataset),
        },
        "segmentation": segmentation_figures(tally, names, labelled),
        "calibration": calibration_figures(tally),
        "scores": scores,
        "differences": differences,
        "images": tally.images,
        "seconds": {},
        "notes": list(_notes(run, tally, components, sizes)),
    }
    if run.skipped:
        figures["data"]["skipped"] = run.skipped.reasons
    return Results(figures, curves(tally), names, [])


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
    if not unknown:
        yield "unknown: no pixel is labelled unknown, so these figures are null."
    if right + wrong == 0:
        yield "segmentation, calibration, wrong: no pixel has a class, so these figures are null."
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
