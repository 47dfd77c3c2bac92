"""The headline figures as a table: for terminals, as plain text, as CSV; those of several runs."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from doubtmap.errors import UsageError
from doubtmap.evaluation.catalogue import Figure, best, figure, figures_of, section
from doubtmap.evaluation.results import strict_figures
from doubtmap.files import cell
from doubtmap.reports.digits import MISSING, column, digits, interval, number
from doubtmap.reports.page import plain_table

HEADLINE = (
    ("unknown", "auprc"),
    ("unknown", "fpr95"),
    ("unknown", "auroc"),
    ("wrong", "auprc"),
    ("wrong", "auroc"),
    ("wrong", "fpr95"),
    ("wrong", "aurc"),
)


def figures_table(figures: Mapping[str, Any]) -> Table:
    """Scores x headline figures, the best of each column bold; a group without figures is left out.

    Args:
        figures: the content of `results.json`.
    """
    table = Table(box=None, pad_edge=False, caption=_line(figures), caption_justify="left")
    table.add_column("score", no_wrap=True)
    columns = _columns(figures)
    for group, key in columns:
        table.add_column(f"{group}\n{figure(key).title} {figure(key).arrow}", justify="right")
    texts = _texts(figures, columns)
    for name, row in texts.items():
        cells = (_cell(figures, name, *c, text) for c, text in zip(columns, row))
        table.add_row(Text(_printable(name)), *cells)
    return table


def figures_text(figures: Mapping[str, Any]) -> str:
    """The same table as plain text, one row a line, for files and pipes."""
    columns = _columns(figures)
    rows = [["score", *(f"{group} {figure(key).title}" for group, key in columns)]]
    rows += [[_printable(name), *row] for name, row in _texts(figures, columns).items()]
    return f"{plain_table(rows)}\n\n{_line(figures).rstrip()}".rstrip() + "\n"


def figures_csv(figures: Mapping[str, Any]) -> str:
    """All figures of all scores with all their digits; a missing figure is an empty field."""
    scores = section(figures, "scores")
    columns: list[tuple[str, str]] = []
    for group in ("unknown", "wrong"):
        parts = [section(figures, "scores", name, group) for name in scores]
        columns += [(group, key) for key in _keys(parts)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    found = {at: _column_of({"": figures}, [("", n) for n in scores], *at).values for at in columns}
    writer.writerow(["score", *(f"{group}.{key}" for group, key in columns)])
    for row, name in enumerate(scores):
        values = (found[at][row] for at in columns)
        writer.writerow([cell(name), *("" if value is None else repr(value) for value in values)])
    return stream.getvalue()


def _keys(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures of a group, those of its parts and of its classes after its own."""
    own = figures_of({k: v for k, v in p.items() if not isinstance(v, Mapping)} for p in parts)
    keys = [item.key for item in own]
    inner = dict.fromkeys(k for p in parts for k, v in p.items() if isinstance(v, Mapping))
    for name in inner:
        below = _keys([section(part, name) for part in parts])
        keys += below if name == "by_class" else [f"{name}.{key}" for key in below]
    return keys


def print_figures(figures: Mapping[str, Any], style: str = "table") -> None:
    """Print figures to stdout: a table for terminals, aligned text for pipes, CSV or JSON.

    Args:
        figures: the content of `results.json`.
        style: `table`, `csv` or `json`.
    """
    if style == "json":
        sys.stdout.write(json.dumps(strict_figures(dict(figures)), indent=1) + "\n")
    elif style == "csv":
        sys.stdout.write(figures_csv(figures))
    elif sys.stdout.isatty():
        Console(emoji=False).print(figures_table(figures))
    else:
        sys.stdout.write(figures_text(figures))


