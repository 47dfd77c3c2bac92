"""The figures of a report as tables of cells: value, interval, and what to say on hover.

A figure that is missing says why, as the notes have it. Paired differences are arranged around the
best score of each figure, and scores that claim to be the probability that a pixel is wrong are
held to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.evaluation.catalogue import Figure, best, best_of, figure, figures_of, section
from doubtmap.reports.charts import interval_chart, reliability_chart
from doubtmap.reports.colours import class_colours
from doubtmap.reports.digits import MISSING, column, digits, interval, number, pair


def reason(notes: Sequence[str], *path: str) -> str:
    """The note that speaks of a figure, the most exact one first.

    Args:
        notes: the notes of the results.
        path: where the figure stands, such as `"scores", "entropy", "unknown", "siou"`.

    Example:
        >>> reason(["unknown: no unknown pixel in the data"], "scores", "entropy", "unknown", "f1")
        'unknown: no unknown pixel in the data'
    """
    exact = [".".join(path[start:]) for start in range(len(path))]
    parents = [
        ".".join(path[start:stop]) for stop in range(len(path) - 1, 0, -1) for start in range(stop)
    ]
    for name in (*exact, *parents):
        if name == "scores":
            continue
        for note in notes:
            if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.(])", note):
                return note
    return "not computed"


CLAIM = ("ece", "brier")
"""Of the group `wrong`: only scores that claim to be a probability have them."""


@dataclass(frozen=True)
class Cell:
    """One figure in a table."""

    text: str
    interval: str = ""
    title: str = ""
    best: bool = False
    missing: bool = False
    sort: float | None = None


@dataclass(frozen=True)
class ScoreTable:
    """Scores x figures of one group."""

    columns: list[Figure]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class ClassBar:
    """One class with its IoU."""

    name: str
    cell: Cell
    percent: float
    colour: str


def score_tables(figures: Mapping[str, Any], group: str) -> list[ScoreTable]:
    """Tables of one group, `unknown` or `wrong`: the pooled figures, then all others.

    Without the figures of `claim_table`.
    """
    parts = section(figures, "scores").values()
    columns = figures_of(
        {key: value for key, value in section(part, group).items() if not isinstance(value, dict)}
        for part in parts
    )
    aside = ("_per_image", "_area")
    apart = CLAIM if group == "wrong" else ()
    columns = [item for item in columns if item.key not in apart]
    main = [item for item in columns if item.arrow and not item.key.endswith(aside)]
    others = [item for item in columns if item not in main]
    tables = (_score_table(figures, group, items) for items in (main, others))
    return [table for table in tables if table]


def claim_table(figures: Mapping[str, Any]) -> ScoreTable | None:
    """The scores that claim to be the probability of wrong, None where none has a figure."""
    scores = section(figures, "scores")
    claiming = {n: s for n, s in scores.items() if {*CLAIM} & {*section(scores, n, "wrong")}}
    return _score_table({**figures, "scores": claiming}, "wrong", [figure(key) for key in CLAIM])


CLASS_FIGURES = ("auprc", "auroc", "fpr95", "recall")


@dataclass(frozen=True)
class ClassTable:
    """Unknown classes x scores x figures: a row for each class and score."""

    columns: list[Figure]
    rows: list[ClassRow]


@dataclass(frozen=True)
class ClassRow:
    """A score on one unknown class, with the class's pixels and images."""

    name: str
    score: str
    pixels: int
    images: int
    cells: list[Cell]


def class_table(figures: Mapping[str, Any]) -> ClassTable | None:
    """The figures of each of several unknown classes; None where there are not several.

    The best score of each class is marked.
    """
    counts, scores = section(figures, "data", "unknown_classes"), section(figures, "scores")
    columns = [figure(key) for key in CLASS_FIGURES]
    rows = []
    for name in counts:
        place = "unknown", "by_class", name
        found = {score: section(scores, score, *place) for score in scores}
        texts = [column([own.get(c.key) for own in found.values()]) for c in columns]
        for at, (score, own) in enumerate(found.items()):
            cells = []
            for item, text in zip(columns, texts):
                lead = len(found) > 1 and score == best_of(
                    {s: number(f.get(item.key)) for s, f in found.items()}, item
                )
                cells.append(_cell(figures, own, (*place, item.key), text[at], lead))
            count = section(counts, name)
            rows.append(ClassRow(name, score, count["pixels"], count["images"], cells))
    return ClassTable(columns, rows) if rows else None


