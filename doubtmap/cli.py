"""The command line: one command per verb, one library call each."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
import typer

from doubtmap.datasets import ComponentSizes, collect_images, open_dataset
from doubtmap.engine import Results, evaluate
from doubtmap.errors import DataError, DoubtmapError, UsageError
from doubtmap.kernels import available
from doubtmap.models import load
from doubtmap.prediction import Segmenter
from doubtmap.progress import progress_bar
from doubtmap.reports import print_figures, write_report, write_results, write_scores
from doubtmap.scores import STATELESS
from doubtmap.scores.parsing import parse_scores
from doubtmap.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="For every pixel, how far to trust the label of a semantic-segmentation model.",
)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Say the version, where it is asked for."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


Model = Annotated[
    str,
    typer.Argument(
        help="Hugging Face folder or name, FILE.onnx, FILE.pt2, python:FILE.py:FUNCTION, or demo."
    ),
]
Scores = Annotated[
    str,
    typer.Option(
        help=f"Such as entropy,gradient(p=1,label=uniform). Known: {', '.join(STATELESS)}."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for what is written.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a run in --out stopped.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")]
Classes = Annotated[str | None, typer.Option(help="Class names of the model, comma-separated.")]
Mean = Annotated[str | None, typer.Option(help="R,G,B of images in [0, 1]. Default: ImageNet's.")]
Std = Annotated[str | None, typer.Option(help="R,G,B of images in [0, 1]. Default: ImageNet's.")]
InputSize = Annotated[
    str | None,
    typer.Option(help="HxW to which images are resized for the network, or 'image' for not."),
]
Classifier = Annotated[
    str | None, typer.Option(help="Name of the last 1x1 convolution, if the search errs.")
]
Divisor = Annotated[
    int | None, typer.Option(help="Pad images to sides that are multiples of this.")
]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")]


@app.command()
def demo(out: Out = Path("demo"), seed: Seed = 0) -> None:
    """The whole job on the embedded network and scenes, in about a minute."""
    torch.manual_seed(seed)
    scores = f"{','.join(STATELESS)},gradient(p=0.5,label=uniform)"
    with progress_bar() as progress:
        results = evaluate(
            load("demo"),
            open_dataset("synthetic:24", seed=seed),
            scores,
            seed=seed,
            command=_command(),
            progress=progress,
        )
    _save(results, out)
    print_figures(results.figures)
    typer.echo(f"Open {out / 'report.html'} to see where the network is wrong.", err=True)


@app.command()
def score(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Images, folders or patterns.")],
    scores: Scores = "entropy",
    out: Out = Path("doubt"),
    format: Annotated[str, typer.Option(help="Of the maps: png, npy, tiff, safetensors.")] = "png",
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    input_size: InputSize = None,
    classifier: Classifier = None,
    divisor: Divisor = None,
    device: Device = None,
) -> None:
    """Doubt maps, classes and overlays of images."""
    torch.manual_seed(seed)
    segmenter = _load(model, classes, mean, std, input_size, classifier, divisor, device)
    with progress_bar() as progress:
        summary = write_scores(
            segmenter,
            collect_images(images),
            parse_scores(scores),
            out,
            format=format,
            resume=resume,
            skip_bad=skip_bad,
            command=_command(),
            progress=progress,
        )
    typer.echo(summary)


@app.command("evaluate")
def evaluate_command(
    model: Model,
    data: Annotated[str, typer.Argument(help="LAYOUT:PATH[:SPLIT], or synthetic:N.")],
    scores: Scores = "all",
    unknown: Annotated[
        str, typer.Option(help="Label classes that count as unknown objects, or 'rest'.")
    ] = "",
    out: Out = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print results.json to stdout.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    component_sizes: Annotated[
        str | None, typer.Option(help="Smallest predicted and labelled component, as in 500,100.")
    ] = None,
    bins: Annotated[int, typer.Option(min=2, help="Of the reliability diagram.")] = 15,
    replicates: Annotated[int, typer.Option(min=20, help="Of the bootstrap over images.")] = 300,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    input_size: InputSize = None,
    classifier: Classifier = None,
    divisor: Divisor = None,
    device: Device = None,
) -> None:
    """Figures of scores on a labelled data set: results.json and report.html."""
    torch.manual_seed(seed)
    segmenter = _load(model, classes, mean, std, input_size, classifier, divisor, device)
    with progress_bar() as progress:
        results = evaluate(
            segmenter,
            open_dataset(data, seed=seed),
            scores,
            unknown=_names(unknown),
            out=out,
            resume=resume,
            skip_bad=skip_bad,
            seed=seed,
            replicates=replicates,
            bins=bins,
            component_sizes=_sizes(component_sizes),
            command=_command(),
            save=lambda results: _save(results, out),
            progress=progress,
        )
    for note in results.figures["notes"]:
        typer.echo(f"note: {note}", err=True)
    print_figures(results.figures, style="json" if json else "csv" if csv else "table")


@app.command()
def info() -> None:
    """Versions, devices and what is installed."""
    typer.echo(
        f"doubtmap {__version__}\ntorch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    typer.echo(", ".join(f"{key}: {value}" for key, value in available().items()))
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"devices: {', '.join(['cpu', *devices])}")


def main() -> None:
    """Run the command line; errors that doubtmap raises on purpose are one sentence on stderr."""
    handlers = {
        number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        app()
    except DoubtmapError as error:
        typer.echo(f"doubtmap: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stopped(number: int, _: object) -> NoReturn:
    raise DoubtmapError(
        f"stopped by {signal.Signals(number).name}; score and evaluate keep what was done, and the "
        f"same command with --resume goes on."
    )


def _load(
    model: str,
    classes: str | None,
    mean: str | None,
    std: str | None,
    input_size: str | None,
    classifier: str | None,
    divisor: int | None,
    device: str | None,
) -> Segmenter:
    return load(
        model,
        classes=_names(classes) if classes else None,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        input_size=_size(input_size),
        classifier=classifier,
        divisor=divisor,
        device=device,
    )


def _save(results: Results, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_results(results, out / "results.json")
        write_report(results, out / "report.html")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}).") from error


def _command() -> str:
    return shlex.join(["doubtmap", *sys.argv[1:]])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option}: expected three numbers such as 0.5,0.5,0.5, got {text}."
        ) from None
    return red, green, blue


def _size(text: str | None) -> tuple[int, int] | Literal["image"] | None:
    if text is None:
        return None
    if text == "image":
        return "image"
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"--input-size: expected HxW such as 512x1024, or 'image', got {text}.")
    return int(height), int(width)


def _sizes(text: str | None) -> ComponentSizes | None:
    if text is None:
        return None
    predicted, _, labelled = text.partition(",")
    if not (predicted.isdigit() and labelled.isdigit()):
        raise UsageError(f"--component-sizes: expected two numbers such as 500,100, got {text}.")
    return ComponentSizes(int(predicted), int(labelled))
