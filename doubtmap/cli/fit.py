"""`doubtmap fit`: scores and meta models, that learn from data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doubtmap.cli.commands import OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    Data,
    Limit,
    Model,
    Network,
    Seed,
    Unknown,
    Workers,
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell, tell_notes
from doubtmap.cli.texts import names

if TYPE_CHECKING:
    from doubtmap.datasets import Dataset
    from doubtmap.prediction import Segmenter
    from doubtmap.scores.default import Doubt
    from doubtmap.scores.density import Density
    from doubtmap.scores.sums import Sum
    from doubtmap.scores.wrong import Wrong
    from doubtmap.segments.estimators import Kind
    from doubtmap.segments.fitting import Target


def fit(
    score: Annotated[
        str,
        typer.Argument(
            help="doubt, density, sum, wrong, segments or objects, options in brackets, as in "
            "density(certainty=0,covariance=tied), segments(kind=linear,target=published) or "
            "objects(smallest=100).",
            metavar="SCORE",
        ),
    ],
    model: Model,
    data: Data,
    network: Network,
    workers: Workers,
    out: Annotated[Path, option(OUTPUT, "File for the fitted score.", metavar="FILE")],
    scores: Annotated[
        str,
        option(SCORES, "From what, as in entropy,margin,density:FILE; of objects: one score."),
    ] = "",
    threshold: Annotated[
        str | None,
        option(SCORES, "Of objects: a number, or a file of doubtmap threshold, with its score."),
    ] = None,
    unknown: Unknown = "",
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Fit to a network and images; then --scores NAME:FILE, review --segments FILE, or objects."""
    from doubtmap.errors import UsageError
    from doubtmap.fitting import fit_score
    from doubtmap.objects.fitting import parse_objects
    from doubtmap.progress import progress_bar
    from doubtmap.scores.parsing import needs_labels
    from doubtmap.segments.fitting import parse_segments

    seeded(seed)
    wanted, things = parse_segments(score), parse_objects(score)
    if (things is None) != (threshold is None):
        raise UsageError(
            "fit: expected --threshold with objects, a number or a file of doubtmap threshold, "
            "and with nothing else."
        )
    segmenter = network.open(model, seed)
    if things is not None and threshold is not None:
        dataset = opened(data, seed, limit)
        segmenter, notes = windowed(segmenter, dataset)
        tell_notes(notes)
        _fit_objects(segmenter, dataset, scores, threshold, things, unknown, out)
        return
    if wanted is not None:
        dataset = opened(data, seed, limit)
        segmenter, notes = windowed(segmenter, dataset)
        segmenter = workers.spread(network, model, seed, segmenter)
        tell_notes(notes)
        _fit_segments(segmenter, dataset, scores, *wanted, unknown, out, seed)
        return
    dataset = opened(data, seed, limit, unlabelled=not needs_labels(score))
    segmenter, notes = windowed(segmenter, dataset)
    segmenter = workers.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        fitted = fit_score(
            score,
            segmenter,
            dataset,
            scores=scores,
            unknown=names(unknown),
            seed=seed,
            out=out,
            command=command_line(),
            progress=progress,
        )
    tell_notes([*notes, *fitted.notes])
    typer.echo(f"{out}: {_summary(fitted)}; use it with --scores {fitted.name}:{out}")


def _fit_objects(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str,
    threshold: str,
    options: dict[str, Any],
    unknown: str,
    out: Path,
) -> None:
    from doubtmap.cli.objects import check_threshold, score_and_threshold
    from doubtmap.objects import ObjectRule
    from doubtmap.objects.find import class_indices
    from doubtmap.objects.fitting import fit_objects, write_reliability
    from doubtmap.progress import progress_bar
    from doubtmap.reports.page import plain_table

    check_threshold(threshold)
    scored, above, about = score_and_threshold(segmenter, scores or None, threshold)
    on = options.pop("on", ())
    rule = ObjectRule(above, **options, on=class_indices(on, segmenter.class_names))
    with progress_bar() as progress:
        model, told = fit_objects(
            segmenter,
            dataset,
            str(about["score"]),
            scored,
            rule,
            unknown=names(unknown),
            out=out,
            command=command_line(),
            progress=progress,
        )
    tell_notes(model.notes)
    typer.echo(plain_table(told.rows()))
    page = out.with_suffix(".html")
    write_reliability(model, told, page)
    use = f"doubtmap objects MODEL IMAGES --probability {shlex.quote(str(out))}"
    tell(f"Wrote {out} and {page}. Use it with: {use}")


def _fit_segments(
    segmenter: Segmenter,
    dataset: Dataset,
    scores: str,
    kind: Kind,
    target: Target,
    unknown: str,
    out: Path,
    seed: int,
) -> None:
    from doubtmap.progress import progress_bar
    from doubtmap.segments.fitted import segments_table, write_reliability
    from doubtmap.segments.fitting import SCORES as USUAL
    from doubtmap.segments.fitting import fit_segments

    with progress_bar() as progress:
        found = fit_segments(
            segmenter,
            dataset,
            scores or USUAL,
            kind,
            target=target,
            unknown=names(unknown),
            out=out,
            seed=seed,
            command=command_line(),
            progress=progress,
        )
    tell_notes(found.notes)
    typer.echo(segments_table(found))
    page = out.with_suffix(".html")
    write_reliability(found, page)
    use = f"doubtmap review MODEL IMAGES --segments {shlex.quote(str(out))}"
    tell(f"Wrote {out} and {page}. Use it with: {use}")


def _summary(fitted: Density | Doubt | Sum | Wrong) -> str:
    from doubtmap.scores.default import Doubt
    from doubtmap.scores.sums import Sum
    from doubtmap.scores.wrong import Wrong

    if isinstance(fitted, Wrong):
        return f"from {len(fitted.used)} of {len(fitted.texts)} scores"
    if isinstance(fitted, Sum):
        return f"of {len(fitted.texts)} scores, scaled on {fitted.origin.facts['images']} images"
    if isinstance(fitted, Doubt):
        features = fitted.familiar.mean.shape[1]
        images = fitted.origin.facts["images"]
        return f"from {images} images, over {features} features of {fitted.layer}"
    features = fitted.gaussians.mean.shape[1]
    return f"over {features} features of {fitted.layer}, certainty {fitted.certainty:g}"


EXAMPLE = """
doubtmap fit density demo synthetic:24 --out density.safetensors
doubtmap fit objects demo synthetic:24 --scores entropy --threshold 0.8 --out objects.json
doubtmap evaluate demo synthetic:8 --scores density:density.safetensors,entropy
"""
command = as_command("fit", fit, EXAMPLE)
