"""Options that several commands share, and what their text means."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from doubtmap.calibration import Calibrated, load_calibrator
from doubtmap.errors import UsageError
from doubtmap.models import MonteCarloDropout, load
from doubtmap.prediction import Segmenter
from doubtmap.scores import OF_MEMBERS, STATELESS

Model = Annotated[
    str,
    typer.Argument(
        help="Hugging Face folder or name, FILE.onnx, FILE.pt2, python:FILE.py:FUNCTION, or demo; "
        "several, comma-separated, are an ensemble."
    ),
]
Data = Annotated[str, typer.Argument(help="LAYOUT:PATH[:SPLIT], or synthetic:N.")]
Scores = Annotated[
    str,
    typer.Option(
        help=f"Such as entropy,gradient(p=1,label=uniform). Known: {', '.join(STATELESS)}; of "
        f"several networks or passes: {', '.join(OF_MEMBERS)}; fitted: doubt:FILE, "
        f"density:FILE, mahalanobis:FILE, wrong:FILE."
    ),
]
Unknown = Annotated[
    str, typer.Option(help="Label classes that count as unknown objects, or 'rest'.")
]
Out = Annotated[Path, typer.Option(help="Folder for what is written.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a run in --out stopped.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")]


@dataclass(frozen=True)
class NetworkOptions:
    """How to open a network; `expanded` makes a command-line option of each field."""

    classes: Annotated[
        str | None, typer.Option(help="Class names of the model, comma-separated.")
    ] = None
    mean: Annotated[
        str | None, typer.Option(help="R,G,B of images in [0, 1]. Default: ImageNet's.")
    ] = None
    std: Annotated[
        str | None, typer.Option(help="R,G,B of images in [0, 1]. Default: ImageNet's.")
    ] = None
    input_size: Annotated[
        str | None,
        typer.Option(help="HxW to which images are resized for the network, or 'image' for not."),
    ] = None
    classifier: Annotated[
        str | None, typer.Option(help="Name of the last 1x1 convolution, if the search errs.")
    ] = None
    divisor: Annotated[
        int | None, typer.Option(help="Pad images to sides that are multiples of this.")
    ] = None
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")] = None
    dropout_passes: Annotated[
        int | None, typer.Option(help="Run so often with dropout switched on. Default: once, off.")
    ] = None
    dropout_rate: Annotated[
        float | None, typer.Option(help="Also drop features before the classifier at this rate.")
    ] = None
    calibrator: Annotated[
        Path | None, typer.Option(help="A file of doubtmap calibrate, applied to predictions.")
    ] = None

    def open(self, model: str, seed: int = 0) -> Segmenter:
        """The network behind one call, calibrated where that was asked for."""
        segmenter: Segmenter = load(
            model,
            classes=names(self.classes) if self.classes else None,
            mean=numbers("--mean", self.mean),
            std=numbers("--std", self.std),
            input_size=size(self.input_size),
            classifier=self.classifier,
            divisor=self.divisor,
            device=self.device,
        )
        if self.dropout_passes is not None or self.dropout_rate is not None:
            passes = 5 if self.dropout_passes is None else self.dropout_passes
            segmenter = MonteCarloDropout(segmenter, passes, self.dropout_rate, seed)
        if self.calibrator is None:
            return segmenter
        return Calibrated(segmenter, load_calibrator(self.calibrator), str(self.calibrator))


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter of type `NetworkOptions` one option for each of its fields.

    The parameter must come last.
    """
    hints = get_type_hints(command, include_extras=True)
    group = next(name for name, hint in hints.items() if hint is NetworkOptions)
    group_hints = get_type_hints(NetworkOptions, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != group]
    own = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=group_hints[field.name],
        )
        for field in fields(NetworkOptions)
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {option.name: given.pop(option.name) for option in options}
        command(**given, **{group: NetworkOptions(**chosen)})

    parameters = [*own, *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def command_line() -> str:
    """What the user typed, for the results."""
    return shlex.join(["doubtmap", *sys.argv[1:]])


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers(option: str, text: str | None) -> tuple[float, float, float] | None:
    """Three numbers separated by commas."""
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option}: expected three numbers such as 0.5,0.5,0.5, got {text}."
        ) from None
    return red, green, blue


def size(text: str | None) -> tuple[int, int] | Literal["image"] | None:
    """`HxW` or `image`."""
    if text is None:
        return None
    if text == "image":
        return "image"
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"--input-size: expected HxW such as 512x1024, or 'image', got {text}.")
    return int(height), int(width)
