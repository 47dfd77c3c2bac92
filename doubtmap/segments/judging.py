"""How well meta models do on images that they were not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from doubtmap.calibration.logistic import logistic, sigmoid
from doubtmap.errors import DataError
from doubtmap.metrics import Ranking
from doubtmap.metrics.accumulator import Array
from doubtmap.segments.estimators import Kind
from doubtmap.segments.meta import MetaModel, labelled_rows
from doubtmap.segments.table import SegmentTable


@dataclass(frozen=True)
class Judgement:
    """Figures of meta classification (first four) and meta regression on one set of segments.

    Args:
        auroc: of the probability that a segment touches its class.
        accuracy: share of segments on the right side of one half.
        majority: accuracy of always saying what is more frequent.
        auprc_false: area under the precision-recall curve of finding those that touch nothing.
        r2: coefficient of determination of the expected IoU; below 0 is worse than the mean.
        rmse: its root mean squared error.
        mean_rmse: that of always saying the mean.
    """

    auroc: float
    accuracy: float
    majority: float
    auprc_false: float
    r2: float
    rmse: float
    mean_rmse: float


def judge(probability: Array, expected_iou: Array, iou: Array) -> Judgement:
    """Compare what a meta model said with what was.

    Args:
        probability: `(S,)` that the segment touches its class.
        expected_iou: `(S,)`.
        iou: `(S,)` adjusted IoU.
    """
    touches = iou > 0
    right, wrong = Ranking(), Ranking()
    right.update(probability, touches)
    wrong.update(-probability, ~touches)
    error, spread = float(((expected_iou - iou) ** 2).mean()), float(iou.var())
    share = float(touches.mean())
    return Judgement(
        float(right.auroc()),
        float(((probability > 0.5) == touches).mean()),
        max(share, 1 - share),
        float(wrong.average_precision()),
        1 - error / spread if spread else float("nan"),
        error**0.5,
        spread**0.5,
    )


@dataclass(frozen=True, eq=False)
class CrossJudgement:
    """What models said of segments of images that they had not seen.

    Args:
        runs: one judgement for each fold that had labels.
        probability: `(S,)` of the table; NaN where no model could be fitted.
        expected_iou: `(S,)`.
    """

    runs: tuple[Judgement, ...]
    probability: Array
    expected_iou: Array


def cross_judge(
    table: SegmentTable,
    folds: Sequence[Sequence[int]],
    kind: Kind,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> CrossJudgement:
    """Fit on all folds but one, judge on that one, in turn.

    A fold whose complement cannot be fitted to, since all its segments are of one kind, is passed
    over.

    Args:
        table: labelled segments.
        folds: indices of the images of each.
        kind: of the models.
        names: features to use; default: all.
        seed: of the trees.

    Raises:
        DataError: without labels, or where no complement of a fold can be fitted to.
    """
    labelled_rows(table)
    assert table.iou is not None
    labelled = np.isfinite(table.iou)
    probability, expected = np.full(len(table), np.nan), np.full(len(table), np.nan)
    runs, reason = [], DataError("segments: expected images, got none.")
    for fold in folds:
        held = np.isin(table.image, fold)
        if not held.any():
            continue
        try:
            model = MetaModel.fit(table.take(~held), kind, seed, names=tuple(names or table.names))
        except DataError as error:
            reason = error
            continue
        seen = table.take(held)
        probability[held], expected[held] = model.probability(seen), model.expected_iou(seen)
        judged = held & labelled
        if judged.any():
            runs.append(judge(probability[judged], expected[judged], table.iou[judged]))
    if not runs:
        raise reason
    return CrossJudgement(tuple(runs), probability, expected)


def platt(probability: Array, true: Array) -> tuple[float, float]:
    """Slope and shift of the log-odds that make probabilities those of held-out segments.

    Args:
        probability: `(S,)` of models that had not seen the segments.
        true: `(S,)` bool.

    Returns:
        The slope is not below 0: where the models had no skill, all get the share that is true.

    Raises:
        DataError: where all are true, or none is.
    """
    (slope,), shift = logistic(odds(probability)[:, None], true)
    if slope > 0:
        return float(slope), shift
    return 0.0, float(odds(np.array(true.mean())))


def odds(probability: Array) -> Array:
    """Log-odds, held to plus and minus 27.6."""
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside / (1 - inside)))


def cross_calibrated(
    cross: CrossJudgement, table: SegmentTable, folds: Sequence[Sequence[int]]
) -> Array:
    """`(S,)`: what is said of each segment once it is calibrated on the other folds.

    Args:
        cross: what models said of images that they had not seen.
        table: labelled segments.
        folds: indices of the images of each.

    Returns:
        NaN where nothing is said, or the other folds are of one kind.
    """
    assert table.iou is not None
    true, found = table.iou > 0, np.full(len(table), np.nan)
    judged = np.isfinite(table.iou) & np.isfinite(cross.probability)
    for fold in folds:
        held = np.isin(table.image, fold)
        rest = judged & ~held
        if true[rest].any() and not true[rest].all():
            slope, shift = platt(cross.probability[rest], true[rest])
            found[held] = sigmoid(slope * odds(cross.probability[held]) + shift)
    return found


def feature_sets(table: SegmentTable) -> dict[str, tuple[str, ...]]:
    """What to compare: single features, each score's, sizes and probabilities alone, and all."""
    scores = dict.fromkeys(
        name.rpartition(":")[0]
        for name in table.names
        if ":" in name and not name.startswith("probability:")
    )
    single = {f"{name} (mean)": (f"{name}:mean",) for name in scores}
    plain = tuple(name for name in table.names if ":" not in name or "probability:" in name)
    each = {name: tuple(n for n in table.names if n.rpartition(":")[0] == name) for name in scores}
    return single | each | {"sizes and probabilities": plain, "all": table.names}
