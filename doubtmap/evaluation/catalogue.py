"""The figures by name: what readers call them, which direction is good, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from doubtmap.reports.digits import digits, interval, number, pair


@dataclass(frozen=True)
class Figure:
    """One figure of `results.json`.

    Args:
        key: its name there.
        title: its name in tables.
        meaning: one sentence for those who do not know it.
        higher_is_better: None where neither direction is good.
    """

    key: str
    title: str
    meaning: str
    higher_is_better: bool | None = True

    @property
    def arrow(self) -> str:
        """An arrow in the good direction."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


_FIGURES = (
    Figure("auprc", "AUPRC", "Area under the precision-recall curve, all pixels pooled."),
    Figure("auroc", "AUROC", "Area under the ROC curve, all pixels pooled."),
    Figure("fpr95", "FPR95", "Share of false alarms when 95 % of the targets are found.", False),
    Figure("recall", "Recall", "Share of the pixels above the score's threshold.", None),
    Figure("siou", "sIoU", "Mean over labelled components of the overlap with predicted ones."),
    Figure("ppv", "PPV", "Mean over predicted components of the share that is labelled."),
    Figure("f1", "F1*", "Component F1, averaged over overlap thresholds."),
    Figure("aurc", "AURC", "Area under the risk-coverage curve.", False),
    Figure("ause", "AUSE", "Area between the sparsification curve and its oracle.", False),
    Figure(
        "ece_normalised",
        "ECE, normalised",
        "ECE of one minus the score, brought to [0, 1] by its least and largest value.",
        False,
    ),
    Figure(
        "p_accurate_certain",
        "p(acc | cert)",
        "Share of certain 4 x 4 patches that are accurate, cut at the median score.",
    ),
    Figure(
        "p_uncertain_inaccurate",
        "p(unc | inacc)",
        "Share of inaccurate 4 x 4 patches that are uncertain, cut at the median score.",
    ),
    Figure("pavpu", "PAvPU", "Share of patches accurate and certain or inaccurate and uncertain."),
    Figure(
        "p_accurate_certain_area",
        "p(acc | cert), area",
        "Area under p(acc | cert) over the percentile of the score taken as threshold.",
    ),
    Figure(
        "p_uncertain_inaccurate_area",
        "p(unc | inacc), area",
        "Area under p(unc | inacc) over the percentile of the score taken as threshold.",
    ),
    Figure(
        "pavpu_area",
        "PAvPU, area",
        "Area under PAvPU over the percentile of the score taken as threshold.",
    ),
    Figure("miou", "mIoU", "Mean over classes of intersection over union, all pixels pooled."),
    Figure("accuracy", "Accuracy", "Share of labelled pixels whose class is right."),
    Figure("ece", "ECE", "Expected calibration error of the confidence, pixels pooled.", False),
    Figure("ece_per_image", "ECE, per image", "Mean over images of each image's ECE.", False),
    Figure("mce", "MCE", "Largest gap of any bin between confidence and accuracy.", False),
    Figure("adaptive_ece", "Adaptive ECE", "ECE over bins that hold equally many pixels.", False),
    Figure("classwise_ece", "Classwise ECE", "Mean over classes of each class's ECE.", False),
    Figure("brier", "Brier", "Mean squared distance of the probabilities to the label.", False),
    Figure("nll", "NLL", "Mean negative log-likelihood of the label, in nats.", False),
    Figure("ks", "KS", "Largest gap between cumulated confidence and accuracy.", False),
    Figure("threshold", "Threshold", "Score above which a pixel is in a component.", None),
    Figure("bins", "Bins", "Number of confidence bins.", None),
)


_BY_KEY = {figure.key: figure for figure in _FIGURES}


_BESIDE = ("_interval", "_bounds")


