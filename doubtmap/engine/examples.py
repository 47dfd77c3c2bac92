"""The images worth looking at: those with the most doubt, and those with the most missed pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from doubtmap.engine.observation import score_maps
from doubtmap.engine.results import Example
from doubtmap.engine.run import Run
from doubtmap.engine.tally import Tally


def pick_examples(run: Run, tally: Tally, count: int) -> Iterator[Example]:
    """Third pass: the images with the most doubt, and those with the most missed pixels."""
    score = "entropy" if "entropy" in run.scores else next(iter(run.scores))
    taken: set[int] = set()
    for key, reason, detail in (
        ("mean", "most doubt", "mean {score} {value:.3g}"),
        (
            "missed",
            "most missed",
            "{value:.1%} of the pixels are bad and outside the most doubtful fifth by {score}",
        ),
    ):
        rows = [row for row in tally.images if row["scores"][score].get(key) is not None]
        rows.sort(key=lambda row, key=key: -float(row["scores"][score][key]))  # type: ignore[misc]
        picked = [row for row in rows if row["index"] not in taken][:count]
        taken |= {row["index"] for row in picked}
        for row in picked:
            text = detail.format(score=score, value=row["scores"][score][key])
            yield _example(run, row["index"], score, reason, text)


def _example(run: Run, index: int, score: str, reason: str, detail: str) -> Example:
    sample = run.dataset[index]
    prediction, label = run.predict(sample)
    doubt = score_maps(prediction, {score: run.scores[score]})[score]
    return Example(
        name=sample.name,
        reason=reason,
        detail=detail,
        image=sample.image.permute(1, 2, 0).numpy(),
        label=label.cpu().numpy(),
        predicted=prediction.classes[0].cpu().numpy().astype(np.int16),
        doubt=doubt.cpu().numpy().astype(np.float32),
        score=score,
    )
