"""Stage `images` of `benchmarks/segments.py`: what is expected of images, and what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from segment_tables import UNKNOWN_CLASSES, camvid, interval

from doubtmap.engine.splitting import folds_of
from doubtmap.segments import MetaModel, SegmentTable, cross_judge, image_figures
from doubtmap.segments.fitting import LabelledSegments
from doubtmap.segments.look_first import area, share_found


def images_stage(work: Path, shared: Path, _: Path | None) -> Iterator[dict[str, Any]]:
    """Expected figures of images of test, and what a ranking by them finds.

    By a meta model fitted to val, another sequence, and, as `by image`, by models of the other
    four fifths of test. For comparison: lines from mean scores, and from the same two expectations
    and mean confidence (`review, lines`), fitted to the images of val; `by image`, lines from mean
    scores of the other four fifths.
    """
    for title, unknown in (("", ()), (" with unknown", UNKNOWN_CLASSES)):
        val, test = (camvid(work, shared, split, unknown) for split in ("val", "test"))
        model = MetaModel.fit(val.table, "boosting")
        said = {"review": image_figures(test.table, model.expected_iou(test.table))}
        within = {"review": image_figures(test.table, cross_expected(test))}
        both = np.column_stack(image_figures(val.table, cross_expected(val)))
        said["review, lines"] = lines(both, val, np.column_stack(said["review"]))
        for score in ("max_softmax", "entropy", "margin", "density"):
            means = [mean_score(found.table, score) for found in (val, test)]
            said[f"mean {score}"] = lines(means[0][:, None], val, means[1][:, None])
            within[f"mean {score}"] = by_folds(test, means[1][:, None])
        fitted_mean = (np.full(len(test.miou), val.miou.mean()), val.wrong_share.mean())
        for name, guesses in (
            (f"camvid test{title}", said),
            (f"camvid test{title}, by image", within),
        ):
            for guess, (miou, wrong) in guesses.items():
                row: dict[str, Any] = {"name": guess, "set": name}
                row |= compared("miou", miou, test.miou)
                row |= compared("wrong", wrong, test.wrong_share)
                yield row | found_early(wrong, test.wrong)
        yield {
            "name": "mean of val",
            "set": f"camvid test{title}",
            "miou_mae": float(np.abs(test.miou - fitted_mean[0]).mean()),
            "wrong_mae": float(np.abs(test.wrong_share - fitted_mean[1]).mean()),
        }
        orders = np.random.default_rng(0).random((200, len(test.wrong)))
        by_chance = np.mean([area(share_found(order, test.wrong)) for order in orders])
        for where in ("", ", by image"):
            name = f"camvid test{title}{where}"
            yield {"name": "random order", "set": name, "found_area": float(by_chance)}
            best = found_early(test.wrong, test.wrong)
            yield {"name": "oracle", "set": name, **best}


def cross_expected(found: LabelledSegments) -> np.ndarray:
    """IoU that models of the other folds expect of each segment."""
    folds, _ = folds_of(found.table.image_names, 5)
    return cross_judge(found.table, folds, "boosting").expected_iou


def lines(
    seen: np.ndarray, found: LabelledSegments, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares from columns to mIoU and share of wrong pixels, applied to other images."""
    design, at = (np.column_stack([np.ones(len(x)), x]) for x in (seen, other))
    targets = np.column_stack([found.miou, found.wrong_share])
    said = at @ np.linalg.lstsq(design, targets, rcond=1e-6)[0]
    return said[:, 0], said[:, 1]


def by_folds(found: LabelledSegments, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, of images of other folds."""
    said = np.zeros((2, len(seen)))
    for fold in folds_of(found.table.image_names, 5)[0]:
        others = np.setdiff1d(np.arange(len(seen)), fold)
        part = replace(
            found,
            miou=found.miou[others],
            wrong=found.wrong[others],
            labelled=found.labelled[others],
        )
        said[:, fold] = lines(seen[others], part, seen[fold])
    return said[0], said[1]


def mean_score(table: SegmentTable, score: str) -> np.ndarray:
    """Mean of a score over the pixels of each image."""
    size = table["size"]
    total = np.bincount(table.image, size * table[f"{score}:mean"])
    return total / np.bincount(table.image, size)


def compared(what: str, expected: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """How expected figures of images follow the true ones."""
    rows = np.arange(len(true))
    return {
        f"{what}_pearson": float(np.corrcoef(expected, true)[0, 1]),
        f"{what}_pearson_interval": interval(
            lambda r: float(np.corrcoef(expected[r], true[r])[0, 1]), rows
        ),
        f"{what}_spearman": float(spearmanr(expected, true)[0]),
        f"{what}_mae": float(np.abs(expected - true).mean()),
        f"{what}_mae_of_mean": float(np.abs(true - true.mean()).mean()),
    }


def found_early(order_by: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """Area of the curve, its value after a tenth and a fifth of the images, and the curve."""
    points = share_found(order_by, wrong).tolist()
    at = np.linspace(0, len(points) - 1, 51).round().astype(int)
    rows = np.arange(len(wrong))
    return {
        "found_area": area(np.array(points)),
        "found_area_interval": interval(lambda r: area(share_found(order_by[r], wrong[r])), rows),
        "found_in_tenth": points[round(len(wrong) * 0.1)],
        "found_in_fifth": points[round(len(wrong) * 0.2)],
        "found_curve": [round(points[k], 4) for k in at],
    }
