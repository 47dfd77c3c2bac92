"""What one evaluation found: figures, curves and a few telling images.

Filled by `evaluate`, read by the reports; a plain value without behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.engine.look_first import LookFirst


@dataclass(frozen=True, eq=False)
class Example:
    """One image worth looking at.

    Args:
        name: the sample's name.
        reason: why it was picked: `most doubt` or `most missed`.
        detail: one line, such as `mean entropy 0.81`.
        image: `(H, W, 3)` uint8 RGB.
        label: `(H, W)` int16: the model's class index, or `KNOWN`, `UNKNOWN`, `VOID`.
        predicted: `(H, W)` int16: the model's class index.
        doubt: `(H, W)` float32, higher = more doubt.
        score: name of the score that `doubt` shows.
        epistemic: `(H, W)` float32, a score of what the network does not know, where one was asked
            for; `doubt` is then of what the image leaves open.
        epistemic_score: its name.
    """

    name: str
    reason: str
    detail: str
    image: NDArray[np.uint8]
    label: NDArray[np.int16]
    predicted: NDArray[np.int16]
    doubt: NDArray[np.float32]
    score: str
    epistemic: NDArray[np.float32] | None = None
    epistemic_score: str = ""


@dataclass(frozen=True, eq=False)
class Results:
    """Figures, curves and examples of one evaluation.

    Args:
        figures: the content of `results.json`. Beside a figure `NAME` there may be
            `NAME_interval: [lo, hi]` (confidence), `NAME_bounds: [lo, hi]` (numerical) and
            `NAME_per_image` (mean over images); `differences` lists paired differences as
            `{"figure": "unknown.auprc", "scores": [a, b], "difference": a - b, "interval"}`.
        curves: any of the following, each may be absent or empty; values are lists of numbers:
            `precision_recall` `{SCORE: {recall, precision}}` and `roc` `{SCORE: {fpr, tpr}}`, both
            of the unknown pixels where the data have any and of the wrong pixels otherwise;
            `risk_coverage` `{SCORE: {coverage, risk}}`;
            `sparsification` `{SCORE: {removed, error, oracle}}`;
            `patches` `{SCORE: {percentile, p_accurate_certain, p_uncertain_inaccurate, pavpu}}`,
            percentiles in [0, 100] or [0, 1]; `pixels`, the same with patches of one pixel;
            `reliability` `{confidence, accuracy, share}`, one entry for each bin, None where empty;
            `wrong_reliability` `{SCORE: {confidence, accuracy, share}}`, the same of each score
            that claims to be the probability of wrong, the confidence being one minus the score.
        class_names: the model's classes in the order of their indices, or empty.
        examples: images for the report.
        look_first: what a review would have shown first, where a meta model was given.
    """

    figures: dict[str, Any]
    curves: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    examples: list[Example] = field(default_factory=list)
    look_first: LookFirst | None = None
