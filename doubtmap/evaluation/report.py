"""One HTML file with everything that an evaluation found, in the frame of `reports/page.py`.

Names, notes and commands come from users and their data: the template escapes them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from doubtmap.evaluation.catalogue import reading, section
from doubtmap.evaluation.curves import curve_charts
from doubtmap.evaluation.report_images import MEANS, case_rows, confusions, image_rows, worst_images
from doubtmap.evaluation.report_tables import (
    claims,
    class_bars,
    class_table,
    difference_tables,
    figure_list,
    mean_table,
    score_tables,
)
from doubtmap.evaluation.results import (
    Example,
    Results,
    strict_figures,
    write_curves,
    write_results,
)
from doubtmap.evaluation.yours import metric_rows
from doubtmap.files import alone, write_atomically
from doubtmap.files.earlier import begin_in
from doubtmap.files.parquet import write_parquet
from doubtmap.reports.charts import reliability_chart
from doubtmap.reports.colours import labels_present, robust_limits
from doubtmap.reports.digits import count, digits, seconds
from doubtmap.reports.page import framed
from doubtmap.reports.pictures import (
    STATE_COLOURS,
    doubt_picture,
    label_picture,
    photograph,
    ramp_picture,
    state_picture,
)
from doubtmap.segments.cards import look_first_part
from doubtmap.version import __version__


@dataclass(frozen=True)
class _Shown:
    """One example, ready for the template."""

    example: Example
    pictures: list[tuple[str, str]]
    legend: list[tuple[str, str]]
    low: str
    high: str


@alone
def write_evaluation(results: Results, out: Path, parquet: bool = False) -> None:
    """Write `results.json`, `curves.json` and `report.html` of an evaluation into a folder.

    Maps that an earlier evaluation has kept there go, unless this one has kept its own.

    Args:
        results: of the evaluation.
        out: the folder.
        parquet: write the table of images as `images.parquet`, too.
    """
    if "maps" not in results.figures:
        begin_in(out, "evaluate", [], [])
    write_curves(results, out / "curves.json")
    write_results(results, out / "results.json")
    rows = strict_figures(results.figures).get("images", []) if parquet else []
    write_parquet(out / "images.parquet", rows, parquet)
    write_report(results, out / "report.html")


def write_report(results: Results, path: str | Path) -> None:
    """Write the report of an evaluation as one self-contained HTML file.

    Args:
        results: the evaluation; any part of it may be missing.
        path: the file, written atomically.

    Raises:
        DataError: for results that make no sense, or where the file cannot be written.
    """
    context = _context(results)
    body = _template().render(context)
    title = " on ".join(context["title"])
    page = framed(title, Markup(body), script=_text_of("report.js"), version=context["version"])
    write_atomically(path, page)


@functools.cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "digits": digits,
        "count": count,
        "seconds": seconds,
        "breakable": _breakable,
    }
    return environment.from_string(_text_of("report.html"))


def _text_of(name: str) -> str:
    return resources.files("doubtmap.evaluation").joinpath(name).read_text("utf-8")


def _context(results: Results) -> dict[str, Any]:
    figures = strict_figures(results.figures)
    groups = (("unknown", "Unknown objects"), ("wrong", "Wrong pixels"))
    tables = [(key, title, score_tables(figures, key)) for key, title in groups]
    reliability = results.curves.get("reliability")
    images = [row for row in figures.get("images") or () if isinstance(row, Mapping)]
    return {
        "title": _title(figures),
        "reading": reading(figures),
        "data": section(figures, "data"),
        "pixels": section(figures, "data", "pixels"),
        "tables": [row for row in tables if row[2]],
        "class_table": class_table(figures),
        "segmentation": figure_list(figures, "segmentation"),
        "class_bars": class_bars(figures, results.class_names),
        "mean_table": mean_table(figures),
        "calibration": figure_list(figures, "calibration"),
        "bins": section(figures, "calibration").get("bins"),
        "reliability": reliability_chart(reliability),
        "claims": claims(figures, results.curves),
        "charts": curve_charts(results.curves, figures),
        "differences": difference_tables(figures),
        "examples": _examples(results),
        "states": {name: "#" + bytes(colour).hex() for name, colour in STATE_COLOURS.items()},
        "confusions": confusions(results.curves.get("confusion"), results.class_names),
        "worst": worst_images(images, results.class_names),
        "image_table": image_rows(images),
        "case_table": case_rows(section(figures, "by")),
        "by": section(figures, "by"),
        "means": MEANS,
        "metrics": metric_rows(section(figures, "metrics")),
        "maps": "maps" in figures,
        "look_first": look_first_part(results.look_first) if results.look_first else None,
        "ramp": ramp_picture(),
        "notes": [str(note) for note in figures.get("notes") or []],
        "conditions": _conditions(figures),
        "seconds": section(figures, "seconds"),
        "version": str(figures.get("doubtmap") or __version__),
    }


def _title(figures: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the model, name of the data."""
    model = figures.get("model")
    names = model if isinstance(model, Mapping) else {"name": model}
    keys = ("name", "source", "path", "kind")
    source = next((str(names[key]) for key in keys if names.get(key)), "a model")
    # of a path the last part; several models are separated by commas
    name = ", ".join(part.rstrip("/").rsplit("/", 1)[-1] for part in source.split(","))
    return name, str(section(figures, "data").get("name") or "some data")


def _conditions(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures were made with, as names and texts."""
    rows = [("command", figures.get("command")), ("seed", figures.get("seed"))]
    model = figures.get("model")
    if isinstance(model, Mapping):
        rows += [(f"model: {key}", value) for key, value in model.items()]
    elif model is not None:
        rows.append(("model", model))
    known = ("name", "images", "pixels")
    rows += [(f"data: {k}", v) for k, v in section(figures, "data").items() if k not in known]
    return [(name, _text(value)) for name, value in rows if value is not None]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _examples(results: Results) -> list[tuple[str, list[_Shown]]]:
    """Examples by reason, in the order in which they came."""
    groups: dict[str, list[_Shown]] = {}
    for example in results.examples:
        groups.setdefault(example.reason, []).append(_shown(example, results.class_names))
    return list(groups.items())


def _shown(example: Example, class_names: tuple[str, ...]) -> _Shown:
    limits = robust_limits(example.doubt)
    pictures = [
        ("image", photograph(example.image)),
        ("label", label_picture(example.label, class_names)),
        ("prediction", label_picture(example.predicted, class_names)),
        ("right or wrong", state_picture(example.label, example.predicted)),
        (f"doubt: {example.score}", doubt_picture(example.doubt, limits)),
    ]
    if example.epistemic is not None:
        other = robust_limits(example.epistemic)
        pictures[-1] = (_ranged("aleatoric", example.score, limits), pictures[-1][1])
        known = doubt_picture(example.epistemic, other)
        pictures.append((_ranged("epistemic", example.epistemic_score, other), known))
    present = labels_present(example.label, example.predicted, class_names)
    legend = [(name, "#" + bytes(colour).hex()) for name, colour in present]
    ends = (digits(limits[0]), digits(limits[1])) if example.epistemic is None else ("low", "high")
    return _Shown(example, pictures, legend, *ends)


def _ranged(kind: str, score: str, limits: tuple[float, float]) -> str:
    return f"{kind} doubt: {score}, {digits(limits[0])} to {digits(limits[1])}"


def _breakable(name: str) -> Markup:
    """A name that may break into lines at its joints."""
    pieces = re.split(r"(?<=[_(,:/-])|(?<=\.)(?!\d)", name)
    return Markup("<wbr>").join(pieces)
