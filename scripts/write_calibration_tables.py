"""Write the tables of `docs/calibration.md` from `benchmarks/results/calibration.json`.

    python scripts/write_calibration_tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test holds the page to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "calibration.md"
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
KINDS = ("fog", "night", "noise", "blur", "jpeg")
Row = dict[str, Any]


def network_table(rows: list[Row], network: str) -> str:
    """Methods fitted on two drives, on the same drives and at dusk; then on another drive."""
    lines = [
        "| method | ECE, same drives | per image | boundary | Brier | NLL | accuracy | ECE, dusk "
        "| ECE, another drive |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found = {(r["fitted_on"], r["set"], r["name"]): r for r in rows if r["network"] == network}
    for (fitted_on, test, name), row in found.items():
        if (fitted_on, test) != ("two day drives", "same drives"):
            continue
        dusk = found["two day drives", "dusk", name]
        other = found.get(("one day drive", "another drive", name))
        cells = [
            f"`{name}`",
            with_interval(row),
            *(f"{row[key]:.3f}" for key in ("ece_per_image", "ece_boundary", "brier", "nll")),
            f"{row['accuracy']:.3f}",
            with_interval(dusk),
            with_interval(other) if other else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def corruption_table(rows: list[Row], network: str) -> str:
    """ECE on each corruption: at strengths 1, 3 and 5."""
    lines = [
        "| method | " + " | ".join(f"{kind} 1, 3, 5" for kind in KINDS) + " | mean of all 25 |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    found = {(r["set"], r["name"]): r["ece"] for r in rows if r["network"] == network}
    for name in dict.fromkeys(name for test, name in found if test == "fog 1"):
        each = {kind: [found[f"{kind} {k}", name] for k in range(1, 6)] for kind in KINDS}
        cells = [", ".join(f"{each[kind][k]:.3f}" for k in (0, 2, 4)) for kind in KINDS]
        mean = sum(sum(values) for values in each.values()) / 25
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {mean:.3f} |")
    return "\n".join(lines)


def with_interval(row: Row) -> str:
    """ECE with its interval."""
    low, high = row["ece_interval"]
    return f"{row['ece']:.4f} [{low:.3f}, {high:.3f}]"


def page(text: str) -> str:
    """The page with its tables as the results have them."""
    rows = json.loads(RESULTS.read_text())["rows"]

    def table(match: re.Match[str]) -> str:
        what, network = match[2].split(" ")
        write = {"methods": network_table, "corruptions": corruption_table}[what]
        return match[1] + write(rows, network) + match[3]

    pattern = r"(<!-- table: (.*?) -->\n).*?(\n<!-- end -->)"
    return re.sub(pattern, table, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
