"""`doubtmap export`: a network with its doubts in one file that other programs run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from doubtmap.cli.commands import OUTPUT, as_command, command_line, option
from doubtmap.cli.commands import SCORES as SCORES_GROUP
from doubtmap.cli.options import (
    Json,
    Model,
    Network,
    Seed,
    seeded,
)
from doubtmap.cli.telling import tell
from doubtmap.cli.texts import read_size

if TYPE_CHECKING:
    from doubtmap.deploy.doubts import Doubts
    from doubtmap.deploy.export import Format, Input


def export_command(
    model: Model,
    network: Network,
    scores: Annotated[
        str, option(SCORES_GROUP, "As of doubtmap score; each becomes an output of the file.")
    ] = "max_softmax,entropy",
    out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "The file to write, or the folder of triton. Default: net, as the format ends.",
            metavar="FILE",
        ),
    ] = None,
    format: Annotated[
        str | None,
        option(
            OUTPUT,
            "onnx, pt2, openvino (.xml and .bin), or triton, a folder of its model repository. "
            "Default: as --out ends, else onnx.",
        ),
    ] = None,
    input: Annotated[
        str, option(OUTPUT, "What images the file takes: float in [0, 1], or uint8.")
    ] = "float",
    size: Annotated[
        str | None,
        option(OUTPUT, "The one size of images that the file takes. Default: any.", metavar="HxW"),
    ] = None,
    doubts: Annotated[
        str, option(OUTPUT, "How doubts are written: float, or uint8 with its scale.")
    ] = "float",
    opset: Annotated[
        int | None, option(OUTPUT, "Of ONNX, 12 to 20. Default: 18.", metavar="N")
    ] = None,
    threshold: Annotated[
        Path | None,
        option(
            OUTPUT, "A file of doubtmap threshold: pixels above it are flagged.", metavar="FILE"
        ),
    ] = None,
    native: Annotated[
        bool,
        option(
            OUTPUT,
            "Write native logits alone, of which doubtmap.runtime or doubtmap_pixels.h make the "
            "rest: the quickest on a CPU.",
            "--native",
        ),
    ] = False,
    native_logits: Annotated[
        bool,
        option(
            OUTPUT,
            "Give the logits at the network's own resolution, too, so that score and evaluate "
            "can open the file.",
            "--native-logits",
        ),
    ] = False,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """A network with its doubts in one file, ONNX or torch.export, held to the library."""
    import json as json_text

    from doubtmap.calibration import Calibrated, load_calibrator
    from doubtmap.decisions import load_threshold
    from doubtmap.deploy.export import Form, check_end, export
    from doubtmap.deploy.formats import ENDS
    from doubtmap.files import check_place
    from doubtmap.scores.parsing import parse_scores

    seeded(seed)
    kinds = {end: kind for kind, end in ENDS.items() if end}
    form = Form(
        cast("Format", format or kinds.get(out.suffix if out else "", "onnx")),
        cast("Input", input),
        read_size("--size", size) if size is not None else None,
        cast("Doubts", doubts),
        logits=native_logits,
        native=native,
        **({} if opset is None else {"opset": opset}),
    )
    out = out or Path(f"net{ENDS[form.format]}")
    check_end(out, form.format)
    check_place(out / "config.pbtxt" if form.format == "triton" else out)
    opened = replace(network, calibrator=None).open(model, seed)
    calibrator = None
    about: dict[str, Any] = {"command": command_line(), "calibrator": None}
    if network.calibrator is not None:
        calibrator = load_calibrator(network.calibrator)
        calibrated = Calibrated(opened, calibrator, str(network.calibrator))
        about["calibrator"] = calibrated.description["calibrator"]
    parity = export(
        opened,
        parse_scores(scores),
        out,
        form,
        calibrator=calibrator,
        threshold=load_threshold(threshold) if threshold is not None else None,
        about=about,
    )
    typer.echo(json_text.dumps(parity.described(), indent=1) if json else parity.sentence())
    inside = "in" if form.format == "triton" else "beside"
    tell(f"Wrote {out}, and parity.json {inside} it.")


EXAMPLE = """
doubtmap export demo --scores entropy,max_softmax --out net.onnx
doubtmap export NETWORK --scores entropy,max_softmax --doubts uint8 --threshold FILE --native
doubtmap export NETWORK --format triton --out models/net
"""
command = as_command("export", export_command, EXAMPLE)
