"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from doubtmap.cli.commands import DATA, MODEL, OUTPUT, RUNNING, option
from doubtmap.cli.commands import SCORES as SCORES_GROUP
from doubtmap.cli.telling import log, tell_notes
from doubtmap.cli.texts import read_input_size, read_numbers, read_views, read_whole_numbers
from doubtmap.errors import DoubtmapError, UsageError
from doubtmap.option import Option, read_names
from doubtmap.scores import DEFAULT, OF_MEMBERS, OF_QUERIES, STATELESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from doubtmap.datasets import Dataset
    from doubtmap.engine.places import Place
    from doubtmap.prediction import Segmenter

Model = Annotated[
    str,
    typer.Argument(
        help="Hugging Face folder or name, FILE.onnx, FILE.pt2, FILE.xml, a TorchScript file, "
        "saved:FOLDER, python:FILE.py:FUNCTION, or demo; several, with commas, are an ensemble.",
        metavar="MODEL",
    ),
]
Data = Annotated[
    str,
    typer.Argument(
        help="LAYOUT:PATH[:SPLIT], table:FILE, webdataset:SHARDS, volumes:PATH[:SPLIT], "
        "film:FILM[:LABELS], or synthetic:N.",
        metavar="DATA",
    ),
]
Images = Annotated[
    list[str], typer.Argument(help="Images, folders or patterns.", metavar="IMAGES...")
]
_KNOWN = (
    f"Known: {', '.join(STATELESS)}; of several networks or passes: {', '.join(OF_MEMBERS)}; of "
    f"networks that predict masks by queries: {', '.join(OF_QUERIES)}; fitted: doubt:FILE, "
    f"density:FILE, mahalanobis:FILE, sets:FILE, sum:FILE, wrong:FILE."
)
_SUCH = "Such as entropy,gradient(p=1,label=uniform), or all."
Scores = Annotated[
    str | None,
    option(SCORES_GROUP, f"{_SUCH} {_KNOWN} Default: doubt; of networks with queries: rejected."),
]
AllScores = Annotated[
    str, option(SCORES_GROUP, f"{_SUCH} {_KNOWN} all: every one without fitting.")
]
Unknown = Annotated[
    str, option(DATA, "Label classes that count as unknown objects, or 'rest'.", metavar="NAMES")
]
Range = Annotated[
    str | None,
    option(DATA, "LOW,HIGH: black and white of images of more than 8 bits.", metavar="LOW,HIGH"),
]
Limit = Annotated[int | None, option(DATA, "Look at the first N images only.", min=1, metavar="N")]
LimitOfFrames = Annotated[
    int | None,
    option(DATA, "Look at the first N images, or frames of each film, only.", min=1, metavar="N"),
]
Every = Annotated[
    int | None, option(DATA, "Look at each N-th frame of films. Default: 1.", min=1, metavar="N")
]
Out = Annotated[Path, option(OUTPUT, "Folder for what is written.", metavar="DIR")]
Json = Annotated[bool, option(OUTPUT, "Print the figures as JSON.", "--json")]
Seed = Annotated[int, option(RUNNING, "Of everything random.", min=0)]
Device = Annotated[str | None, option(RUNNING, "Such as cpu or cuda:0.")]
Resume = Annotated[bool, option(RUNNING, "Go on where a run in --out stopped.", "--resume")]
Parquet = Annotated[
    bool, option(OUTPUT, "The table of images, or objects, as Parquet, too.", "--parquet")
]
SkipBad = Annotated[bool, option(RUNNING, "Count unreadable images and go on.", "--skip-bad")]

TO = "Files of tools: some of label-studio, cvat, fiftyone, coco; with commas."


