"""Which scores a request means: names, functions, or all that a network can give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from doubtmap.engine.run import Run, read_ahead
from doubtmap.prediction import Prediction, Score
from doubtmap.scores import OF_MEMBERS, OF_QUERIES, OF_STUDENTS, STATELESS
from doubtmap.scores.members import said_by_head
from doubtmap.scores.parsing import parse_scores, split_names
from doubtmap.scores.rejection import suited


def scores_asked(
    run: Run, scores: str | Iterable[str | Score] | Mapping[str, Score]
) -> dict[str, Score]:
    """The scores of a request, in which `all` stands for every one without fitting."""
    texts = split_names(scores) if isinstance(scores, str) else []
    if "all" not in texts:
        return parse_scores(scores)
    every = list(possible_scores(run))
    return parse_scores([s for text in texts for s in (every if text == "all" else [text])])


def possible_scores(run: Run) -> dict[str, Score]:
    """All scores without fitting that this network can give."""
    wanted = [*STATELESS, *OF_MEMBERS]
    for _, sample in read_ahead(run.dataset, range(len(run.dataset)), run.skipped):
        told = run.attempt(sample)
        if told is None:
            continue
        prediction, _ = told
        if prediction.queries is not None:
            wanted = [*OF_QUERIES, *wanted]
            best, why = suited(prediction)
            run.notes.append(f"{best} suits this network best for unknown objects: {why}.")
        if prediction.features is None:
            wanted.remove("gradient")
            run.notes.append(
                f"gradient: left out, since it needs the network's features, but "
                f"{prediction.features_missing}."
            )
        if prediction.members is None:
            wanted = [name for name in wanted if name not in OF_MEMBERS]
            if prediction.members_missing != Prediction.members_missing:
                run.notes.append(
                    f"{', '.join(OF_MEMBERS)}: left out, since {prediction.members_missing}."
                )
        if prediction.members is not None or prediction.energy_missing:
            wanted.remove("energy")
            why = prediction.energy_missing or (
                "the logits of several networks or passes are the logarithm of their mean "
                "probability, whose energy is 0 everywhere"
            )
            run.notes.append(f"energy: left out, since {why}.")
        if said_by_head(prediction) is not None:
            wanted += OF_STUDENTS
        break
    return parse_scores(",".join(wanted))
