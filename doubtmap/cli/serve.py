"""`doubtmap serve`: a network with its doubts behind an address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doubtmap.cli.commands import SCORES, as_command, option
from doubtmap.cli.options import (
    Model,
    Network,
    Range,
    Scores,
    Seed,
    score_or_usual,
    seeded,
)
from doubtmap.cli.telling import tell, tell_notes
from doubtmap.cli.texts import read_range
from doubtmap.errors import UsageError
from doubtmap.service.limits import Limits

if TYPE_CHECKING:
    from doubtmap.prediction import Prediction

SERVING = "Serving"


def serve_command(
    model: Model,
    network: Network,
    limits: Annotated[Limits, SERVING],
    scores: Scores = None,
    threshold: Annotated[
        Path | None,
        option(SCORES, "A file of doubtmap threshold: what counts as doubt.", metavar="FILE"),
    ] = None,
    range: Range = None,
    name: Annotated[
        str | None, option(SERVING, "Of the model in the protocol. Default: after MODEL.")
    ] = None,
    host: Annotated[
        str, option(SERVING, "Address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, option(SERVING, "0 takes a free one.", min=0, max=65535)] = 8000,
    seed: Seed = 0,
) -> None:
    """A network behind an address: images in, classes and doubts out; with a page to look at."""
    from doubtmap.decisions import load_threshold
    from doubtmap.engine.settings import bands_needed
    from doubtmap.models.layers import probe_image
    from doubtmap.scores.parsing import parse_asked
    from doubtmap.service.answers import Answering
    from doubtmap.windows.automatic import device_of

    web = _web()
    span = read_range(range)
    seeded(seed)
    chosen = None if threshold is None else load_threshold(threshold)
    segmenter = network.open(model, seed)
    wanted = score_or_usual(scores, segmenter)

    def first() -> Prediction:
        return segmenter(probe_image(bands_needed(segmenter)))

    asked, notes = parse_asked(wanted, first)
    answering = Answering(name or name_of(model), segmenter, asked, chosen, span)
    on_gpu = device_of(segmenter).type != "cpu"
    service = web.Service(answering, limits.on(gpu=on_gpu))
    tell_notes([*notes, *answering.notes, *_to_the_world(host)])
    web.serve(service, host, port, lambda address: tell(_ready(address, answering.name)))
    typer.echo(service.metrics.sentence())


def _web() -> Any:
    """The web application, where its libraries are there."""
    try:
        from doubtmap.service import web
    except ImportError as error:
        raise UsageError(
            f"serve: needs {error.name}, which is not here. Install it with: pip install "
            f"'doubtmap[serve]'"
        ) from error
    return web


def name_of(model: str) -> str:
    """What a model is called in the protocol's addresses.

    Example:
        >>> name_of("../networks/city 1.onnx"), name_of("python:mine.py:build"), name_of("demo")
        ('city-1', 'build', 'demo')
    """
    last = Path(model.rpartition(":")[2] if model.startswith("python:") else model)
    name = last.name.removesuffix(last.suffix) if last.suffix in SUFFIXES else last.name
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"


SUFFIXES = (".onnx", ".pt2", ".xml", ".pt", ".pth", ".safetensors", ".ts")


def _ready(address: str, name: str) -> str:
    return (
        f"{name} at {address}: a page at /, POST /doubt, the open inference protocol at "
        f"/v2/models/{name}, /metrics; stop with Ctrl-C."
    )


def _to_the_world(host: str) -> list[str]:
    """What who listens to others must know."""
    if host in ("localhost", "::1") or host.startswith("127."):
        return []
    return [
        f"--host {host}: every machine that reaches this one can use the service, without a "
        f"password and unencrypted. Put a proxy before it that sees to both."
    ]


EXAMPLE = """
doubtmap serve demo
doubtmap serve NETWORK --scores entropy,max_softmax --calibrator FILE --port 8080
doubtmap serve NETWORK --scores entropy --threshold FILE --queue 64 --seconds 5
"""
command = as_command("serve", serve_command, EXAMPLE)
