"""The figures of a report as tables of cells: value, interval, and what to say on hover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from doubtmap.reports.catalogue import Figure, best, figure, figures_of, number, pair, section
from doubtmap.reports.colours import class_colours
from doubtmap.reports.digits import MISSING, column, digits, interval
from doubtmap.reports.interval_chart import interval_chart
from doubtmap.reports.reasons import reason


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


@dataclass(frozen=True)
class Difference:
    """One paired difference."""

    figure: Figure
    group: str
    first: str
    second: str
    cell: Cell
    drawing: Markup
    verdict: str


def score_table(figures: Mapping[str, Any], group: str) -> ScoreTable | None:
    """Table of one group, `unknown` or `wrong`; None where no score has a figure."""
    scores = section(figures, "scores")
    parts = {name: section(scores, name, group) for name in scores}
    columns = figures_of(parts.values())
    if not any(number(parts[n].get(c.key)) is not None for n in parts for c in columns):
        return None
    winners = {c.key: best(figures, group, c.key) for c in columns} if len(parts) > 1 else {}
    rows: list[tuple[str, list[Cell]]] = [(name, []) for name in parts]
    for item in columns:
        texts = column([part.get(item.key) for part in parts.values()])
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


def differences(figures: Mapping[str, Any]) -> list[Difference]:
    """Paired differences with their intervals on one scale."""
    rows = [row for row in figures.get("differences") or [] if isinstance(row, Mapping)]
    values = [v for row in rows for v in (number(row.get("difference")), *(_ends(row) or ()))]
    reach = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    return [_difference(row, reach) for row in rows if number(row.get("difference")) is not None]


def _difference(row: Mapping[str, Any], reach: float) -> Difference:
    group, _, key = str(row.get("figure", "")).rpartition(".")
    first, second = [*map(str, row.get("scores") or []), MISSING, MISSING][:2]
    value, ends = float(row["difference"]), _ends(row)
    cell = Cell(_signed(value), interval(ends), repr(value), sort=value)
    higher = figure(key).higher_is_better
    if ends is None or higher is None:
        verdict = ""
    elif ends[0] <= 0 <= ends[1]:
        verdict = "no clear difference"
    else:
        verdict = f"{first if (value > 0) == higher else second} is better"
    drawing = interval_chart(value, ends, reach)
    return Difference(figure(key), group, first, second, cell, drawing, verdict)


def _ends(row: Mapping[str, Any]) -> tuple[float, float] | None:
    return pair(row.get("interval"))


def _signed(value: float) -> str:
    return f"+{digits(value)}" if value > 0 else digits(value)


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