def _score_table(
    figures: Mapping[str, Any], group: str, columns: list[Figure]
) -> ScoreTable | None:
    """None where no score has a figure."""
    scores = section(figures, "scores")
    parts = {name: section(scores, name, group) for name in scores}
    if not any(number(parts[n].get(c.key)) is not None for n in parts for c in columns):
        return None
    winners = {c.key: best(figures, group, c.key) for c in columns} if len(parts) > 1 else {}
    rows: list[tuple[str, list[Cell]]] = [(name, []) for name in parts]
    for item in columns:
        values = [part.get(item.key) for part in parts.values()]
        # without a direction the values need not be of one kind, such as thresholds
        texts = column(values) if item.arrow else [digits(value) for value in values]
        for (name, cells), text in zip(rows, texts):
            path = ("scores", name, group, item.key)
            cells.append(_cell(figures, parts[name], path, text, winners.get(item.key) == name))
    return ScoreTable(columns, rows)


def figure_list(figures: Mapping[str, Any], group: str) -> list[tuple[Figure, Cell]]:
    """The plain figures of `segmentation` or `calibration`."""
    part = section(figures, group)
    return [
        (item, _cell(figures, part, (group, item.key), digits(part.get(item.key))))
        for item in figures_of([part])
        if not isinstance(part.get(item.key), Mapping) and item.key != "bins"
    ]


@dataclass(frozen=True)
class MeanTable:
    """Classes x scores: the mean of each score over the pixels that are taken for a class."""

    scores: list[str]
    rows: list[tuple[str, list[Cell]]]
    against: list[str]


def mean_table(figures: Mapping[str, Any]) -> MeanTable | None:
    """The means by predicted class, with their mean and what they were held against, if they were.

    None where no score has any.
    """
    found = {name: section(own, PREDICTED) for name, own in section(figures, "scores").items()}
    found = {name: own for name, own in found.items() if own}
    if not found:
        return None
    lists = {
        name: [*section(own, "mean").values(), own.get("mean_of_classes")]
        for name, own in found.items()
    }
    texts = {name: column(values) for name, values in lists.items()}
    classes = [*section(next(iter(found.values())), "mean"), "mean of classes"]
    rows = [
        (of, [_mean_cell(lists[name][at], texts[name][at]) for name in found])
        for at, of in enumerate(classes)
    ]
    against = [
        f"{name} is off by {digits(own['error'])} in the mean over classes from {own['against']}."
        for name, own in found.items()
        if number(own.get("error")) is not None
    ]
    return MeanTable([*found], rows, against)


PREDICTED = "by_predicted_class"
"""Of a score's figures, those by predicted class."""


def _mean_cell(value: Any, text: str) -> Cell:
    if number(value) is None:
        return Cell(MISSING, title="no pixel is taken for it", missing=True)
    return Cell(text, title=f"{value:.8g}", sort=value)


def class_bars(figures: Mapping[str, Any], class_names: tuple[str, ...]) -> list[ClassBar]:
    """Per-class IoU in the colours of the examples."""
    iou = section(figures, "segmentation", "iou")
    names = class_names or tuple(iou)
    colours = class_colours(len(names), names)
    by_name = {name: "#" + bytes(colour).hex() for name, colour in zip(names, colours)}
    return [
        ClassBar(
            name,
            _cell(figures, iou, ("segmentation", "iou", name), text),
            100 * min(1.0, max(0.0, number(iou[name]) or 0.0)),
            by_name.get(name, "#888888"),
        )
        for name, text in zip(iou, column(list(iou.values())))
    ]


def _cell(
    figures: Mapping[str, Any],
    part: Mapping[str, Any],
    path: tuple[str, ...],
    text: str,
    best: bool = False,
) -> Cell:
    value = number(part.get(path[-1]))
    if value is None:
        notes = [str(note) for note in figures.get("notes") or []]
        return Cell(MISSING, title=reason(notes, *path), missing=True)
    title = f"{value:.8g}"
    bounds = pair(part.get(f"{path[-1]}_bounds"))
    if bounds:
        title += f"; exact value within [{bounds[0]:.8g}, {bounds[1]:.8g}]"
    within = interval(part.get(f"{path[-1]}_interval"))
    if within:
        title += f"; interval {within}"
    return Cell(text, within, title, best, sort=value)


@dataclass(frozen=True)
class Difference:
    """One paired difference, first minus second."""

    first: str
    second: str
    value: float
    ends: tuple[float, float] | None

    def turned(self) -> Difference:
        """The same, second minus first."""
        ends = (-self.ends[1], -self.ends[0]) if self.ends else None
        return Difference(self.second, self.first, -self.value, ends)


