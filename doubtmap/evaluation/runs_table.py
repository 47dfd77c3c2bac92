"""One table of the scores of several runs: for papers, pages, spreadsheets and the terminal."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doubtmap.errors import UsageError
from doubtmap.evaluation.catalogue import figure, section
from doubtmap.evaluation.table import HEADLINE
from doubtmap.files import cell
from doubtmap.reports.digits import MISSING, column, interval, number

STYLES = ("markdown", "latex", "html", "csv")
GROUPS = ("unknown", "wrong", "segmentation", "calibration")


@dataclass(frozen=True)
class _Column:
    """A figure of every row, and the row that has the best."""

    group: str
    key: str
    values: list[float | None]
    intervals: list[str]

    @property
    def heading(self) -> str:
        return f"{self.group} {figure(self.key).title}"

    @property
    def best(self) -> set[int]:
        """Rows with the best value, where there are others to compare with."""
        better = figure(self.key).higher_is_better
        there = [value for value in self.values if value is not None]
        if better is None or len(there) < 2:
            return set()
        top = max(there) if better else min(there)
        return {row for row, value in enumerate(self.values) if value == top}


def runs_table(
    runs: Mapping[str, Mapping[str, Any]], style: str = "markdown", figures: Sequence[str] = ()
) -> str:
    """The scores of runs and their figures, with intervals, the best of each column in bold.

    Args:
        runs: contents of `results.json` by the names of the runs.
        style: `markdown`, `latex` (of the package booktabs), `html` or `csv`, which has all
            digits, no intervals and nothing in bold.
        figures: such as `unknown.auprc` or `segmentation.miou`, which all scores of a run share;
            default: the headline figures that any run has.

    Raises:
        UsageError: for another style, or a figure that no run has.
    """
    if style not in STYLES:
        raise UsageError(f"table: expected a style of {', '.join(STYLES)}, got {style!r}.")
    names = [(run, score) for run, found in runs.items() for score in section(found, "scores")]
    asked = [_path(name) for name in figures] or list(HEADLINE)
    columns = [_column(runs, names, *path) for path in asked]
    there = [each for each in columns if any(value is not None for value in each.values)]
    if figures and len(there) < len(columns):
        lost = next(each for each in columns if each not in there)
        raise UsageError(
            f"table: expected a figure that a run has, such as wrong.auprc, got "
            f"{lost.group}.{lost.key}."
        )
    if style == "csv":
        return _csv(names, there)
    head = [*(["run"] if len(runs) > 1 else []), "score"]
    first = [[*([run] if len(runs) > 1 else []), score] for run, score in names]
    return {"markdown": _markdown, "latex": _latex, "html": _html}[style](head, first, there)


def _path(name: str) -> tuple[str, str]:
    group, _, key = name.partition(".")
    if group not in GROUPS or not key:
        raise UsageError(
            f"table: expected figures such as unknown.auprc, of {', '.join(GROUPS)}, got {name!r}."
        )
    return group, key


def _column(
    runs: Mapping[str, Mapping[str, Any]], names: list[tuple[str, str]], group: str, key: str
) -> _Column:
    of_scores = group in ("unknown", "wrong")
    rows = [
        section(runs[run], "scores", score, group) if of_scores else section(runs[run], group)
        for run, score in names
    ]
    values = [number(row.get(key)) for row in rows]
    return _Column(group, key, values, [interval(row.get(f"{key}_interval")) for row in rows])


def _markdown(head: list[str], first: list[list[str]], columns: list[_Column]) -> str:
    def plain(text: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))

    lines = [[*map(plain, head), *(plain(each.heading) for each in columns)]]
    lines.append(["---"] * len(head) + ["---:"] * len(columns))
    for row, texts in enumerate(first):
        cells = [_cell(each, row, "**{}**", " ({})") for each in columns]
        lines.append([*map(plain, texts), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(head: list[str], first: list[list[str]], columns: list[_Column]) -> str:
    def plain(text: str) -> str:
        names = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum"}
        return re.sub(
            r"[\\{}$&#_%~^]",
            lambda found: f"\\{names[found[0]]}{{}}" if found[0] in names else f"\\{found[0]}",
            " ".join(text.split()),
        )

    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$"}
    heads = [plain(each.heading) + arrows.get(figure(each.key).arrow, "") for each in columns]
    lines = [" & ".join([*map(plain, head), *heads])]
    for row, texts in enumerate(first):
        cells = [_cell(each, row, r"\textbf{{{}}}", r" {{\scriptsize [{}]}}") for each in columns]
        lines.append(" & ".join([*map(plain, texts), *cells]))
    body = " \\\\\n".join(lines[1:])
    form = "l" * len(head) + "r" * len(columns)
    return (
        (
            f"\\begin{{tabular}}{{{form}}}\n\\toprule\n{lines[0]} \\\\\n\\midrule\n{body} \\\\\n"
            "\\bottomrule\n\\end{tabular}\n"
        )
        .replace("\N{EN DASH}", "--")
        .replace("\N{MINUS SIGN}", "$-$")
    )


def _html(head: list[str], first: list[list[str]], columns: list[_Column]) -> str:
    heads = [*head, *(each.heading for each in columns)]
    lines = ["".join(f"<th>{html.escape(text)}</th>" for text in heads)]
    for row, texts in enumerate(first):
        cells = [
            _cell(each, row, "<strong>{}</strong>", "<br><small>{}</small>") for each in columns
        ]
        names = [f"<th>{html.escape(text)}</th>" for text in texts]
        lines.append("".join([*names, *(f"<td>{text}</td>" for text in cells)]))
    rows = "".join(f"<tr>{line}</tr>\n" for line in lines[1:])
    return f"<table>\n<thead><tr>{lines[0]}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def _csv(names: list[tuple[str, str]], columns: list[_Column]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", "score", *(f"{each.group}.{each.key}" for each in columns)])
    for row, texts in enumerate(names):
        values = (each.values[row] for each in columns)
        writer.writerow([*map(cell, texts), *("" if v is None else repr(v) for v in values)])
    return stream.getvalue()


def _cell(each: _Column, row: int, bold: str, within: str) -> str:
    """A figure with its column's decimals, and its interval."""
    if each.values[row] is None:
        return MISSING
    text = column(each.values)[row]
    ends = each.intervals[row]
    return (bold.format(text) if row in each.best else text) + (within.format(ends) if ends else "")
