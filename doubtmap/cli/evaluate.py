"""`doubtmap evaluate`: figures of scores on a labelled data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from doubtmap.cli.commands import DATA, OUTPUT, SCORES, as_command, command_line, option
from doubtmap.cli.options import (
    AllScores,
    Data,
    Limit,
    Model,
    Network,
    Out,
    Parquet,
    Places,
    Resume,
    Seed,
    SkipBad,
    Unknown,
    opened,
    seeded,
    windowed,
)
from doubtmap.cli.telling import tell, tell_notes
from doubtmap.cli.texts import names
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.datasets import Dataset
    from doubtmap.evaluation.results import Results
    from doubtmap.prediction import Segmenter

FIGURES = "Figures"


def evaluate_command(
    model: Model,
    data: Data,
    network: Network,
    places: Places,
    scores: AllScores = "all",
    unknown: Unknown = "",
    out: Out = Path("results"),
    json: Annotated[bool, option(OUTPUT, "Print results.json to stdout.", "--json")] = False,
    csv: Annotated[bool, option(OUTPUT, "Print the table as CSV.", "--csv")] = False,
    component_sizes: Annotated[
        str | None,
        option(FIGURES, "Smallest predicted and labelled component, as in 500,100."),
    ] = None,
    bins: Annotated[int, option(FIGURES, "Of the reliability diagram.", min=2)] = 15,
    replicates: Annotated[int, option(FIGURES, "Of the bootstrap over images.", min=20)] = 300,
    paste: Annotated[
        str | None,
        option(DATA, "Objects to paste as unknown, one an image: PATH, PATH:train, PATH:test."),
    ] = None,
    paste_only: Annotated[
        str, option(DATA, "Classes of objects. Default: those that the model lacks.")
    ] = "",
    repeats: Annotated[int, option(DATA, "Passes, each pasting other objects.")] = 1,
    open_set: Annotated[
        str | None,
        option(
            FIGURES,
            "Other data whose unknown objects set the thresholds of the open-set mIoU, or a "
            "field of the images' paths, such as town: each part has those of the others.",
        ),
    ] = None,
    against: Annotated[
        str,
        option(
            FIGURES,
            "FOLDER or FOLDER:SCORE of another evaluation of these images: how far the means by "
            "predicted class are off from its.",
        ),
    ] = "",
    metrics: Annotated[
        str,
        option(FIGURES, "Your own: python:FILE.py:CLASS, or the names that packages give theirs."),
    ] = "",
    threshold: Annotated[
        list[Path] | None,
        option(
            SCORES, "A file of doubtmap threshold, for the components of its score.", metavar="FILE"
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        option(
            SCORES,
            "A file of doubtmap fit segments: what to look at first, with crops.",
            metavar="FILE",
        ),
    ] = None,
    maps: Annotated[
        bool,
        option(OUTPUT, "Keep classes, labels and doubt maps in OUT, for doubtmap view.", "--maps"),
    ] = False,
    parquet: Parquet = False,
    by: Annotated[
        str | None,
        option(
            FIGURES,
            "A field of the images, as case of volumes, or sequence: figures of each.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        option(FIGURES, "Of --by case: within which surfaces are one, mostly in mm.", min=0),
    ] = 1.0,
    limit: Limit = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
) -> None:
    """Figures of scores on a labelled data set: results.json and report.html."""
    numbers = _numbers(component_sizes)
    if paste is None and (paste_only or repeats != 1):
        raise UsageError("--paste-only, --repeats: expected --paste with them. Add it.")
    from doubtmap.datasets import ComponentSizes, open_dataset
    from doubtmap.decisions.file import load_threshold
    from doubtmap.evaluation.asking import Options, asked_of
    from doubtmap.evaluation.cases import Cases, cases_text, write_cases
    from doubtmap.evaluation.parts import evaluate_part
    from doubtmap.evaluation.repeats import evaluate_passes
    from doubtmap.evaluation.report import write_evaluation
    from doubtmap.evaluation.table import print_figures
    from doubtmap.evaluation.yours import metrics_text
    from doubtmap.files.parquet import check_parquet
    from doubtmap.progress import progress_bar
    from doubtmap.segments import MetaModel

    if by is None and tolerance != 1:
        raise UsageError("--tolerance: expected --by case with it. Add it.")
    if by is not None and repeats != 1:
        raise UsageError("--by: expected one pass, got --repeats. Leave one of them out.")

    if parquet:
        check_parquet()

    def write_all(results: Results, out: Path) -> None:
        write_evaluation(results, out, parquet)
        if by:
            write_cases(results.figures["by"], out / "cases.csv")

    seeded(seed)
    segmenter = network.open(model, seed)
    notes: list[str] = []
    dataset = opened(data, seed, limit, notes)
    kept = [out / folder / "settings.json" for folder in (".passes", ".progress")]
    segmenter, of_windows = windowed(segmenter, dataset, *(kept if resume else ()))
    begun = out / ".progress" if resume else None
    place = places.place(network, model, seed, segmenter, begun)
    if place.part:
        _check_part({"--open-set": open_set, "--segments": segments, "--repeats": repeats > 1})
        if parquet:
            raise UsageError("--parquet: expected without --part. Give it to doubtmap merge.")
        if maps:
            raise UsageError("--maps: expected without --part, whose maps are not merged. Omit it.")
    if by and (place.part or place.elsewhere):
        raise UsageError("--by: expected without --part, --workers and --engine. Leave one out.")
    other = open_dataset(open_set, seed=seed + 1) if open_set and ":" in open_set else open_set
    passes, of_pasting = _passes(
        segmenter, dataset, names(unknown), paste, names(paste_only), seed, repeats
    )
    options = Options(
        bins=bins,
        component_sizes=ComponentSizes(*numbers) if numbers else None,
        thresholds=[load_threshold(file) for file in threshold or ()],
        segments=MetaModel.load(segments) if segments else None,
        cases=Cases(by, tolerance) if by else None,
        metrics=metrics,
        against=against,
        notes=[*notes, *of_windows, *of_pasting],
        command=command_line(),
        maps=out if maps else None,
        save=lambda results: write_all(results, out),
        place=place,
    )
    with progress_bar() as progress:
        wanted: dict[str, Any] = {
            "unknown": names(unknown),
            "skip_bad": skip_bad,
            "seed": seed,
            "replicates": replicates,
            "options": options,
            "progress": progress,
        }
        if place.part:
            tell(
                evaluate_part(asked_of(segmenter, passes[0], scores, **wanted), out, resume=resume)
            )
            return
        results = evaluate_passes(
            segmenter, passes, scores, open_set=other or None, out=out, resume=resume, **wanted
        )
    tell_notes(results.figures["notes"])
    if by and not json and not csv:
        tell(cases_text(results.figures["by"]))
    if "metrics" in results.figures and not json and not csv:
        tell(metrics_text(results.figures["metrics"]))
    print_figures(results.figures, style="json" if json else "csv" if csv else "table")


def _check_part(others: Mapping[str, object]) -> None:
    """Refuse what looks at all images."""
    if apart := [flag for flag, given in others.items() if given]:
        raise UsageError(
            f"--part: expected without {' and '.join(apart)}, which look at all images. Leave "
            f"them out, or evaluate without parts."
        )


def _passes(
    segmenter: Segmenter,
    dataset: Dataset,
    unknown: list[str],
    paste: str | None,
    only: list[str],
    seed: int,
    repeats: int,
) -> tuple[list[Dataset], list[str]]:
    """The data set as it is, or with objects pasted, once or several times."""
    if paste is None:
        return [dataset], []
    from doubtmap.datasets import pasted_passes

    taught = segmenter.class_names or [c for c in dataset.class_names if c not in unknown]
    passes, notes = pasted_passes(dataset, paste, taught, only=only, seed=seed, passes=repeats)
    return [*passes], notes


def _numbers(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    predicted, _, labelled = text.partition(",")
    if not (predicted.isdecimal() and labelled.isdecimal()):
        raise UsageError(f"--component-sizes: expected two numbers such as 500,100, got {text}.")
    return int(predicted), int(labelled)


EXAMPLE = """
doubtmap evaluate demo synthetic:24 --unknown rest --out results
doubtmap evaluate NETWORK camvid:PATH:test --scores entropy,gradient --limit 20
doubtmap evaluate --config results/options.toml --scores all --out again
"""
command = as_command("evaluate", evaluate_command, EXAMPLE)
