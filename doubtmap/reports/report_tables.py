"""The figures of a report as tables of cells: value, interval, and what to say on hover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doubtmap.reports.catalogue import Figure, best, figure, figures_of, number, pair, section
from doubtmap.reports.colours import class_colours
from doubtmap.reports.digits import MISSING, column, digits, interval
from doubtmap.reports.reasons import reason

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
