"""What `fit segments` found, as a table of plain text."""

from __future__ import annotations

import numpy as np

from doubtmap.engine.segments import SegmentFit
from doubtmap.segments import MetaModel

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
        found: what `doubtmap.engine.fit_segments` gave.
    """
    rows = [["features", *COLUMNS.values()]]
    for name, cross in found.compared.items():
        cells = [_cell([getattr(run, key) for run in cross.runs]) for key in COLUMNS]
        rows.append([name, *cells])
    runs = found.compared["all"].runs
    most, mean = (_cell([getattr(run, key) for run in runs]) for key in ("majority", "mean_rmse"))
    rows.append(["always the same", "0.500", most, "", "0.000", mean])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join([*lines, *_of_images(found), *_of_features(found.model)])


def _of_images(found: SegmentFit) -> list[str]:
    """How well held-out images were foreseen."""
    lines = []
    for what, said, true in zip(
        ("mIoU", "share of wrong pixels"),
        found.images,
        (found.segments.miou, found.segments.wrong_share),
    ):
        seen = np.isfinite(said) & np.isfinite(true)
        if seen.sum() < 2:
            continue
        error = np.abs(said - true)[seen].mean()
        spread = np.abs(true[seen] - true[seen].mean()).mean()
        lines.append(
            f"{what} of an image: mean absolute error {error:.3f}, of always the mean {spread:.3f}"
        )
    return lines


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
