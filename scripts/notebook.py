"""Run a page whose cells are ```python blocks, and show what each cell gave.

A page of `docs/tutorials/` is a notebook kept as text: `jupytext --to ipynb PAGE.md` opens it, the
site shows it with its outputs, and tests run it.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import html
import io
import json
import re
import tempfile
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cell:
    """Some text, or some code with what it gave."""

    kind: str
    source: str
    said: str = ""
    pictures: list[bytes] = field(default_factory=list)


def cells(text: str) -> list[Cell]:
    """The cells of a page, in order."""
    parts = re.split(r"^```python\n(.*?)^```\n", text, flags=re.DOTALL | re.MULTILINE)
    kinds = ("markdown", "code")
    made = [Cell(kinds[place % 2], part.strip("\n")) for place, part in enumerate(parts)]
    return [cell for cell in made if cell.source]


def run(text: str) -> list[Cell]:
    """Run all code of a page in one namespace, in a folder of its own.

    What is printed is kept, and the value of a last expression: pictures as PNG, others as text.
    """
    made, known = cells(text), {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in made:
            if cell.kind == "code":
                run_cell(cell, known)
    return made


def run_cell(cell: Cell, known: dict[str, Any]) -> None:
    """Run one cell, whose output goes into it."""
    tree = ast.parse(cell.source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "<cell>", "exec"), known)
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), known) if last else None
    if hasattr(value, "save") and hasattr(value, "getbands"):
        picture = io.BytesIO()
        value.save(picture, "PNG", optimize=True)
        cell.pictures.append(picture.getvalue())
    elif value is not None:
        said.write(f"{value}\n" if isinstance(value, str) else f"{value!r}\n")
    cell.said = said.getvalue()


def shown(made: list[Cell]) -> str:
    """The page as Markdown, each output below its cell."""
    parts = []
    for cell in made:
        parts.append(cell.source if cell.kind == "markdown" else f"```python\n{cell.source}\n```")
        if cell.said:
            parts.append(f'<pre class="said">{html.escape(cell.said.rstrip())}</pre>')
        for picture in cell.pictures:
            data = base64.b64encode(picture).decode()
            parts.append(
                f'<img class="said" alt="What the cell shows" src="data:image/png;base64,{data}">'
            )
    return "\n\n".join(parts) + "\n"


def as_ipynb(made: list[Cell]) -> str:
    """The page as a Jupyter notebook with its outputs."""
    body: list[dict[str, Any]] = []
    for place, cell in enumerate(made):
        entry: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{place}", "metadata": {}}
        entry["source"] = cell.source
        if cell.kind == "code":
            entry |= {"execution_count": None, "outputs": outputs(cell)}
        body.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"cells": body, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(about, indent=1, ensure_ascii=False)


def outputs(cell: Cell) -> list[dict[str, Any]]:
    """What a cell gave, as Jupyter keeps it."""
    found: list[dict[str, Any]] = []
    if cell.said:
        found.append({"output_type": "stream", "name": "stdout", "text": cell.said})
    for picture in cell.pictures:
        data = {"image/png": base64.b64encode(picture).decode(), "text/plain": "picture"}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    return found
