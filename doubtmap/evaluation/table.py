"""The headline figures as a table: for terminals, as plain text, as CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from doubtmap.evaluation.catalogue import best, figure, figures_of, section
from doubtmap.evaluation.results import strict_figures
from doubtmap.files import cell
from doubtmap.reports.digits import MISSING, column, digits, number
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
    groups = {
        group: figures_of(section(figures, "scores", name, group) for name in scores)
        for group in ("unknown", "wrong")
    }
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [(group, item.key) for group, items in groups.items() for item in items]
    writer.writerow(["score", *(f"{group}.{key}" for group, key in columns)])
    for name in scores:
        values = (number(section(scores, name, group).get(key)) for group, key in columns)
        writer.writerow([cell(name), *("" if value is None else repr(value) for value in values)])
    return stream.getvalue()


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
