"""Write the tables of the docs from `benchmarks/results/`.

    python scripts/write_tables.py

A table stands between `<!-- table: SET -->`, or `<!-- table: STAGE: SET -->` where the rows have
stages, and `<!-- end -->`; a test holds the pages to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "miou": "mIoU",
    "open_miou": "open mIoU",
    "unknown.auprc": "unknown AUPRC",
    "unknown.auprc_runs": "each network",
    "unknown.auprc_gain": "above plain",
    "unknown.fpr95": "FPR95",
    "unknown.auroc": "AUROC",
    "unknown.f1": "F1*",
    "wrong.auprc": "wrong AUPRC",
    "wrong.fpr95": "FPR95",
    "wrong.auroc": "AUROC",
    "wrong.aurc": "AURC",
    "p_accurate_certain_area": "p(acc\\|cert)",
    "p_uncertain_inaccurate_area": "p(unc\\|inacc)",
    "pavpu_area": "PAvPU",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "rmse": "RMSE",
    "objects_per_image": "objects an image",
    "recall": "recall",
    "precision": "precision",
    "siou": "sIoU",
    "ppv": "PPV",
    "f1": "F1*",
    "ece": "ECE",
    "brier": "Brier",
    "nll": "NLL",
    "missed": "missed",
    "flagged": "flagged",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "accuracy",
    "auprc_false": "AUPRC false",
    "r2": "R2",
    "miou_mae": "mIoU, MAE",
    "miou_pearson": "Pearson",
    "wrong_mae": "wrong share, MAE",
    "wrong_pearson": "Pearson",
    "found_area": "found",
    "bits": "bits per dimension",
    "milliseconds": "ms",
    "ratio": "x plain",
    "ratio_to_copy": "x copy",
    "speedup_over_textbook": "x faster than textbook",
    "maps": "maps",
    "ratio_to_forward": "wall time, x forward",
    "processor_ratio_to_forward": "processor time, x forward",
    "megapixels_per_second": "megapixels a second",
    "megabytes": "megabytes",
    "speedup_over_scikit_learn": "x faster than scikit-learn",
    "speedup_over_loop": "x faster than a loop",
    "seconds": "seconds",
    "fpr95": "FPR95",
    "auprc_ratio": "AUPRC, x max softmax",
    "worst_ratio": "worst pair",
    "at_least_2": "pairs of 2 x",
    "pairs": "pairs",
    "fpr95_difference": "FPR95, change",
    "worst_fpr95_difference": "worst change",
    "wrong_auprc": "wrong AUPRC",
}
PAGES = {
    "main_job.md": "main_job.json",
    "density.md": "ddu.json",
    "doubt.md": "doubt.json",
    "dudes.md": "dudes.json",
    "protocols.md": "pasting.json",
    "objects.md": "objects.json",
    "segments.md": "segments.json",
    "nflowjs.md": "nflowjs.json",
    "decisions.md": "wrong.json",
    "speed.md": "speed.json",
}
"""Each page with the results that its tables show."""
TIMED = ("speed.json",)
"""Results whose rows are pieces of work, not scores."""


def table(rows: list[dict[str, Any]], name: str, timed: bool = False) -> str:
    """The rows of one set, without figures that the set does not have."""
    stage, _, only = name.rpartition(": ")
    rows = [row for row in rows if row["set"] == only and row.get("stage", "") == stage]
    rows = [row for row in rows if row["name"] != "network"]
    keys = [key for key in COLUMNS if any(tells(row.get(key)) for row in rows)]
    lines = [
        f"| {'what' if timed else 'score'} | " + " | ".join(COLUMNS[key] for key in keys) + " |",
        "|---|" + "---|" * len(keys),
    ]
    for row in rows:
        score = row["name"].replace(",variant=exact", "").replace(",label=predicted", "")
        title = score if stage or timed else f"`{score}`"
        cells = [digits(row.get(key)) if timed else cell(row, key) for key in keys]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tells(value: Any) -> bool:
    """Whether a figure is worth a column: it is there, and a list has more than one."""
    return len(value) > 1 if isinstance(value, list) else value is not None


def cell(row: dict[str, Any], key: str) -> str:
    """A figure, with its interval where the column is an AUPRC, recall or precision."""
    value, interval = row.get(key), row.get(f"{key}_interval")
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return ", ".join(f"{one:.3f}" for one in value)
    if key.endswith("_gain"):
        return f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "-"
    if key == "milliseconds":
        return f"{value:.0f}"
    if key in ("ece", "brier", "nll"):
        return f"{value:.4f}"
    if key == "objects_per_image":
        return f"{value:.1f}"
    if interval is None or not key.endswith(("auprc", "recall", "precision")):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def digits(value: float | None) -> str:
    """Three digits: timings have no more."""
    return "-" if value is None else f"{float(f'{value:.3g}'):g}"


def page(name: str, text: str) -> str:
    """The page with its tables as the results have them."""
    rows = json.loads((ROOT / "benchmarks" / "results" / PAGES[name]).read_text())["rows"]
    timed = PAGES[name] in TIMED
    return re.sub(
        r"(<!-- table: (.*?) -->\n).*?(\n?<!-- end -->)",
        lambda match: match[1] + table(rows, match[2], timed) + "\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for name in PAGES:
        path = ROOT / "docs" / name
        path.write_text(page(name, path.read_text()))
