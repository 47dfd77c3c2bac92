"""Paired differences, arranged around the best score of each figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from doubtmap.reports.catalogue import best, figure, number, pair
from doubtmap.reports.digits import digits, interval
from doubtmap.reports.interval_chart import interval_chart


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
