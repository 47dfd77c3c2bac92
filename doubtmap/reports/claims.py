"""Scores that claim to be the probability that a pixel is wrong, and whether they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doubtmap.reports.catalogue import number, section
from doubtmap.reports.reliability_chart import reliability_chart
from doubtmap.reports.report_tables import ScoreTable, claim_table

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
