"""The images worth looking at: those with the most missed pixels, and those with the most doubt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from doubtmap.datasets.dataset import Sample
from doubtmap.datasets.reading import in_colour
from doubtmap.engine.run import Run
from doubtmap.engine.shelf import Looked, Shelf
from doubtmap.engine.splitting import sequences_of
from doubtmap.evaluation.results import Example
from doubtmap.evaluation.tally import Row, Tally
from doubtmap.scoring import score_maps

EPISTEMIC = (
    "density",
    "mahalanobis",
    "mutual_information",
    "distilled",
    "negative",
    "member_spread",
)
"""Scores of what the network does not know, best first."""


WORTH = {
    "missed": (
        "most missed",
        "{value:.1%} of the pixels are bad and outside the most doubtful fifth by {score}",
    ),
    "mean": ("most doubt", "mean {score} {value:.3g}"),
}
"""By the figure of an image's row: why it is worth a look, and how that is said."""


def pick_examples(
    run: Run, tally: Tally, count: int, shelf: Shelf | None = None
) -> Iterator[Example]:
    """Third look: the images with the most missed pixels, and those with the most doubt."""
    score = _shown(run)
    epistemic = _epistemic(run, score)
    taken: set[int] = set()
    for key, (reason, detail) in WORTH.items():
        rows = [row for row in _by(tally, score, key) if row["index"] not in taken]
        picked = (_apart(run, rows) if key == "missed" else rows)[:count]
        taken |= {row["index"] for row in picked}
        for row in picked:
            text = detail.format(score=score, value=row["scores"][score][key])
            yield _example(run, row, score, epistemic, reason, text, shelf)


def telling(run: Run, tally: Tally, count: int) -> set[int]:
    """Of a part of the images those that may be picked, whatever the other parts hold."""
    score = _shown(run)
    missed, doubt = (_by(tally, score, key) for key in WORTH)
    # whichever comes early among all images comes as early among a part of them
    rows = (*_apart(run, missed)[:count], *doubt[: 2 * count])
    return {int(row["index"]) for row in rows}


def _apart(run: Run, rows: list[Row]) -> list[Row]:
    """The rows, those first that are the first of their sequence of images."""
    names = [run.dataset.sample_name(index) for index in range(len(run.dataset))]
    of = {at: number for number, group in enumerate(sequences_of(names)) for at in group}
    firsts: dict[int, Row] = {}
    for row in rows:
        firsts.setdefault(of[int(row["index"])], row)
    leading = {int(row["index"]) for row in firsts.values()}
    return [*firsts.values(), *(row for row in rows if int(row["index"]) not in leading)]


def _shown(run: Run) -> str:
    """The score that is shown."""
    if "member_entropy" in run.scores and "mutual_information" in run.scores:
        return "member_entropy"
    return "entropy" if "entropy" in run.scores else next(iter(run.scores))


def _by(tally: Tally, score: str, key: str) -> list[Row]:
    """The rows that have a figure, the largest first; of equals the first image."""
    rows = [row for row in tally.images if row["scores"][score].get(key) is not None]
    return sorted(rows, key=lambda row: (-float(row["scores"][score][key]), int(row["index"])))


def _epistemic(run: Run, shown: str) -> str | None:
    """The score to show beside the shown one, where that is of what the image leaves open."""
    if shown not in ("entropy", "member_entropy"):
        return None
    return next((n for kind in EPISTEMIC for n in run.scores if n.split("(")[0] == kind), None)


def _example(
    run: Run,
    row: Row,
    score: str,
    epistemic: str | None,
    reason: str,
    detail: str,
    shelf: Shelf | None,
) -> Example:
    index = int(row["index"])
    sample = run.dataset[index]
    wanted = [score] if epistemic is None else [score, epistemic]
    looked = shelf.get(index) if shelf and index in shelf else _look(run, sample, wanted)
    maps = {name: looked.maps[name] for name in wanted}
    doubt, *other = (values.cpu().numpy().astype(np.float32) for values in maps.values())
    return Example(
        name=row["image"],
        reason=reason,
        detail=detail,
        image=in_colour(sample.image),
        label=looked.label.long().numpy(),
        predicted=looked.classes.numpy(),
        doubt=doubt,
        score=score,
        epistemic=other[0] if other else None,
        epistemic_score=epistemic or "",
    )


def _look(run: Run, sample: Sample, wanted: list[str]) -> Looked:
    """What the first pass had made of an image."""
    prediction, label = run.predict(sample)
    maps = score_maps(prediction, {name: run.scores[name] for name in wanted})
    return Looked(label.cpu(), prediction.classes[0].cpu().to(torch.int16), maps)
