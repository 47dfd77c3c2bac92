"""The curves of an evaluation as charts with legends that rank the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.evaluation.catalogue import section
from doubtmap.reports.charts import (
    NOTHING,
    ChartLine,
    Plane,
    guide,
    line_chart,
    points_of,
    rounded_up,
    style_class,
)
from doubtmap.reports.digits import column, digits, number


@dataclass(frozen=True)
class LegendEntry:
    """One score in a legend: its line, its name, its figure in this chart."""

    name: str
    value: str
    css: str
    style: int


@dataclass(frozen=True)
class CurveChart:
    """One chart of the report, best score first in its legend."""

    title: str
    caption: str
    figure: str
    drawing: Markup
    legend: list[LegendEntry]


Value = Callable[[str, NDArray[np.float64]], float | None]


def curve_charts(curves: Mapping[str, Any], figures: Mapping[str, Any]) -> list[CurveChart]:
    """All charts for which there are curves.

    Args:
        curves: as in `Results.curves`.
        figures: the content of `results.json`.
    """
    draw = _Drawer(curves, figures)
    charts = [draw.precision_recall(), draw.roc(), draw.risk_coverage(), draw.removal()]
    charts.append(draw.sparsification())
    return [chart for chart in (*charts, *draw.patches()) if chart]


class _Drawer:
    """Knows curves and figures, so that each chart below is a few lines."""

    def __init__(self, curves: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        self.curves = curves
        self.figures = figures
        named = (name for kind in curves if kind != "reliability" for name in section(curves, kind))
        order = dict.fromkeys((*section(figures, "scores"), *named))
        self.styles = {name: place for place, name in enumerate(order)}
        unknown = (section(figures, "scores", n, "unknown").get("auprc") for n in order)
        self.group = "unknown" if any(number(v) is not None for v in unknown) else "wrong"

    def precision_recall(self) -> CurveChart | None:
        plane = Plane("recall", "precision")
        share = self._prevalence()
        ground = (
            Markup("")
            if share is None
            else guide(plane, np.array([[0, share], [1, share]]), f"chance, {digits(share)}")
        )
        return self._chart(
            "precision_recall",
            ("recall", "precision"),
            plane,
            f"Precision and recall, {self._what}",
            f"Of the pixels above a threshold, the share that is {self.group}, against the share "
            f"of {self._what} found. Dashed: chance.",
            "AUPRC",
            self._figure(self.group, "auprc"),
            True,
            ground,
        )

    def roc(self) -> CurveChart | None:
        plane = Plane("false-positive rate", "true-positive rate")
        chance = guide(plane, np.array([[0, 0], [1, 1]]), "chance")
        return self._chart(
            "roc",
            ("fpr", "tpr"),
            plane,
            f"ROC, {self._what}",
            f"Share of {self._what} found against the share of false alarms. Dashed: chance.",
            "AUROC",
            self._figure(self.group, "auroc"),
            True,
            chance,
        )

    def risk_coverage(self) -> CurveChart | None:
        axes = ("coverage", "risk")
        plane = Plane("coverage", "risk", y_range=(0, self._highest("risk_coverage", axes, 1)))
        return self._chart(
            "risk_coverage",
            axes,
            plane,
            "Risk and coverage",
            "Share of wrong pixels among those kept, when the most doubtful are left to somebody "
            "else. Lower is better.",
            "AURC",
            self._figure("wrong", "aurc"),
            False,
        )

    def removal(self) -> CurveChart | None:
        axes = ("removed", "miou")
        every = self._points("removal", axes).values()
        lowest = min((float(points[:, 1].min()) for points in every), default=0.0)
        return self._chart(
            "removal",
            axes,
            Plane("share removed", "mIoU", (0, 0.9), (np.floor(lowest * 10) / 10, 1)),
            "mIoU of what is left",
            "When the most doubtful pixels are removed. The mean is over the classes that are "
            "left: it jumps where a class runs empty, and falls where a few wrong pixels are all "
            "that is left of one. The figure is the curve's mean.",
            "mean",
            lambda name, points: float(points[:, 1].mean()),
            True,
        )

    def sparsification(self) -> CurveChart | None:
        axes = ("removed", "error")
        plane = Plane(
            "share removed", "error left", y_range=(0, self._highest("sparsification", axes, 0))
        )
        rows = section(self.curves, "sparsification")
        oracle = next((points_of(row, "removed", "oracle") for row in rows.values()), None)
        ground = NOTHING if oracle is None or len(oracle) < 2 else guide(plane, oracle, "oracle")
        return self._chart(
            "sparsification",
            axes,
            plane,
            "Sparsification",
            "Brier error of the pixels that stay when the most doubtful are removed, as a share of "
            "the error of all. Dashed: an oracle that removes the largest errors first; the figure "
            "is the area between.",
            "AUSE",
            self._figure("wrong", "ause"),
            False,
            ground,
        )

    def patches(self) -> list[CurveChart | None]:
        kinds = (
            ("p_accurate_certain", "p(accurate | certain)", "Certain patches that are accurate"),
            (
                "p_uncertain_inaccurate",
                "p(uncertain | inaccurate)",
                "Inaccurate patches that are uncertain",
            ),
            ("pavpu", "PAvPU", "Patches accurate and certain, or inaccurate and uncertain"),
        )
        sizes = (("patches", "patches of 4 x 4 pixels"), ("pixels", "single pixels"))
        return [self._patch_chart(*size, *kind) for size in sizes for kind in kinds]

    def _patch_chart(
        self, size: str, what: str, key: str, axis: str, title: str
    ) -> CurveChart | None:
        axes = ("percentile", key)
        every = self._points(size, axes)
        if not every:
            return None
        group = ("wrong",) if size == "patches" else ("wrong", "per_pixel")
        right = 100.0 if max(p[:, 0].max() for p in every.values()) > 1 else 1.0
        lowest = min(p[:, 1].min() for p in every.values())
        bottom = max(0.0, np.floor(lowest * 20) / 20) if lowest > 0.5 else 0.0
        plane = Plane(
            "percentile of the score taken as threshold",
            axis,
            (0, right),
            (bottom if bottom < 1 else 0.95, 1),
        )
        return self._chart(
            size,
            axes,
            plane,
            title if size == "patches" else title.replace("atches", "ixels"),
            f"Over the threshold on the score of {what}. The figure is the area under the curve.",
            "area",
            self._figure(*group, f"{key}_area"),
            True,
        )

    def _chart(
        self,
        kind: str,
        axes: tuple[str, str],
        plane: Plane,
        title: str,
        caption: str,
        figure: str,
        value: Value,
        higher_is_better: bool,
        behind: Markup = NOTHING,
    ) -> CurveChart | None:
        points = self._points(kind, axes)
        if not points:
            return None
        values = {name: value(name, line) for name, line in points.items()}
        sign = -1 if higher_is_better else 1
        ranked = sorted(points, key=lambda n: (values[n] is None, sign * (values[n] or 0.0)))
        texts = dict(zip(ranked, column([values[name] for name in ranked])))
        curves = [
            ChartLine(name, f"{name}: {figure} {texts[name]}", points[name], self.styles[name])
            for name in ranked
        ]
        curves[0] = replace(curves[0], best=values[ranked[0]] is not None)
        legend = [
            LegendEntry(n, texts[n], style_class(self.styles[n]), self.styles[n]) for n in ranked
        ]
        label = f"{title}. Best: {ranked[0]}, {figure} {texts[ranked[0]]}"
        # the best lies on top, the second best under it
        drawn = line_chart(plane, curves[::-1], label, behind)
        return CurveChart(title, caption, figure, drawn, legend)

    def _points(self, kind: str, axes: tuple[str, str]) -> dict[str, NDArray[np.float64]]:
        rows = section(self.curves, kind)
        points = {name: points_of(row, *axes) for name, row in rows.items()}
        return {name: line for name, line in points.items() if len(line) > 1}

    def _highest(self, kind: str, axes: tuple[str, str], full: float) -> float:
        """Upper end of an error axis: room for most, not for the jumps that single pixels make."""
        points = self._points(kind, axes).values()
        whole = [float(p[np.abs(p[:, 0] - full).argmin(), 1]) for p in points]
        most = [float(np.quantile(p[:, 1], 0.95)) for p in points]
        return rounded_up(max((*(1.1 * value for value in whole), *most), default=1.0))

    def _figure(self, *path: str) -> Value:
        scores = section(self.figures, "scores")
        return lambda name, points: number(section(scores, name, *path[:-1]).get(path[-1]))

    def _prevalence(self) -> float | None:
        pixels = section(self.figures, "data", "pixels")
        unknown, known = number(pixels.get("unknown")), number(pixels.get("known"))
        accuracy = number(section(self.figures, "segmentation").get("accuracy"))
        if self.group == "wrong":
            return None if accuracy is None else 1 - accuracy
        return unknown / (unknown + known) if unknown and known else None

    @property
    def _what(self) -> str:
        return f"{self.group} pixels"
