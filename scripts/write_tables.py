"""Write the tables of `docs/main_job.md` from `benchmarks/results/main_job.json`.

    python scripts/write_tables.py

A table stands between `<!-- table: SET -->` and `<!-- end -->`; a test holds the page to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "main_job.md"
RESULTS = ROOT / "benchmarks" / "results" / "main_job.json"
COLUMNS = {
    "unknown.auprc": "unknown AUPRC",
    "unknown.fpr95": "FPR95",
    "unknown.auroc": "AUROC",
    "unknown.f1": "F1*",
    "wrong.auprc": "wrong AUPRC",
    "wrong.fpr95": "FPR95",
    "wrong.auroc": "AUROC",
    "wrong.aurc": "AURC",
}


def table(rows: list[dict[str, Any]], name: str) -> str:
    """The rows of one set, without figures that the set does not have."""
    rows = [row for row in rows if row["set"] == name and "unknown.auprc" in row]
    keys = [key for key in COLUMNS if any(row[key] is not None for row in rows)]
    lines = [
        "| score | " + " | ".join(COLUMNS[key] for key in keys) + " |",
        "|---|" + "---|" * len(keys),
    ]
    for row in rows:
        score = row["name"].replace(",variant=exact", "").replace(",label=predicted", "")
        lines.append(f"| `{score}` | " + " | ".join(cell(row, key) for key in keys) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any], key: str) -> str:
    """A figure, with its interval where the column is an AUPRC."""
    value, interval = row[key], row.get(f"{key}_interval")
    if value is None:
        return "-"
    if interval is None or not key.endswith("auprc"):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def page(text: str) -> str:
    """The page with its tables as the results have them."""
    rows = json.loads(RESULTS.read_text())["rows"]
    return re.sub(
        r"(<!-- table: (.*?) -->\n).*?(\n<!-- end -->)",
        lambda match: match[1] + table(rows, match[2]) + match[3],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
