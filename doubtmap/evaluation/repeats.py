"""Several evaluations that differ in their draws only: mean and deviation of each figure.

Reference:
    Simultaneous Semantic Segmentation and Outlier Detection in Presence of Domain Shift (Bevandic
    et al., 2019), https://arxiv.org/abs/1908.01098: the pass over WD-Pascal is repeated with other
    objects, and figures are means over the passes.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.engine.journal import claim
from doubtmap.engine.settings import data_settings, model_settings, score_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.asking import PLAIN, Options
from doubtmap.evaluation.evaluate import evaluate
from doubtmap.evaluation.results import Results
from doubtmap.files import alone, write_atomically, writing_to
from doubtmap.files.resuming import hold_samples
from doubtmap.prediction import Score, Segmenter
from doubtmap.scores.parsing import parse_scores, split_names

SEGMENTATION = ("miou", "accuracy")


UNKNOWN = ("auprc", "auroc", "fpr95", "siou", "ppv", "f1")


Figures = dict[str, Any]


@alone
def evaluate_passes(
    segmenter: Segmenter,
    passes: Sequence[Dataset],
    scores: str | Iterable[str | Score] | Mapping[str, Score],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    options: Options = PLAIN,
    **more: Any,
) -> Results:
    """Evaluate the passes one by one.

    Args:
        segmenter: the network.
        passes: data sets that differ in their draws only, such as `Pasted` ones of several seeds.
        scores: as of `evaluate`.
        out: folder for what an interrupted run keeps; without it nothing is kept on disk.
        resume: go on with the run in `out`, if there is one; passes that are done stay done.
        options: as of `evaluate`; its `save` is called once, with the results of all passes.
        more: further arguments of `evaluate`, the same for each pass.

    Returns:
        The results of the first pass, with `passes` besides: for the figures of the segmentation
        and of the unknown, `mean`, `deviation` (divisor `count - 1`) and `values`, one a pass.

    Raises:
        UsageError: without a pass, or where `out` holds another run.
        DataError, ModelError: as `evaluate`.
    """
    if not passes:
        raise UsageError("evaluate: expected at least 1 pass, got none. Give --repeats 1 or more.")
    if len(passes) == 1:
        return evaluate(
            segmenter, passes[0], scores, out=out, resume=resume, options=options, **more
        )
    if options.yours is not None:
        raise UsageError("metrics: expected one pass, got several. Leave one of them out.")
    scores = scores if isinstance(scores, str | Mapping) else list(scores)
    kept = Path(out) / ".passes" if out else None
    if kept is not None:
        claim(kept, _settings(segmenter, passes, scores, options, more), resume, kept.exists())
        marks = sample_marks(passes[0])
        hold_samples(kept / "settings.json", marks, marks if any(kept.glob("[0-9]*.json")) else [])
    others = [
        _done(segmenter, dataset, scores, kept and kept / str(at), options, more)
        for at, dataset in enumerate(passes[1:], 2)
    ]

    def save_all(results: Results) -> None:
        summary = summarised([results.figures, *others], [dataset.name for dataset in passes])
        results.figures["passes"] = summary
        results.figures["notes"].extend(sentences(summary))
        if options.save:
            options.save(results)

    first = kept and kept / "1"
    results = evaluate(
        segmenter,
        passes[0],
        scores,
        out=first,
        resume=True,
        options=replace(options, save=save_all),
        **more,
    )
    if kept is not None:
        with writing_to(kept):
            shutil.rmtree(kept)
    return results


def summarised(figures: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figures:
    """Mean and deviation over the passes.

    Args:
        figures: of each pass, as in `results.json`.
        names: of each pass.
    """
    return {
        "count": len(figures),
        "data": list(names),
        "segmentation": {
            key: spread([each["segmentation"][key] for each in figures]) for key in SEGMENTATION
        },
        "scores": {
            score: {
                "unknown": {
                    key: spread([each["scores"][score]["unknown"][key] for each in figures])
                    for key in UNKNOWN
                }
            }
            for score in figures[0]["scores"]
        },
    }


def spread(values: Sequence[float | None]) -> Figures:
    """Mean and deviation, None where a pass does not define the figure.

    Example:
        >>> spread([0.25, 0.75])["mean"]
        0.5
    """
    defined = [value for value in values if value is not None]
    whole = len(defined) == len(values)
    return {
        "mean": statistics.fmean(defined) if whole else None,
        "deviation": statistics.stdev(defined) if whole and len(defined) > 1 else None,
        "values": list(values),
    }


def sentences(summary: Figures) -> list[str]:
    """The figure that the protocol goes by, for those who do not open `results.json`."""
    found = {name: each["unknown"]["auprc"] for name, each in summary["scores"].items()}
    told = [
        f"{name} {figure['mean']:.4f} (deviation {figure['deviation']:.4f})"
        for name, figure in found.items()
        if figure["mean"] is not None
    ]
    start = f"All other figures are of the first of {summary['count']} passes"
    if not told:
        return [f"{start}, {summary['data'][0]}."]
    return [f"{start}, {summary['data'][0]}. AUPRC of the unknown over all: {', '.join(told)}."]


def _done(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str | Mapping[str, Score] | list[str | Score],
    place: Path | None,
    options: Options,
    more: Figures,
) -> Figures:
    """The figures of one pass, read where it was done before."""
    file = place and place.with_suffix(".json")
    if file is not None and file.exists():
        try:
            figures: Figures = json.loads(file.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read ({error}). Remove it to go on.") from error
        return figures

    def save(results: Results) -> None:
        if file is not None:
            plain = {key: results.figures[key] for key in ("segmentation", "scores")}
            write_atomically(file, json.dumps(plain, default=str).encode())

    results = evaluate(
        segmenter,
        dataset,
        scores,
        out=place,
        resume=True,
        options=replace(options, examples=0, maps=None, save=save),
        **more,
    )
    return results.figures


def _settings(
    segmenter: Segmenter,
    passes: Sequence[Dataset],
    scores: str | Mapping[str, Score] | list[str | Score],
    options: Options,
    more: Figures,
) -> Figures:
    """What must be the same for the passes that are done to count."""
    every = isinstance(scores, str) and "all" in split_names(scores)
    asked = {"scores": scores} if every else score_settings(parse_scores(scores))
    other, own = more.get("open_set"), ("bins", "component_sizes", "thresholds")
    return {
        **model_settings(segmenter),
        "passes": [data_settings(dataset) for dataset in passes],
        **asked,
        "open_set": data_settings(other) if isinstance(other, Dataset) else other,
        "options": {
            **{key: str(getattr(options, key)) for key in own},
            **{k: str(more[k]) for k in ("unknown", "seed", "replicates", "skip_bad") if k in more},
        },
    }