def _columns(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Headline figures of the groups in which any score has a figure."""
    there = {
        group
        for group, key in HEADLINE
        for name in section(figures, "scores")
        if number(section(figures, "scores", name, group).get(key)) is not None
    }
    return [(group, key) for group, key in HEADLINE if group in there]


def _texts(figures: Mapping[str, Any], columns: list[tuple[str, str]]) -> dict[str, list[str]]:
    """For each score its figures, each column with the same decimals."""
    names = list(section(figures, "scores"))
    values = [
        [section(figures, "scores", n, group).get(key) for n in names] for group, key in columns
    ]
    rows = zip(*map(column, values)) if columns else ([] for _ in names)
    return dict(zip(names, map(list, rows)))


def _cell(figures: Mapping[str, Any], name: str, group: str, key: str, text: str) -> Text:
    return Text(text, style="bold" if best(figures, group, key) == name else "")


def _line(figures: Mapping[str, Any]) -> str:
    shown = (("segmentation", "miou"), ("segmentation", "accuracy"), ("calibration", "ece"))
    parts = [
        f"{figure(key).title} {digits(section(figures, group).get(key))}" for group, key in shown
    ]
    return "   ".join(part for part in parts if not part.endswith(MISSING))


def _printable(name: str) -> str:
    """Names come from users; terminals obey control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


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
        part, _, _ = self.key.rpartition(".")
        return " ".join(filter(None, (self.group, part.replace("_", " "), self.figure.title)))

    @property
    def figure(self) -> Figure:
        """What the catalogue says of it."""
        return figure(self.key.rpartition(".")[2])

    @property
    def best(self) -> set[int]:
        """Rows with the best value, where there are others to compare with."""
        better = self.figure.higher_is_better
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
        figures: such as `unknown.auprc`, `unknown.pedestrian.auprc` of one of several unknown
            classes, or `segmentation.miou`, which all scores of a run share; default: the headline
            figures that any run has.

    Raises:
        UsageError: for another style, or a figure that no run has.
    """
    if style not in STYLES:
        raise UsageError(f"table: expected a style of {', '.join(STYLES)}, got {style!r}.")
    names = [(run, score) for run, found in runs.items() for score in section(found, "scores")]
    asked = [_path(name) for name in figures] or list(HEADLINE)
    columns = [_column_of(runs, names, *path) for path in asked]
    there = [each for each in columns if any(value is not None for value in each.values)]
    if figures and len(there) < len(columns):
        lost = next(each for each in columns if each not in there)
        raise UsageError(
            f"table: expected a figure that a run has, such as wrong.auprc, got "
            f"{lost.group}.{lost.key}."
        )
    if style == "csv":
        return _runs_csv(names, there)
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


def _column_of(
    runs: Mapping[str, Mapping[str, Any]], names: list[tuple[str, str]], group: str, key: str
) -> _Column:
    of_scores = group in ("unknown", "wrong")
    rows = [
        section(runs[run], "scores", score, group) if of_scores else section(runs[run], group)
        for run, score in names
    ]
    part, _, own = key.rpartition(".")
    if part:  # of an unknown class, or of patches such as those inside of wrong.inside.pavpu
        rows = [section(row, "by_class", part) or section(row, part) for row in rows]
    values = [number(row.get(own)) for row in rows]
    return _Column(group, key, values, [interval(row.get(f"{own}_interval")) for row in rows])


def _markdown(head: list[str], first: list[list[str]], columns: list[_Column]) -> str:
    def plain(text: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))

    lines = [[*map(plain, head), *(plain(each.heading) for each in columns)]]
    lines.append(["---"] * len(head) + ["---:"] * len(columns))
    for row, texts in enumerate(first):
        cells = [_set(each, row, "**{}**", " ({})") for each in columns]
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
    heads = [plain(each.heading) + arrows.get(each.figure.arrow, "") for each in columns]
    lines = [" & ".join([*map(plain, head), *heads])]
    for row, texts in enumerate(first):
        cells = [_set(each, row, r"\textbf{{{}}}", r" {{\scriptsize [{}]}}") for each in columns]
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
            _set(each, row, "<strong>{}</strong>", "<br><small>{}</small>") for each in columns
        ]
        names = [f"<th>{html.escape(text)}</th>" for text in texts]
        lines.append("".join([*names, *(f"<td>{text}</td>" for text in cells)]))
    rows = "".join(f"<tr>{line}</tr>\n" for line in lines[1:])
    return f"<table>\n<thead><tr>{lines[0]}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def _runs_csv(names: list[tuple[str, str]], columns: list[_Column]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", "score", *(f"{each.group}.{each.key}" for each in columns)])
    for row, texts in enumerate(names):
        values = (each.values[row] for each in columns)
        writer.writerow([*map(cell, texts), *("" if v is None else repr(v) for v in values)])
    return stream.getvalue()


def _set(each: _Column, row: int, bold: str, within: str) -> str:
    """A figure with its column's decimals, and its interval."""
    if each.values[row] is None:
        return MISSING
    text = column(each.values)[row]
    ends = each.intervals[row]
    return (bold.format(text) if row in each.best else text) + (within.format(ends) if ends else "")