@dataclass(frozen=True)
class NetworkOptions:
    """How to open a network."""

    classes: Annotated[
        tuple[str, ...] | None,
        Option("Class names of the model, comma-separated.", read=read_names),
    ] = None
    mean: Annotated[
        tuple[float, ...] | None,
        Option("Of R,G,B, or each band, in [0, 1]. Default: ImageNet's.", read=read_numbers),
    ] = None
    std: Annotated[
        tuple[float, ...] | None,
        Option("Of R,G,B, or each band, in [0, 1]. Default: ImageNet's.", read=read_numbers),
    ] = None
    input_size: Annotated[
        tuple[int, int] | Literal["image"] | None,
        Option(
            "HxW to which images are resized for the network, or 'image' for not.",
            read=read_input_size,
        ),
    ] = None
    resize: Annotated[
        str | None,
        Option("pil rounds to bytes after each axis, as Pillow does; float does not."),
    ] = None
    classifier: Annotated[
        str | None, Option("Name of the last convolution or linear layer, if the search errs.")
    ] = None
    divisor: Annotated[int | None, Option("Pad images to sides that are multiples of this.")] = None
    output: Annotated[str | None, Option("Name or place of the output that holds the scores.")] = (
        None
    )
    activation: Annotated[
        str | None, Option("The network's last step: none, softmax or sigmoid.")
    ] = None
    channels: Annotated[str | None, Option("bgr for a network that wants that.")] = None
    bands: Annotated[
        tuple[int, ...] | None,
        Option("Bands of files that the network gets, as 1,2,3,8.", read=read_whole_numbers),
    ] = None
    trust: Annotated[bool, Option("Open a .pt2 file though it may run code.", "--trust")] = False
    device: Annotated[str | None, Option("Such as cpu or cuda:0.", group=RUNNING)] = None
    dropout_passes: Annotated[
        int | None, Option("Run so often with dropout switched on. Default: once, off.")
    ] = None
    dropout_rate: Annotated[
        float | None, Option("Also drop features before the classifier at this rate.")
    ] = None
    views: Annotated[
        tuple[float | str, ...] | None,
        Option(
            "Also look at images mirrored, or with sides so many times as long, such as mirror,2.",
            read=read_views,
        ),
    ] = None
    calibrator: Annotated[
        Path | None, Option("A file of doubtmap calibrate, applied to predictions.")
    ] = None
    tile: Annotated[
        int | None,
        Option("Look at images through windows of so many pixels a side, such as 1024."),
    ] = None
    overlap: Annotated[
        int | None, Option("Pixels that windows share with their neighbours. Default: 128.")
    ] = None

    def open(self, model: str, seed: int = 0) -> Segmenter:
        """The network behind one call, calibrated where that was asked for."""
        from doubtmap.calibration import Calibrated, load_calibrator
        from doubtmap.models import MonteCarloDropout, load
        from doubtmap.models.ensemble import resizing
        from doubtmap.models.passes import viewing
        from doubtmap.scoring import of_another

        segmenter: Segmenter = load(
            model,
            classes=self.classes or None,
            mean=self.mean,
            std=self.std,
            input_size=self.input_size,
            classifier=self.classifier,
            divisor=self.divisor,
            device=self.device,
            output=self.output,
            activation=self.activation,  # type: ignore[arg-type]
            channels=self.channels,  # type: ignore[arg-type]
            bands=self.bands,
            trust=self.trust,
        )
        if self.resize is not None:
            segmenter = resizing(segmenter, self.resize)  # type: ignore[arg-type]
        log.info("model %s: %s", model, ", ".join(segmenter.class_names) or "classes without names")
        if self.dropout_passes is not None or self.dropout_rate is not None:
            passes = 5 if self.dropout_passes is None else self.dropout_passes
            segmenter = MonteCarloDropout(segmenter, passes, self.dropout_rate, seed)
        if self.views:
            segmenter = viewing(segmenter, self.views)
        if self.calibrator is not None:
            calibrator = load_calibrator(self.calibrator)
            if of_another(segmenter, calibrator):
                log.warning(
                    "%s: was fitted to other logits than this network's, with the options here; "
                    "what it gives may be no better calibrated. Fit it anew with doubtmap "
                    "calibrate.",
                    self.calibrator,
                )
            segmenter = Calibrated(segmenter, calibrator, str(self.calibrator))
        return self._windowed(segmenter)

    def _windowed(self, segmenter: Segmenter) -> Segmenter:
        from doubtmap.windows import Windows, usual_overlap

        if self.tile is None and self.overlap is None:
            return segmenter
        if self.tile is None:
            raise UsageError(
                f"--overlap: expected --tile with it, got {self.overlap} alone. Add --tile 1024."
            )
        overlap = usual_overlap(self.tile) if self.overlap is None else self.overlap
        return Windows(segmenter, self.tile, overlap)


