"""What `doubtmap fit segments` found, as a table of plain text and as a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from doubtmap.files import write_atomically
from doubtmap.reports.events import event_chart
from doubtmap.reports.page import framed, header, page_table, plain_table
from doubtmap.segments import MetaModel
from doubtmap.segments.fitting import SegmentFit, known_errors

COLUMNS = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "auprc_false": "AUPRC false",
    "r2": "R2",
    "rmse": "RMSE",
}
"""Figures of `Judgement` and their headings."""


def segments_table(found: SegmentFit) -> str:
    """Feature sets as rows, figures as columns, mean and deviation over the runs.

    Args:
        found: what `doubtmap.segments.fitting.fit_segments` gave.
    """
    rows = [["features", *COLUMNS.values()]]
    for name, cross in found.compared.items():
        cells = [_cell([getattr(run, key) for run in cross.runs]) for key in COLUMNS]
        rows.append([name, *cells])
    runs = found.compared["all"].runs
    most, mean = (_cell([getattr(run, key) for run in runs]) for key in ("majority", "mean_rmse"))
    rows.append(["always the same", "0.500", most, "", "0.000", mean])
    more = (*_of_reliability(found), *_of_images(found), *_of_features(found.model))
    return "\n".join([plain_table(rows), *more])


def write_reliability(found: SegmentFit, path: str | Path) -> None:
    """Write one page: the reliability of P(touches its class) before and after its calibration.

    Args:
        found: what `doubtmap.segments.fitting.fit_segments` gave.
        path: the file.

    Raises:
        DataError: where it cannot be written.
    """
    about = (
        "P(touches its class) of segments of images that the model was not fitted to, as fitted "
        "and calibrated on others of them. Whiskers are 95 % intervals over images; the larger a "
        "point, the more segments."
    )
    title = "P(true) of segments"
    parts = [header("fit segments", title, about, *found.notes)]
    for name, told in found.reliability.items():
        chart = event_chart(told.diagram.tolist(), "true", "segments")
        parts += [
            Markup("<h2>{}</h2><figure>{}</figure>").format(name, chart),
            page_table(name, told.rows()),
        ]
    write_atomically(path, framed(title, *parts))


def _of_reliability(found: SegmentFit) -> list[str]:
    """How far P(touches its class) of held-out images was from what came true."""
    lines = []
    for name, told in found.reliability.items():
        gap, ends = told.figures["gap"], told.figures["gap_interval"]
        shown = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if isinstance(ends, list) else ""
        lines.append(
            f"P(touches its class), {name}: ECE {gap:.3f}{shown}, Brier score "
            f"{told.figures['brier']:.3f}, of always saying the share "
            f"{told.figures['brier_of_the_mean']:.3f}"
        )
    return lines


def _of_images(found: SegmentFit) -> list[str]:
    """How well held-out images were foreseen."""
    names = {"miou": "mIoU", "wrong": "share of wrong pixels"}
    return [
        f"{names[what]} of an image: mean absolute error {error:.3f}, of always the mean "
        f"{spread:.3f}"
        for what, (error, spread) in known_errors(found.images, found.segments).items()
    ]


def _of_features(model: MetaModel, most: int = 5) -> list[str]:
    """Which features carry the model, as shares of all gains or weights."""
    lines = []
    for what, estimator in (("touching its class", model.touches), ("IoU", model.iou)):
        top = np.argsort(-estimator.importance, kind="stable")[:most]
        shown = ", ".join(f"{model.names[k]} {estimator.importance[k]:.0%}" for k in top)
        lines.append(f"{what} is carried by {shown}")
    return lines


def _cell(values: list[float]) -> str:
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return "-"
    deviation = f" ±{finite.std(ddof=1):.3f}" if len(finite) > 1 else ""
    return f"{finite.mean():.3f}{deviation}"
