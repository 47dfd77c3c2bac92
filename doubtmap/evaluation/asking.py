"""Which scores a request means: names, functions, or all that a network can give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from doubtmap.engine.run import Run, read_ahead
from doubtmap.prediction import Prediction, Score
from doubtmap.scores.parsing import parse_asked


def scores_asked(
    run: Run, scores: str | Iterable[str | Score] | Mapping[str, Score]
) -> dict[str, Score]:
    """The scores of a request, in which `all` stands for every one without fitting."""
    found, notes = parse_asked(scores, lambda: first_prediction(run))
    run.notes.extend(notes)
    return found


def first_prediction(run: Run) -> Prediction | None:
    """Of the first image that can be read; None where none can."""
    for _, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        told = run.attempt(sample)
        if told is not None:
            return told[0]
    return None