Network = Annotated[NetworkOptions, MODEL]


def other_threads(threads: int) -> list[str]:
    """What to say where workers have another number of threads than this process."""
    import torch

    here = torch.get_num_threads()
    if threads == here:
        return []
    return [
        f"PyTorch has {threads} thread{'s' * (threads > 1)} in each worker, and {here} in one "
        f"process, from whose figures theirs may differ in the last digits. With OMP_NUM_THREADS "
        f"set both have as many as it says."
    ]


def opening(
    network: NetworkOptions, model: str, seed: int, segmenter: Segmenter
) -> Callable[[], Segmenter]:
    """Opens the network in another process, through the windows that were chosen here."""
    windows = segmenter.description.get("windows")
    if isinstance(windows, Mapping):
        network = replace(network, tile=windows["tile"], overlap=windows["overlap"])
    return functools.partial(network.open, model, seed)


@dataclass(frozen=True)
class WorkerOptions:
    """By whom images are looked at."""

    workers: Annotated[
        int, Option("Processes that look at images, each with a network.", group=RUNNING)
    ] = 0
    engine: Annotated[
        str, Option("Where they are: local, ray, or ray:ADDRESS of a cluster.", group=RUNNING)
    ] = "local"
    gpus_per_worker: Annotated[
        float, Option("Devices of each worker's own, or its share of one.", group=RUNNING)
    ] = 0.0
    batch: Annotated[
        int, Option("Images of one size that go through the network at once.", group=RUNNING)
    ] = 1

    def place(
        self,
        network: NetworkOptions,
        model: str,
        seed: int,
        segmenter: Segmenter,
        run: Path | None = None,
    ) -> Place:
        """The place that is meant, whose workers open the network as it was opened here.

        They have as many threads as the run has begun with that goes on, where a folder `run` has
        the settings of one.

        Raises:
            UsageError: for what is no engine, numbers below 0, or batches of windows.
        """
        from doubtmap.engine.journal import going_on
        from doubtmap.engine.places import Place

        if self.workers < 0 or self.gpus_per_worker < 0:
            raise UsageError(
                f"--workers, --gpus-per-worker: expected 0 or more, got {self.workers} and "
                f"{self.gpus_per_worker:g}."
            )
        if self.batch > 1 and segmenter.description.get("windows"):
            raise UsageError(
                f"--batch: expected images that the network sees whole, but they are looked at "
                f"through windows, one after the other, got {self.batch}. Leave it out."
            )
        opens = opening(network, model, seed, segmenter)
        by = self.workers, self.engine, self.gpus_per_worker
        place = going_on(Place(None, *by, network=opens, batch=self.batch), run)
        if place.elsewhere and not self.gpus_per_worker:
            tell_notes(other_threads(place.threads))
        return place

    def spread(
        self, network: NetworkOptions, model: str, seed: int, segmenter: Segmenter
    ) -> Segmenter:
        """The network as it was opened, whose passes over images are the workers' if there are any.

        Raises:
            UsageError: as `place`.
        """
        from doubtmap.engine.spread import Spread

        place = self.place(network, model, seed, segmenter)
        return Spread(segmenter, place) if place.elsewhere or place.batch > 1 else segmenter


