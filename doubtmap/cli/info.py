"""`doubtmap info`: versions and devices; of a network, what was understood of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doubtmap.cli.commands import as_command
from doubtmap.cli.options import (
    Network,
    Range,
)
from doubtmap.cli.texts import read_range

if TYPE_CHECKING:
    from torch import Tensor

    from doubtmap.prediction import Prediction, Segmenter


def info(
    network: Network,
    model: Annotated[str | None, typer.Argument(help="A network, as for other commands.")] = None,
    image: Annotated[Path | None, typer.Argument(help="To try it on; default: noise.")] = None,
    range: Range = None,
) -> None:
    """Versions and devices; of a network, what was understood of it."""
    if model is None:
        for line in versions():
            typer.echo(line)
        return
    segmenter = network.open(model)
    for name, value in understood(segmenter, image, read_range(range)):
        typer.echo(f"{name:<14} {value}")


def versions() -> list[str]:
    """A line each: versions, devices, compiled passes."""
    import torch

    from doubtmap.kernels import available
    from doubtmap.version import __version__

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines = [
        f"doubtmap {__version__}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"devices: {', '.join(['cpu', *devices])}",
    ]
    for device in ("cpu", "cuda"):
        known = ", ".join(f"{key}: {value}" for key, value in available(device).items())
        lines.append(f"on {device}, {known}")
    return lines


def understood(
    segmenter: Segmenter, image: Path | None, range: tuple[float, float] | None = None
) -> list[tuple[str, object]]:
    """What was understood of a network, a name and a value each, once it has seen an image.

    Args:
        segmenter: the network.
        image: to try it on; noise of 256 x 256 pixels where there is none.
        range: values of the image that are black and white, where it has more than 8 bits.

    Raises:
        DataError: for an image that cannot be read.
        ModelError: for a network that cannot be run.
    """
    import time

    import torch

    from doubtmap.datasets.reading import Rendering, read_image
    from doubtmap.datasets.survey import Survey, survey
    from doubtmap.engine.settings import bands_needed
    from doubtmap.errors import within_memory
    from doubtmap.prediction import showing

    bands = bands_needed(segmenter)
    seen = Survey(Rendering(every=bands))
    if image is not None:
        seen = survey([(image, None)], Rendering(range, every=bands))
        pixels = read_image(image, seen.rendering)[None]
    else:
        pixels = torch.rand(1, bands or 3, 256, 256, generator=torch.Generator().manual_seed(0))
    name = "" if image is None else image.name
    with showing(name), within_memory(pixels.shape[-2:], name):
        _seen(segmenter, pixels, image)
        start = time.perf_counter()
        prediction = segmenter(pixels)
        seconds = time.perf_counter() - start
    call = ("call", f"{1000 * seconds:.1f} ms")
    notes = [("note", note) for note in seen.notes]
    return [*_described(segmenter, prediction), *notes, call, *_scores(prediction)]


def _seen(segmenter: Segmenter, pixels: Tensor, image: Path | None) -> None:
    from doubtmap.errors import DataError

    try:
        segmenter(pixels)
    except DataError as error:
        raise DataError(f"{image or 'noise of 256x256 pixels'}: {error}") from error


def _described(segmenter: Segmenter, prediction: Prediction) -> list[tuple[str, object]]:
    told = segmenter.description
    grid = tuple(prediction.native_logits.shape[-2:])
    features = told.get("features")
    inputs: list[tuple[str, object]] = [
        ("normalisation", f"mean {told.get('mean')}, std {told.get('std')}"),
        ("", f"from: {told.get('normalisation')}; channels {told.get('channels')}"),
        ("input size", told.get("input_size")),
        ("padded to", told.get("divisor") or "as it is"),
    ]
    missing = told.get("features_missing") or prediction.features_missing
    rows: list[tuple[str, object]] = [
        ("network", f"{told.get('source')} ({told.get('kind')})"),
        ("classes", _classes(prediction)),
        *(inputs if told.get("mean") else []),
        ("output", f"{told.get('form')}, {told.get('output') or 'the only one'}"),
        ("grid", f"{grid[0]}x{grid[1]} for {prediction.size[0]}x{prediction.size[1]} pixels"),
        ("resizing", "corners aligned" if told.get("align_corners") else "bilinear"),
        ("classifier", told.get("classifier") or "none"),
        ("features", features or f"none: {missing}"),
    ]
    notes = told.get("notes")
    return [*rows, *(("note", note) for note in (notes if isinstance(notes, list) else []))]


def _classes(prediction: Prediction) -> str:
    count = prediction.native_logits.shape[1]
    return f"{count}: {', '.join(prediction.class_names) or 'without names; pass --classes'}"


def _scores(prediction: Prediction) -> list[tuple[str, object]]:
    """Every score without fitting: possible, or why not."""
    from doubtmap import scores
    from doubtmap.errors import ModelError
    from doubtmap.scores.rejection import suited

    rows: list[tuple[str, object]] = []
    kinds = (scores.STATELESS, scores.OF_QUERIES, scores.OF_MEMBERS)
    for name in (name for kind in kinds for name in kind):
        try:
            getattr(scores, name)(prediction)
        except ModelError as error:
            rows.append((name, f"not possible: {error}"))
        else:
            rows.append((name, "possible"))
    best, why = suited(prediction)
    errors = "max_softmax for wrong pixels, or a fitted wrong (doubtmap fit wrong)"
    return [*rows, ("suited", f"{best} for unknown objects: {why}"), ("", errors)]


EXAMPLE = """
doubtmap info
doubtmap info demo
doubtmap info python:FILE.py:FUNCTION photograph.jpg --input-size 512x1024
"""
command = as_command("info", info, EXAMPLE)
