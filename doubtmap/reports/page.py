"""One frame and one style for every page and every drawing that stands alone.

A page is one file: no network, no other file, readable without scripts, light, dark, on a phone
and in print. What it says comes from users and their data: whatever is put in is escaped unless it
is `Markup`, and a content security policy lets nothing run but a script that the caller brings.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from importlib import resources

from markupsafe import Markup

from doubtmap.version import __version__

NAMESPACE = "http://www.w3.org/2000/svg"

_FRAME = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="doubtmap {version}">
<title>{title}: doubtmap</title>
<style>
{style}</style>
</head>
<body>
{body}{script}</body>
</html>
""")

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src 'unsafe-inline'"
)


def framed(
    title: str,
    *parts: Markup,
    script: str = "",
    style: str = "",
    policy: str = POLICY,
    version: str = __version__,
) -> bytes:
    """A whole page.

    Args:
        title: what the browser calls it.
        parts: its header and what follows, one below the other.
        script: run at the end of the page, the only one that may run; the page must be readable
            without.
        style: CSS of its own, after that of all pages.
        policy: what it may load, but for the script.
        version: of what made it.

    Returns:
        HTML in UTF-8.
    """
    page = _FRAME.format(
        policy=f"{policy}; script-src {_digest(script)}" if script else policy,
        version=version,
        title=title,
        style=Markup(_style("chart.css") + _style("page.css") + style),
        body=Markup("").join(part + "\n" for part in parts),
        script=Markup("<script>{}</script>\n").format(Markup(script)) if script else "",
    )
    return page.encode("utf-8", "backslashreplace")


def by_hash(page: bytes) -> str:
    """What a server may say of a page's own style and script: these, and no others.

    Args:
        page: as `framed` gives it, with a script.
    """
    (style,) = re.findall(r"<style>(.*?)</style>", page.decode(), re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page.decode(), re.DOTALL)
    return f"style-src {_digest(style)}; script-src {_digest(script)}"


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def header(command: str, heading: str, *paragraphs: str) -> Markup:
    """What a page starts with: which command it is of, its heading, and what it shows."""
    text = Markup("").join(Markup("<p>{}</p>\n").format(paragraph) for paragraph in paragraphs)
    return Markup('<header>\n<p class="kicker">doubtmap · {}</p>\n<h1>{}</h1>\n{}</header>').format(
        command, heading, text
    )


def page_table(
    label: str, rows: Sequence[Sequence[str]], bold: Collection[str] = frozenset()
) -> Markup:
    """A table whose columns after the first hold figures; it scrolls where it is too wide.

    Args:
        label: what it shows, for screen readers.
        rows: of texts, the headings first.
        bold: rows to set in bold, by their first text.
    """
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(text) for text in rows[0])
    lines = [
        Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(
            Markup(' class="taken"') if row[0] in bold else "",
            row[0],
            Markup("").join(Markup("<td>{}</td>").format(text) for text in row[1:]),
        )
        for row in rows[1:]
    ]
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}">\n<table>\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>"
    ).format(label, head, Markup("\n").join(lines))


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts for terminals and files: the first column to the left, others to the right.

    Example:
        >>> print(plain_table([["score", "AUPRC"], ["entropy", "0.5"]]))
        score    AUPRC
        entropy    0.5
    """
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(first), *(t.rjust(w) for t, w in zip(row[1:], others))]).rstrip()
        for row in rows
    )


def stand_alone(drawing: Markup, style: str = "") -> bytes:
    """An SVG file of a chart, with the colours of the pages.

    Args:
        drawing: as `doubtmap.reports.charts.drawing` gives it.
        style: CSS of its own.
    """
    own = "svg { background: var(--paper); font: 12px var(--sans) }\n"
    start, content = str(drawing).split(">", 1)
    start = start.replace("<svg", f'<svg xmlns="{NAMESPACE}"', 1)
    return f"{start}><style>\n{_style('chart.css')}{own}{style}</style>{content}".encode(
        "utf-8", "backslashreplace"
    )


def _style(name: str) -> str:
    return resources.files("doubtmap.reports").joinpath(name).read_text("utf-8")