@dataclass(frozen=True)
class PlaceOptions(WorkerOptions):
    """Where images are looked at."""

    part: Annotated[
        str | None,
        Option(
            "I/N: look at the I-th of N parts only, then doubtmap merge; auto: as torchrun, SLURM "
            "or Kubernetes says.",
            group=RUNNING,
        ),
    ] = None

    def place(
        self,
        network: NetworkOptions,
        model: str,
        seed: int,
        segmenter: Segmenter,
        run: Path | None = None,
    ) -> Place:
        """As of `WorkerOptions`, and which part.

        Raises:
            UsageError: for what is no part, too.
        """
        from doubtmap.engine.places import read_part

        part = None if self.part is None else read_part(self.part)
        place = WorkerOptions.place(self, network, model, seed, segmenter, run)
        return replace(place, part=part)


Workers = Annotated[WorkerOptions, RUNNING]
Places = Annotated[PlaceOptions, RUNNING]


def score_or_usual(score: str | None, segmenter: Segmenter) -> str:
    """The score that was named, else the one that suits the kind of network, which is then told.

    The kind is seen from a probe image; a network that refuses it has the default.
    """
    if score is not None:
        return score
    from doubtmap.engine.settings import bands_needed
    from doubtmap.models.layers import probe_image
    from doubtmap.scores.rejection import suited

    try:
        best, why = suited(segmenter(probe_image(bands_needed(segmenter))))
    except DoubtmapError:
        return DEFAULT
    if best != DEFAULT:
        tell_notes([f"The score is {best}: {why}."])
    return best


def seeded(seed: int) -> None:
    """Let all that is random start from here."""
    import torch

    torch.manual_seed(seed)


def opened(
    data: str,
    seed: int,
    limit: int | None = None,
    notes: list[str] | None = None,
    *,
    unlabelled: bool = False,
) -> Dataset:
    """The data set, or its first images where there is a limit.

    Args:
        data: LAYOUT:PATH[:SPLIT].
        seed: of everything random.
        limit: how many images at most.
        notes: where a command tells them later, the list that takes the limit's; else it is told.
        unlabelled: whether a folder of photographs will do.
    """
    from doubtmap.datasets import open_dataset, open_images
    from doubtmap.datasets.pasting import Part

    dataset = (open_images if unlabelled else open_dataset)(data, seed=seed)
    log.info("data %s: %d images", dataset.name, len(dataset))
    if limit is None or limit >= len(dataset):
        return dataset
    said = limits(len(dataset), limit)
    if notes is None:
        tell_notes(said)
    else:
        notes += said
    return Part(dataset, range(limit), f"{dataset.name} (first {limit})")


def windowed(
    segmenter: Segmenter, images: Dataset | list[Path], *runs: Path
) -> tuple[Segmenter, list[str]]:
    """The network, through windows where images are too large for the memory, and what to note.

    Args:
        segmenter: the network.
        images: all that it will see.
        runs: where the settings of a run may be that goes on, whose windows are then taken.
    """
    from doubtmap.datasets.reading import read_size
    from doubtmap.scenes import raster_size
    from doubtmap.windows import for_images, sizes_of

    def size_of(path: Path) -> tuple[int, int]:
        return raster_size(path) or read_size(path)

    earlier = next((run for run in runs if run.exists()), None)
    sizes = sizes_of(images, size_of if isinstance(images, list) else read_size)
    found, note = for_images(segmenter, sizes, earlier)
    return found, [note] if note else []


def collected(images: list[str], limit: int | None) -> list[Path]:
    """The images' files, or the first of them where there is a limit, which a note says."""
    from doubtmap.datasets import collect_images

    paths = list(collect_images(images))
    log.info("%d images", len(paths))
    if limit is not None:
        tell_notes(limits(len(paths), limit))
    return paths[:limit]


def limits(count: int, limit: int | None) -> list[str]:
    """What to say of a limit, where it leaves anything out."""
    if limit is None or limit >= count:
        return []
    return [f"--limit: only the first {limit} of {count} images are looked at."]