def figure(key: str) -> Figure:
    """Look a figure up; one that is not catalogued keeps its key as title."""
    if key in _BY_KEY:
        return _BY_KEY[key]
    base = key.removesuffix("_per_image")
    if base != key and base in _BY_KEY:
        known = _BY_KEY[base]
        meaning = "Mean over images of each image's figure."
        return Figure(key, f"{known.title}, per image", meaning, known.higher_is_better)
    return Figure(key, key.replace("_", " "), "", None)


def figures_of(groups: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The figures that any of the groups has, in the catalogue's order, then as they came."""
    keys = dict.fromkeys(key for group in groups for key in group if not key.endswith(_BESIDE))
    order = {key: place for place, key in enumerate(_BY_KEY)}

    def place(key: str) -> tuple[bool, float]:
        return key.endswith("_per_image"), order.get(key.removesuffix("_per_image"), len(order))

    return [figure(key) for key in sorted(keys, key=place)]


def section(figures: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """A part of the results by its path, empty where it is missing or null."""
    value: Any = figures
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def best(figures: Mapping[str, Any], group: str, key: str) -> str | None:
    """Name of the score with the best figure, None where none has it."""
    values = {
        name: number(section(figures, "scores", name, group).get(key))
        for name in section(figures, "scores")
    }
    return best_of(values, figure(key))


def best_of(values: Mapping[str, float | None], of: Figure) -> str | None:
    """Name of the best value of a figure, None where there is none."""
    there = {name: value for name, value in values.items() if value is not None}
    if not there or of.higher_is_better is None:
        return None
    pick = max if of.higher_is_better else min
    return pick(there, key=lambda name: there[name])


def reading(figures: Mapping[str, Any]) -> str:
    """One paragraph: the best score for unknown objects and for mistakes, and how good the labels.

    The best is named with its runner-up where their paired difference is within chance.

    Example:
        >>> reading({"scores": {"margin": {"wrong": {"auprc": 0.5}}}})
        'margin finds wrong pixels best (AUPRC 0.500).'
    """
    sentences = [
        _best_sentence(figures, "unknown", "separates unknown objects best"),
        _best_sentence(figures, "wrong", "finds wrong pixels best"),
        _labels_sentence(figures),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    return text or "No figure could be computed; the notes say why."


def _best_sentence(figures: Mapping[str, Any], group: str, verb: str) -> str:
    for key in ("auprc", "auroc"):
        name = best(figures, group, key)
        if name is not None:
            break
    else:
        return ""
    own = section(figures, "scores", name, group)
    parts = [f"{figure(key).title} {digits(own[key])}{_within(own.get(f'{key}_interval'))}"]
    if number(own.get("fpr95")) is not None:
        parts.append(f"FPR95 {digits(own['fpr95'])}")
    ties = _ties(figures, f"{group}.{key}", name)
    tie = f"; no clear difference from {_listed(ties)}" if ties else ""
    return f"{name} {verb} ({', '.join(parts)}){tie}."


def _listed(names: list[str]) -> str:
    """At most three names, then how many more."""
    shown = names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _within(ends: Any) -> str:
    both = interval(ends)
    return f" [{both}]" if both else ""


def _ties(figures: Mapping[str, Any], path: str, name: str) -> list[str]:
    """Scores whose paired difference to `name` may be none."""
    found = []
    for row in figures.get("differences") or []:
        names = list(row.get("scores") or []) if isinstance(row, Mapping) else []
        ends = pair(row.get("interval")) if names else None
        if len(names) != 2 or row.get("figure") != path or name not in names or ends is None:
            continue
        if ends[0] <= 0 <= ends[1]:
            found.append(str(names[1 - names.index(name)]))
    return found


def _labels_sentence(figures: Mapping[str, Any]) -> str:
    miou = number(section(figures, "segmentation").get("miou"))
    ece = number(section(figures, "calibration").get("ece"))
    off = f"{100 * ece:.1f} points on average (ECE)" if ece is not None else ""
    if miou is not None:
        labels = f"The network reaches mIoU {digits(miou)}"
        return f"{labels}; its confidence misses its accuracy by {off}." if off else f"{labels}."
    return f"Its confidence misses its accuracy by {off}." if off else ""
