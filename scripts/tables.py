"""Write the tables of the docs from `benchmarks/results/`.

    python scripts/tables.py

A table stands between `<!-- table: SET -->`, or `<!-- table: STAGE: SET -->` where the rows have
stages, and `<!-- end -->`; those of `docs/measured/calibration.md` between
`<!-- table: KIND OF -->` and the same, with a kind of `calibrated` and what it is of.
A test holds the pages to the results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from stages import Row, read  # noqa: E402

KINDS = ("fog", "night", "noise", "blur", "jpeg")
COLUMNS = {
    "megapixels a second": "megapixels a second",
    "x network": "x network",
    "x network, processor": "x network, processor time",
    "peak GB": "peak memory, GB",
    "processor_milliseconds": "processor time, ms",
    "x argmax": "x argmax in the graph",
    "largest difference": "largest difference",
    "ties": "ties, pixels",
    "notes": "why there is none",
    "file megabytes": "file, MB",
    **{
        f"{kind} AUROC, {score}": f"{kind} AUROC, {score}"
        for kind in ("wrong", "unknown")
        for score in ("max_softmax", "entropy", "doubt")
    },
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
    **{
        f"{part}.{key}": f"{part.replace('_', ' ')}: {title}"
        for part in ("inside", "border", "with_unknown")
        for key, title in (
            ("p_accurate_certain_area", "p(acc\\|cert)"),
            ("p_uncertain_inaccurate_area", "p(unc\\|inacc)"),
            ("pavpu_area", "PAvPU"),
        )
    },
    "certainty": "certainty",
    "effective": "effective pixels",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "spearman_runs": "each network",
    "rmse": "RMSE",
    "classwise_error": "class-wise error",
    "image_auroc": "images told from CamVid's, AUROC",
    "objects_per_image": "objects an image",
    "recall": "recall",
    "precision": "precision",
    "siou": "sIoU",
    "ppv": "PPV",
    "f1": "F1*",
    "events": "things",
    "true": "share true",
    "said": "mean P",
    "gap": "ECE",
    "brier_of_the_mean": "Brier of the share",
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
    "distance": "eight large patches, above the start",
    "steps_back": "steps taken back",
    "milliseconds": "ms",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "requests_per_second": "answered a second",
    "asked_per_second": "asked a second",
    "requests": "requests",
    "answered": "answered: 200",
    "busy": "told to come again: 429",
    "late": "too late: 503",
    "lost": "lost",
    "megabytes_before": "MB before",
    "megabytes_highest": "MB at most",
    "megabytes_after": "MB after",
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
    "images_a_second": "images a second",
    "seconds_an_image": "seconds an image",
    "processor_seconds_an_image": "processor seconds an image",
    "processor_seconds_of_all": "processor seconds",
    "importing_seconds": "of importing for workers",
    "load_average": "load",
    "largest_logit": "largest logit",
    "apart": "farthest from alone",
    "megabytes_a_part": "megabytes a part",
    "seconds_a_part": "seconds a part",
    "resident_mb": "resident, MB",
    "rows_mb": "rows of images, MB",
    "run_seconds": "run, s",
    "merge_seconds": "merge, s",
    "merge_share": "merge, share of the run",
    "sums_gb": "sums of all parts, GB",
    "rows_of_images_gb": "rows of images, GB",
    "wrong_auprc": "wrong AUPRC",
    "wrong_auprc_ratio": "wrong, x max softmax",
}
PAGES = {
    "main_job.md": "main_job",
    "density.md": "ddu",
    "doubt.md": "doubt",
    "dudes.md": "dudes",
    "protocols.md": "pasting",
    "objects.md": "objects",
    "segments.md": "segments",
    "nflowjs.md": "nflowjs",
    "decisions.md": "wrong",
    "speed.md": "speed",
    "large.md": "large",
    "many_machines.md": "many",
    "deploy.md": "deploy",
    "service.md": "serving",
    "calibration.md": "calibration",
    "bring_your_network.md": "networks",
}
"""Each page of docs/measured with the results that its tables show."""
TIMED = ("speed", "large", "deploy", "serving", "many")
"""Results whose rows are pieces of work, not scores."""


def table(rows: list[Row], name: str, timed: bool = False) -> str:
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


def cell(row: Row, key: str) -> str:
    """A figure, with its interval where the column is an AUPRC, recall, precision, share or gap."""
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
    if interval is None or not key.endswith(("auprc", "recall", "precision", "gap", "true")):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def digits(value: float | str | None) -> str:
    """Three digits: timings have no more."""
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{float(f'{value:.3g}'):g}"


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


def selector_table(rows: list[Row], network: str) -> str:
    """Selective scaling by how good its selector is."""
    lines = ["| selector | accuracy | wrong found | T | ECE | NLL | Brier |", "|---" * 7 + "|"]
    for row in rows:
        if row["network"] == "selector" and row["set"] == network:
            known = (row.get(f"selector_{key}") for key in ("accuracy", "recall"))
            cells = [row["name"], *("" if x is None else f"{x:.2f}" for x in known)]
            cells.append(f"{row['temperature']:.2f}" if "temperature" in row else "")
            cells += [with_interval(row), f"{row['nll']:.3f}", f"{row['brier']:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def many_table(rows: list[Row], network: str) -> str:
    """Methods, and selectors that are told the truth, on a network of many classes."""
    figure, keys = "ece_per_image_10_bins", ("nll", "brier")
    lines = [
        "| method | ECE per image, ten bins | less temperature's | pooled | boundary, per image "
        "| NLL | Brier | selector's accuracy | wrong found | T |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        if row["network"] == network:
            cells = [row["name"] if ", T" in row["name"] else f"`{row['name']}`"]
            cells += [with_interval(row, figure)]
            cells += [with_interval(row, f"{figure}_minus_temperature", "+"), with_interval(row)]
            cells += [f"{row[key]:.3f}" for key in ("ece_per_image_boundary", *keys)]
            told = [row.get(key) for key in ("selector_accuracy", "selector_recall", "temperature")]
            cells += ["" if value is None else f"{value:.2f}" for value in told]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


CLASSES = {"cityscapes": 19, "voc": 21}
CLASSES |= {f"{kind}-{k}": count for kind, count in (("voc", 21), ("coco", 81)) for k in (1, 2, 3)}
"""Networks of many classes, and how many."""
SHORT = {"identity": "raw", "temperature": "`temperature`", "selective(temperature=2)": "T = 2"}
SHORT |= {"selective": "T fitted", "selective_confidence": "`selective_confidence`"}


def classes_table(rows: list[Row], figure: str) -> str:
    """Networks of many classes, one a line: a figure of each method, and T = 2 less temperature."""
    less = f"{figure}_minus_temperature"
    titles = ["network", "classes", "images", *SHORT.values(), "T = 2 less `temperature`"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    found = {(row["network"], row["name"]): row for row in rows}
    for network, classes in CLASSES.items():
        own = {name: found[network, name] for name in SHORT}
        cells = [f"`{network}`", str(classes), str(own["identity"]["images"])]
        cells += [f"{row[figure]:.3f}" for row in own.values()]
        scaled = own["selective(temperature=2)"]
        cells += [with_interval(scaled, less, "+") if less in scaled else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ensemble_table(rows: list[Row], fitted_on: str) -> str:
    """Five networks beside one, fitted on the same images."""
    found = {
        (row["set"], row["name"]): row
        for row in rows
        if row["network"] == "camvid9-ensemble" and row["fitted_on"] == fitted_on
    }
    first, second = dict.fromkeys(test for test, _ in found)
    lines = [
        f"| | ECE, {first} | less temperature's | NLL | Brier | accuracy | ECE, {second} |",
        "|---" * 7 + "|",
    ]
    for name in dict.fromkeys(name for _, name in found):
        row = found[first, name]
        cells = [name, with_interval(row), with_interval(row, "ece_minus_temperature", "+")]
        cells += [f"{row[key]:.3f}" for key in ("nll", "brier", "accuracy")]
        lines.append("| " + " | ".join([*cells, with_interval(found[second, name])]) + " |")
    return "\n".join(lines)


def beside_table(rows: list[Row], name: str) -> str:
    """Libraries on the same pixels."""
    lines = [
        "| method | ECE | class-wise | NLL | Brier | changed | seconds to fit |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        if row["network"].startswith("beside") and row["set"] == name:
            cells = [row["name"], with_interval(row)]
            cells += [f"{row[key]:.4f}" for key in ("classwise_ece", "nll", "brier")]
            cells += [f"{row['labels_changed']:.1%}", f"{row['seconds_fit']:.2f}"]
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


def with_interval(row: Row, key: str = "ece", sign: str = "") -> str:
    """ECE, or another figure, with its interval."""
    if f"{key}_interval" not in row:
        return f"{row[key]:{sign}.4f}"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:{sign}.4f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def calibrated(rows: list[Row], name: str) -> str:
    """One of the tables of `docs/measured/calibration.md`."""
    what, _, of = name.partition(" ")
    kinds = {
        "methods": network_table,
        "corruptions": corruption_table,
        "selector": selector_table,
        "many": many_table,
        "classes": classes_table,
        "ensemble": ensemble_table,
        "beside": beside_table,
    }
    return kinds[what](rows, of)


COMPARED: dict[str, tuple[str, Callable[[Any], str]]] = {
    "largest_difference": ("largest difference", lambda value: digits(value)),
    "labels_equal": ("equal labels, %", lambda value: f"{100 * value:.2f}"),
    "probabilities_equal": ("equal probabilities, %", lambda value: f"{100 * value:.2f}"),
    "mean_difference": ("mean difference", lambda value: digits(value)),
    "features": ("features", lambda value: str(value or "none")),
    "scores": ("scores", str),
    "first_milliseconds": ("first call, ms", lambda value: f"{value:.0f}"),
    "milliseconds": ("forward, ms", lambda value: f"{value:.0f}"),
    "processor_ratio_to_forward": ("later calls, x forward", lambda value: f"{value:.2f}"),
}
"""Columns of `docs/measured/bring_your_network.md`, and how their figures are written."""


def compared(rows: list[Row], name: str) -> str:
    """Networks of one library, or of one stage, against their own forward pass."""
    rows = [row for row in rows if row["set"] == name]
    keys = [key for key in COMPARED if key in rows[0]]
    version = rows[0].get("library_version")
    title = f"{name} {version}" if version else "what"
    lines = [f"| {title} | " + " | ".join(COMPARED[key][0] for key in keys) + " |"]
    lines.append("|---|" + "---|" * len(keys))
    for row in rows:
        cells = [COMPARED[key][1](row[key]) for key in keys]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(name: str, text: str) -> str:
    """The page with its tables as the results have them."""
    topic = PAGES[name]
    rows = read(topic)["rows"]
    write: Callable[[list[Row], str], str] = partial(table, timed=topic in TIMED)
    write = {"calibration": calibrated, "networks": compared}.get(topic, write)
    return re.sub(
        r"(<!-- table: (.*?) -->\n).*?(\n?<!-- end -->)",
        lambda match: match[1] + write(rows, match[2]) + "\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for name in PAGES:
        path = ROOT / "docs" / "measured" / name
        path.write_text(page(name, path.read_text()))
