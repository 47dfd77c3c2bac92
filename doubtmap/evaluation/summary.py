"""What the figures say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doubtmap.evaluation.catalogue import best, figure, section
from doubtmap.reports.digits import digits, interval, number, pair


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