@dataclass(frozen=True)
class DifferenceRow:
    """One paired difference as the report shows it."""

    difference: Difference
    text: str
    interval: str
    drawing: Markup
    verdict: str


@dataclass(frozen=True)
class DifferenceTable:
    """All pairs of one figure: those with the best score, and the others."""

    title: str
    meaning: str
    leading: list[DifferenceRow]
    others: list[DifferenceRow]


def difference_tables(figures: Mapping[str, Any]) -> list[DifferenceTable]:
    """A table for each figure that has paired differences."""
    rows: dict[str, list[Difference]] = {}
    for row in figures.get("differences") or []:
        difference = _difference(row)
        if difference:
            rows.setdefault(str(row.get("figure", "")), []).append(difference)
    return [_table(figures, path, pairs) for path, pairs in rows.items()]


def _table(figures: Mapping[str, Any], path: str, pairs: list[Difference]) -> DifferenceTable:
    group, _, key = path.rpartition(".")
    leader = best(figures, group, key)
    leading = [d.turned() if d.second == leader else d for d in pairs if _of(d, leader)]
    others = [d for d in pairs if not _of(d, leader)]
    ends = [abs(end) for d in pairs for end in (d.value, *(d.ends or ()))]
    higher, reach = figure(key).higher_is_better, max(ends) or 1.0
    shown = [[_row(d, higher, reach) for d in some] for some in (leading, others)]
    # without a best score there is nothing to arrange around
    leading_rows, other_rows = shown if leading else shown[::-1]
    return DifferenceTable(
        f"{figure(key).title}, {group}" if group else figure(key).title,
        figure(key).meaning,
        leading_rows,
        other_rows,
    )


def _of(difference: Difference, name: str | None) -> bool:
    return name in (difference.first, difference.second)


def _difference(row: Any) -> Difference | None:
    value = number(row.get("difference")) if isinstance(row, Mapping) else None
    names = row.get("scores") if value is not None else None
    if value is None or not isinstance(names, list | tuple) or len(names) != 2:
        return None
    return Difference(str(names[0]), str(names[1]), value, pair(row.get("interval")))


def _row(d: Difference, higher_is_better: bool | None, reach: float) -> DifferenceRow:
    sign = "+" if d.value > 0 else ""
    return DifferenceRow(
        d,
        sign + digits(d.value),
        interval(d.ends),
        interval_chart(d.value, d.ends, reach),
        _verdict(d, higher_is_better),
    )


def _verdict(d: Difference, higher_is_better: bool | None) -> str:
    if d.ends is None or higher_is_better is None:
        return ""
    if d.ends[0] <= 0 <= d.ends[1]:
        return "no clear difference"
    return f"{d.first if (d.value > 0) == higher_is_better else d.second} is better"


ALIKE = 1e-3
"""Bins of two diagrams that differ by less look the same."""


@dataclass(frozen=True)
class Claims:
    """Their part of the report.

    Args:
        table: ECE and Brier score of each.
        diagrams: name and drawing of those whose diagram is not that of the confidence.
        above: names of those whose diagram is.
    """

    table: ScoreTable
    diagrams: list[tuple[str, Markup]]
    above: list[str]


def claims(figures: Mapping[str, Any], curves: Mapping[str, Any]) -> Claims | None:
    """The part of the report, None where no score has such a figure."""
    table = claim_table(figures)
    if table is None:
        return None
    every = section(curves, "wrong_reliability")
    above = [name for name in every if _alike(every[name], curves.get("reliability"))]
    drawn = {name: reliability_chart(every[name]) for name in every if name not in above}
    return Claims(table, [(name, chart) for name, chart in drawn.items() if chart], above)


def _alike(one: Any, other: Any) -> bool:
    """Whether two diagrams look the same."""
    a, b = _columns(one), _columns(other)
    return a.shape == b.shape and a.size > 0 and np.allclose(a, b, atol=ALIKE, equal_nan=True)


def _columns(diagram: Any) -> NDArray[np.float64]:
    """`(2, M)`, confidence and accuracy, NaN where a bin is empty; empty for no diagram."""
    there = diagram if isinstance(diagram, Mapping) else {}
    columns = [there.get(key) for key in ("confidence", "accuracy")]
    lists = [[] if c is None else [number(value) for value in c] for c in columns]
    if len({*map(len, lists)}) != 1:
        return np.empty(0)
    return np.array(lists, np.float64)
