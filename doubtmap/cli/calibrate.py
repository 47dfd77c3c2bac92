"""`doubtmap calibrate`: fit a calibrator, and see whether it does any good."""

from __future__ import annotations

import json as json_text
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from doubtmap.cli.commands import OUTPUT, as_command, command_line, option
from doubtmap.cli.options import (
    Data,
    Json,
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
from doubtmap.errors import UsageError

if TYPE_CHECKING:
    from doubtmap.calibration.calibrate import Criterion

CALIBRATION = "Calibration"


def calibrate_command(
    model: Model,
    data: Data,
    network: Network,
    workers: Workers,
    method: Annotated[
        str,
        option(
            CALIBRATION,
            "auto, or one of identity, temperature, class_temperature, temperature_mix, histogram, "
            "isotonic, vector, vector_kept, dirichlet, dirichlet_kept, order_preserving, "
            "argmax_preserving, meta, local, selective, selective_soft, selective_confidence, with "
            "options in brackets.",
        ),
    ] = "auto",
    candidates: Annotated[
        str,
        option(
            CALIBRATION,
            "What auto compares, simplest first. Default: all that keep labels, but for meta.",
        ),
    ] = "",
    by: Annotated[str, option(CALIBRATION, "What auto goes by: ece, brier or nll.")] = "ece",
    replicates: Annotated[int, option(CALIBRATION, "Of the bootstrap.", min=20)] = 300,
    out: Annotated[Path, option(OUTPUT, "The file to write.", metavar="FILE")] = Path(
        "calibrator.safetensors"
    ),
    report: Annotated[
        Path | None,
        option(OUTPUT, "HTML page with reliability diagrams to write.", metavar="FILE"),
    ] = None,
    unknown: Unknown = "",
    limit: Limit = None,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """Fit a calibrator on held-out images; then --calibrator FILE on score and evaluate."""
    if network.calibrator is not None:
        raise UsageError(
            "calibrate: expected a raw network, got --calibrator. Leave it out: the new calibrator "
            "takes its place."
        )
    from doubtmap.calibration import save_calibrator
    from doubtmap.calibration.calibrate import CANDIDATES, calibrate
    from doubtmap.calibration.methods import split_methods
    from doubtmap.calibration.page import comparison_table, with_parts, write_calibration_report
    from doubtmap.files import check_place
    from doubtmap.progress import progress_bar

    seeded(seed)
    for place in filter(None, (out, report)):
        check_place(place)
    dataset = opened(data, seed, limit)
    segmenter, notes = windowed(network.open(model, seed), dataset)
    segmenter = workers.spread(network, model, seed, segmenter)
    with progress_bar() as progress:
        found = calibrate(
            segmenter,
            dataset,
            method,
            candidates=split_methods(candidates) or CANDIDATES,
            unknown=names(unknown),
            by=cast("Criterion", by),
            seed=seed,
            replicates=replicates,
            command=command_line(),
            progress=progress,
        )
    save_calibrator(found.calibrator, out)
    if report is not None:
        write_calibration_report(found, report)
    figures = {name: found.comparison.figures(name) for name in found.comparison.names}
    told = json_text.dumps(with_parts(found, figures), indent=1) if json else None
    typer.echo(told or comparison_table(figures))
    tell_notes([*notes, *found.notes])
    tell(f"Wrote {out}. Use it with --calibrator {shlex.quote(str(out))}.")


EXAMPLE = """
doubtmap calibrate demo synthetic:24 --out calibrator.safetensors
doubtmap calibrate NETWORK camvid:PATH:val --method temperature --report calibration.html
doubtmap evaluate NETWORK camvid:PATH:test --calibrator calibrator.safetensors
"""
command = as_command("calibrate", calibrate_command, EXAMPLE)
