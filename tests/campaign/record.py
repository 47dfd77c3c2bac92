"""What the campaigns found, in one file that the docs read."""

from __future__ import annotations

import json
from pathlib import Path

from doubtmap.version import __version__

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEADINGS = {
    "fuzz": {
        "name": "reader",
        "tried": "inputs",
        "read": "read",
        "refused": "refused in one sentence",
        "failed": "anything else",
    },
    "kill": {
        "name": "command",
        "runs": "runs",
        "kills": "kills",
        "same": "ended as an unbroken run",
        "failed": "anything else",
    },
    "sanitize": {
        "name": "kernels",
        "calls": "calls compared with the reference",
        "failed": "faults found",
    },
}
"""Columns of the page's tables, by campaign."""


def read() -> dict:
    """The file as it is: `version`, `commands` and `rows`."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"commands": {}, "rows": []}


def write(campaign: str, command: str, rows: list[dict], whole: bool = True) -> None:
    """Put a campaign's rows in the place of its old ones, and the tables onto the page.

    Of one that is not `whole`, rows of other names stay, and its command is added.
    """
    found = read()
    names = {row["name"] for row in rows}
    kept = [
        row
        for row in found["rows"]
        if row["campaign"] != campaign or not (whole or row["name"] in names)
    ]
    before = [] if whole else found["commands"].get(campaign, "").split("; ")
    command = "; ".join(filter(None, dict.fromkeys([*before, command])))
    found["rows"] = kept + [{"campaign": campaign, **row} for row in rows]
    found["commands"] = found["commands"] | {campaign: command}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in found["rows"])
    RESULTS.write_text(
        f'{{"version": "{__version__}",\n"commands": {json.dumps(found["commands"])},\n'
        f'"rows": [\n{lines}\n]}}\n'
    )
    PAGE.write_text(page(PAGE.read_text()))


def table(campaign: str) -> str:
    """A campaign's rows and their sum."""
    heads = HEADINGS[campaign]
    rows = [row for row in read()["rows"] if row["campaign"] == campaign]
    total = {key: sum(row[key] for row in rows) for key in heads if key != "name"}
    lines = [list(heads.values()), ["---"] * len(heads)]
    for row in [*rows, {"name": "all", **total}]:
        lines.append([f"{row[key]:,}" if key != "name" else row[key] for key in heads])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(text: str) -> str:
    """The page with its tables as the file has them."""
    for campaign in HEADINGS:
        start, end = f"<!-- table: {campaign} -->\n", "<!-- end -->"
        before, _, after = text.partition(start)
        text = f"{before}{start}{table(campaign)}\n{end}{after.partition(end)[2]}"
    return text
