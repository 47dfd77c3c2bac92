"""Each score's figures, curves and intervals from its sums, and what scores differ by.

The view of all pixels of a score is large: it is made once, and let go of before the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from doubtmap.evaluation.tally import (
    BRIER,
    IS_UNKNOWN,
    KNOWN_ONLY,
    RIGHT,
    WRONG,
    ScoreTally,
    Tally,
)
from doubtmap.kernels.counted import curves as curves_of_rows
from doubtmap.metrics import (
    BinaryReliability,
    Histogram,
    Keeping,
    RankingCurve,
    area_under_sparsification_error,
    sparsification,
)
from doubtmap.metrics.accumulator import Array
from doubtmap.metrics.bootstrap import interval
from doubtmap.metrics.histogram import Bins
from doubtmap.metrics.patches import (
    PatchFigures,
    areas_under,
    patch_curve,
    patches_by_region,
    replicated_patches,
)
from doubtmap.metrics.risk import areas_under_risk, normalised_ece

Figures = dict[str, Any]


UNKNOWN_FIGURES = ("auprc", "auroc", "fpr95")


WRONG_FIGURES = ("auprc", "auroc", "fpr95", "aurc")


SHARE = (0.0, 1.0)


PATCH_FIGURES = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")


@dataclass(frozen=True, eq=False)
class Measured:
    """What the sums of one score say.

    Args:
        figures: as in `results.json`, but for the components.
        replicates: `(R,)` of the figures that have intervals, by `KIND.NAME`.
        curves: by chart, thinned to a few hundred points.
        best: the threshold of the best pixel F1 of the unknown; None where that is not defined.
        strange: of several unknown classes the figures of each, by its label.
    """

    figures: Figures
    replicates: dict[str, Array]
    curves: dict[str, Figures]
    best: float | None
    strange: dict[int, Figures]


def measure_scores(tally: Tally) -> dict[str, Measured]:
    """Figures and curves of every score, two scores at a time."""
    tally.images.sort(key=lambda row: int(row["index"]))
    tally.brier.view()
    with ThreadPoolExecutor(2, thread_name_prefix="doubtmap-figures") as pool:
        return dict(zip(tally.scores, pool.map(lambda n: _measure(tally, n), tally.scores)))


COMPARED = ("unknown.auprc", "unknown.fpr95", "wrong.auprc", "wrong.fpr95")
"""Figures of which the results have paired differences between scores."""


def differences_of(measured: dict[str, Measured]) -> list[Figures]:
    """The paired differences of some figures between all pairs of scores."""
    figures = {name: one.figures for name, one in measured.items()}
    replicates = {name: one.replicates for name, one in measured.items()}
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
    return differences


def _measure(tally: Tally, name: str) -> Measured:
    score, bins = tally.scores[name], tally.scores[name].pixels.view()
    score.pixels.forget()
    ranked = {"unknown": unknown_curve(bins), "wrong": wrong_curve(bins)}
    figures = _ranking_figures(ranked, [row["scores"][name] for row in tally.images])
    sparse = _sparsification(score, tally.brier)
    patches = patches_by_region(score.patches.view().counts)
    patches["pixels"] = bins.counts[[WRONG, RIGHT]]
    by_percentile = {part: patch_curve(counts, PERCENTILES) for part, counts in patches.items()}
    wrong = figures["wrong"]
    wrong["aurc"] = number(_keeping(bins, errors=bins.counts[WRONG]).area_under_risk())
    known = (bins.counts[RIGHT], bins.counts[WRONG])
    wrong["ece_normalised"] = number(normalised_ece(bins.lowest, *known))
    wrong["ause"] = number(area_under_sparsification_error(*sparse))
    wrong |= _patch_figures(by_percentile["patches"])
    wrong["per_pixel"] = _patch_figures(by_percentile["pixels"])
    for region in ("inside", "border", *(["with_unknown"] if tally.kinds[-1] else [])):
        wrong[region] = _patch_figures(by_percentile[region])
    wrong |= _claim(score)
    replicates = _add_intervals(figures, score)
    curve = ranked["unknown"] if tally.kinds[-1] else ranked["wrong"]
    curves = _ranking_curves(curve) if curve.defined else {}
    curves["thresholds"] = _operating_points(ranked)
    if tally.reliability is not None:
        curves |= _curves_of_wrong(bins, sparse, by_percentile)
    best = ranked["unknown"].best_f1()[1] if ranked["unknown"].defined else None
    return Measured(figures, replicates, curves, best, _strange(score, bins))


def _strange(score: ScoreTally, bins: Bins) -> dict[int, Figures]:
    """Of several unknown classes each one against the known pixels, the others left out."""
    found: dict[int, Figures] = {}
    for label, sums in sorted(score.strange.of.items()):
        known = bins.counts[: KNOWN_ONLY + 1].sum(0)
        found[label] = _figures_of_curve(sums.curve(bins, score.pixels.level, known))
        negatives = score.replicates.view().counts[:, : KNOWN_ONLY + 1].sum(1)
        drawn = curves_of_rows(sums.drawn(score.replicates), negatives)
        for at, name in enumerate(UNKNOWN_FIGURES):
            found[label][f"{name}_interval"] = interval(found[label][name], drawn[:, at], SHARE)
    return found


def _figures_of_curve(curve: RankingCurve) -> Figures:
    """The figures of `UNKNOWN_FIGURES` with their bounds."""
    figures: Figures = {}
    exact = (curve.average_precision(), curve.auroc(), curve.fpr_at_tpr())
    for name, figure in zip(UNKNOWN_FIGURES, exact):
        figures[name] = number(figure)
        figures[f"{name}_bounds"] = list(figure.bounds) if curve.defined else None
    return figures


def _ranking_figures(ranked: dict[str, RankingCurve], rows: list[dict[str, Any]]) -> Figures:
    figures: Figures = {"unknown": {}, "wrong": {}}
    for kind, curve in ranked.items():
        figures[kind] = _figures_of_curve(curve)
        for name in UNKNOWN_FIGURES:
            per_image = mean_of([row.get(kind, {}).get(name) for row in rows])
            figures[kind][f"{name}_per_image"] = per_image
    return figures


def _add_intervals(figures: Figures, score: ScoreTally) -> dict[str, Array]:
    """Give the figures their intervals; returns the replicates that scores are compared by."""
    drawn = replicated_patches(score.patch_replicates.view().counts)
    for at, name in enumerate(PATCH_FIGURES):
        figures["wrong"][f"{name}_interval"] = interval(figures["wrong"][name], drawn[:, at], SHARE)
    drawn = _headline(score.replicates.view().counts)
    names = [f"unknown.{n}" for n in UNKNOWN_FIGURES] + [f"wrong.{n}" for n in WRONG_FIGURES]
    for at, name in enumerate(names):
        kind, key = name.split(".")
        value = figures[kind][key]
        figures[kind][f"{key}_interval"] = interval(value, drawn[:, at], SHARE)
    return dict(zip(names, drawn.T))


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


PERCENTILES = np.arange(101.0)

REMOVED = np.arange(10) / 10
"""Shares of the most doubtful pixels without which mIoU and risk are given."""


def removal_figures(score: ScoreTally, labelled: list[int]) -> Figures:
    """What is left of mIoU and risk without the most doubtful pixels; None without labels.

    Args:
        score: its sums.
        labelled: the classes over which mIoU is taken.
    """
    miou, risk, classes = score.removal.remaining(REMOVED, labelled)
    found = {"miou": [number(each) for each in miou], "risk": [number(each) for each in risk]}
    return {"removed": REMOVED.tolist(), **found, "classes": classes.tolist()}


def predicted_figures(score: ScoreTally, names: Sequence[str]) -> Figures:
    """The mean score of the pixels that are taken for each class, and the mean over classes."""
    sums = next(score.by_predicted.each())
    means = {
        name: float(total / pixels) if pixels else None
        for name, pixels, total in zip(names, sums["pixels"], sums["sum"])
    }
    return {"mean": means, "mean_of_classes": mean_of([*means.values()])}


def unknown_curve(bins: Bins) -> RankingCurve:
    """Unknown pixels against all known ones."""
    known = bins.counts[RIGHT] + bins.counts[WRONG] + bins.counts[KNOWN_ONLY]
    return RankingCurve.from_bins(bins, bins.counts[IS_UNKNOWN], known)


def wrong_curve(bins: Bins) -> RankingCurve:
    """Wrong pixels against right ones, unknown ones left out."""
    return RankingCurve.from_bins(bins, bins.counts[WRONG], bins.counts[RIGHT])


def _patch_figures(by_percentile: list[PatchFigures]) -> Figures:
    """The patch figures at the median, and the areas under their curves."""
    middle = by_percentile[50]
    areas = asdict(areas_under(by_percentile))
    figures = {name: getattr(middle, name) for name in PATCH_FIGURES} | areas
    return {name: number(value) for name, value in figures.items()}


def _keeping(bins: Bins, errors: Array) -> Keeping:
    return Keeping(bins.counts[RIGHT] + bins.counts[WRONG], errors)


def _sparsification(score: ScoreTally, brier: Histogram) -> tuple[Array, Array, Array]:
    """Of the Brier score, against the order by the Brier score itself."""
    bins, oracle = score.errors.view(), brier.view()
    return sparsification(
        _keeping(bins, errors=bins.counts[BRIER]), Keeping(oracle.counts[0], oracle.counts[1])
    )


def curves_of(tally: Tally, measured: dict[str, Measured]) -> Figures:
    """Curves for the report, thinned to a few hundred points."""
    kinds = ["precision_recall", "roc", "thresholds"]
    result: Figures = {}
    if tally.confusion is not None:
        result["confusion"] = tally.confusion.counts.tolist()
    if tally.reliability is not None:
        result["reliability"] = _diagram(*tally.reliability.sums.diagram())
        result["wrong_reliability"] = {
            name: _diagram(*score.claim.diagram())
            for name, score in tally.scores.items()
            if score.claim is not None
        }
        kinds += ["risk_coverage", "sparsification", "patches", "pixels"]
    return {kind: {} for kind in kinds[:3]} | result | _by_kind(kinds, measured.items())


def _by_kind(kinds: list[str], measured: Iterable[tuple[str, Measured]]) -> Figures:
    found = [(name, one.curves) for name, one in measured]
    return {k: {name: own[k] for name, own in found if k in own} for k in kinds}


def _ranking_curves(curve: RankingCurve) -> dict[str, Figures]:
    recall, precision = curve.precision_recall()
    fpr, tpr = curve.roc()
    return {
        "precision_recall": _lists(recall=recall, precision=precision),
        "roc": _lists(fpr=fpr, tpr=tpr),
    }


def _operating_points(ranked: dict[str, RankingCurve]) -> Figures:
    """Of the unknown and of the wrong, where there are such, what each threshold would find."""
    return {
        kind: _lists(**dict(zip(("threshold", "recall", "precision"), curve.operating_points(200))))
        for kind, curve in ranked.items()
        if curve.defined
    }


def _curves_of_wrong(
    bins: Bins,
    sparse: tuple[Array, Array, Array],
    by_percentile: dict[str, list[PatchFigures]],
) -> dict[str, Figures]:
    removed, error, oracle = sparse
    curves = {"risk_coverage": _risk_coverage(bins)}
    if np.isfinite(error).all():
        curves["sparsification"] = _lists(removed=removed, error=error, oracle=oracle)
    return curves | {size: _patch_curve(by_percentile[size]) for size in ("patches", "pixels")}


def _diagram(confidence: Array, accuracy: Array, share: Array) -> Figures:
    columns = {"confidence": confidence, "accuracy": accuracy}
    found = {name: [number(value) for value in values] for name, values in columns.items()}
    return found | {"share": share.tolist()}


def _risk_coverage(bins: Bins) -> Figures:
    coverage = np.arange(1, 101) / 100
    return _lists(coverage=coverage, risk=_keeping(bins, errors=bins.counts[WRONG]).risk(coverage))


def _patch_curve(by_percentile: list[PatchFigures]) -> Figures:
    percentiles = range(5, 100, 5)
    found = [by_percentile[percentile] for percentile in percentiles]
    columns = {name: [number(getattr(f, name)) for f in found] for name in PATCH_FIGURES}
    return {"percentile": list(percentiles)} | columns


def _lists(**arrays: Array) -> Figures:
    return {name: [float(f"{value:.5g}") for value in array] for name, array in arrays.items()}


def number(value: float) -> float | None:
    """A plain float, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def mean_of(values: list[float | None]) -> float | None:
    """Mean over the images that define a figure."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
