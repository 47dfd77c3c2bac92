"""The files of `doubtmap review`: what to look at first, as a page and as tables.

OUT/review.html           the first images and their suspicious segments
OUT/images.csv            all images, ranked, with what is expected of them
OUT/segments.csv          all segments: place, features, what is expected of them
OUT/review.json           how all this was made
OUT/segments/NAME.png     which segment every pixel lies in: red + 256 green + 65536 blue

At the end what `fit segments` found, as a table of plain text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.reading import Rendering, in_colour, left_out, read_image
from doubtmap.datasets.survey import survey
from doubtmap.engine.settings import bands_needed
from doubtmap.errors import UsageError
from doubtmap.files import alone, beside, cell, sweep, utf8, write_atomically, writing_to
from doubtmap.files.naming import outside, unique_names
from doubtmap.images import ScoredImage
from doubtmap.prediction import Segmenter
from doubtmap.reports.events import event_chart
from doubtmap.reports.page import framed, header, page_table, plain_table
from doubtmap.segments import MetaModel, Partition, SegmentTable
from doubtmap.segments.cards import card_part
from doubtmap.segments.fitting import SegmentFit, known_errors
from doubtmap.segments.review import ORDERS, Card, ImageReview, Review, review
from doubtmap.version import __version__


@dataclass(frozen=True)
class Choice:
    """Which images of a review are shown, and handed on.

    Args:
        count: how many at most.
        by: what images are ranked by, of `doubtmap.segments.review.ORDERS`.
        diverse: images that are unlike each other instead of the very worst.

    Raises:
        UsageError: for an order that there is not.
    """

    count: int = 20
    by: str = "wrong"
    diverse: bool = False

    def __post_init__(self) -> None:
        if self.by not in ORDERS:
            raise UsageError(f"review: expected --by {' or '.join(ORDERS)}, got {self.by!r}.")


USUAL = Choice()


@alone
def write_review(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    out: Path,
    *,
    choice: Choice = USUAL,
    skip_bad: bool = False,
    range: tuple[float, float] | None = None,
    command: str = "",
    chosen: Callable[[Review, Sequence[Card]], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Review images and write what came out.

    Args:
        segmenter: the network.
        paths: of the images; those in `out` are left out.
        model: of `doubtmap fit segments`.
        out: folder, made if it is not there.
        choice: which images the page shows.
        skip_bad: count images that cannot be read, and go on.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that all images of the run use.
        command: what to write as the origin.
        chosen: called with the review and the images that the page shows.
        progress: told after each image.

    Returns:
        One sentence about what was written.

    Raises:
        ModelError, DataError: as `doubtmap.segments.review.review`; for a folder that cannot be
            written.
    """
    paths = outside(paths, out)
    names = unique_names(paths)
    seen = survey([(path, None) for path in paths], Rendering(range, every=bands_needed(segmenter)))
    skipped: dict[Path, str] | None = {} if skip_bad else None
    with writing_to(out):
        (out / "segments").mkdir(parents=True, exist_ok=True)
        for folder in (out, out / "segments"):
            sweep(folder)
        with beside(out / "segments.csv") as file:
            table = _Table(out, names, file)
            found = review(
                segmenter,
                paths,
                model,
                found=table.add,
                skipped=skipped,
                rendering=seen.rendering,
                progress=progress,
            )
    first = found.first(choice.count, choice.by, choice.diverse)
    write_atomically(out / "images.csv", utf8(_images_csv(found, choice.by, first, names)))
    shown = [_card(out, found, int(index), names, seen.rendering) for index in first]
    write_atomically(out / "review.html", _page(found, shown, choice, command))
    about = {
        "doubtmap": __version__,
        "command": command,
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "segments": model.origin.told(),
        "ranked_by": choice.by,
        "diverse": choice.diverse,
        "chosen": [names[Path(found.names[index])] for index in first],
        "range": seen.rendering.range,
        "notes": [*seen.notes, *found.notes],
        "directory": str(Path.cwd()),
        "images": {names[Path(name)]: name for name in found.names},
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
    }
    write_atomically(out / "review.json", json.dumps(about, indent=1).encode())
    if chosen:
        chosen(found, shown)
    return (
        f"{len(found.names)} images reviewed{left_out(skipped)}, {len(found.table)} segments; look "
        f"at {out / 'review.html'}"
    )


class _Table:
    """`segments.csv` and the pictures of segments, image by image.

    Args:
        out: folder.
        names: file names of the images.
        file: what becomes `segments.csv` when it is whole.
    """

    def __init__(self, out: Path, names: Mapping[Path, str], file: IO[bytes]) -> None:
        self.out, self.names, self.file = out, names, file

    def add(
        self, scored: ScoredImage, partition: Partition, table: SegmentTable, said: ImageReview
    ) -> None:
        """Write one image."""
        name = self.names[scored.path]
        write_segments(_segments_file(self.out, name), partition.labels.numpy())
        more = {
            "pixels": np.full(len(table), f"segments/{name}.png"),
            "touches_its_class": said.probability,
            "expected_iou": said.expected_iou,
        }
        self.file.write(utf8(table.to_csv(more, header=self.file.tell() == 0)))


def write_segments(path: Path, labels: NDArray[np.int32]) -> None:
    """Write segment numbers as a picture without loss: red + 256 green + 65536 blue.

    Args:
        path: the file, a PNG.
        labels: `(H, W)`, from 0, below 2^24.
    """
    channels = [(labels >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
    stream = io.BytesIO()
    Image.fromarray(np.stack(channels, -1)).save(stream, "PNG", compress_level=1)
    write_atomically(path, stream.getvalue())


def read_segments(path: Path) -> NDArray[np.int32]:
    """Read what `write_segments` wrote, `(H, W)`."""
    channels = np.asarray(Image.open(path)).astype(np.int32)
    return np.asarray(channels[..., 0] + (channels[..., 1] << 8) + (channels[..., 2] << 16))


def _segments_file(out: Path, name: str) -> Path:
    return out / "segments" / f"{name}.png"


def _images_csv(found: Review, by: str, first: NDArray[np.int64], names: Mapping[Path, str]) -> str:
    """All images as ranked; `chosen` says in which order the page shows some."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("rank", "image", "expected_wrong_share", "expected_miou", *found.shapes),
            *("segments", "chosen", "pixels"),
        ]
    )
    count = np.bincount(found.table.image, minlength=len(found.names))
    places = {image: place for place, image in enumerate(first.tolist(), 1)}
    for rank, image in enumerate(found.order(by).tolist(), 1):
        path = found.names[image]
        miou = f"{found.expected_miou[image]:.4f}" if found.tells_miou else ""
        shapes = [f"{values[image]:.4f}" for values in found.shapes.values()]
        pixels = f"segments/{names[Path(path)]}.png"
        row = [rank, cell(path), f"{found.expected_wrong[image]:.4f}", miou, *shapes]
        writer.writerow([*row, count[image], places.get(image, ""), pixels])
    return text.getvalue()


WORDS = {
    "wrong": "largest expected share of wrong pixels",
    "miou": "lowest expected mIoU",
    "quantile": "largest doubt that a tenth of the pixels are above",
    "patch": "most doubtful patch",
    "mass": "most doubt in pixels of much doubt",
}
"""What images are ranked by."""


def _page(found: Review, shown: Sequence[Card], choice: Choice, command: str) -> bytes:
    unlike = " and unlike each other" if choice.diverse else ""
    head = header(
        "review",
        "Look at these first",
        f"{len(shown)} of {len(found.names)} images, with the {WORDS[choice.by]}{unlike}. The "
        "expected share of "
        "wrong pixels is what the probabilities leave to doubt; the expected mIoU is that of the "
        "probabilities and of what was learnt from labelled segments. The glow is 1 - expected "
        "IoU of the predicted segment that a pixel lies in. Beside it, the segments in which most "
        "is expected to be amiss, each outlined: they are more likely than not to touch nothing "
        "of the class that they claim.",
        *found.notes,
    )
    cards = [card_part(rank, card) for rank, card in enumerate(shown, 1)]
    foot = Markup("<footer>doubtmap {}. {}</footer>").format(__version__, command)
    return framed("Look at these first", head, *cards, foot)


def _card(
    out: Path, found: Review, index: int, names: dict[Path, str], rendering: Rendering
) -> Card:
    path = Path(found.names[index])
    pixels = in_colour(read_image(path, rendering))
    labels = read_segments(_segments_file(out, names[path]))
    return found.card(index, pixels, labels, name=names[path])


COLUMNS = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "auprc_false": "AUPRC false",
    "r2": "R2",
    "rmse": "RMSE",
}
"""Figures of `Judgement` and their headings."""


def segments_table(found: SegmentFit) -> str:
    """Feature sets as rows, figures as columns, mean and deviation over the runs.

    Args:
        found: what `doubtmap.segments.fitting.fit_segments` gave.
    """
    rows = [["features", *COLUMNS.values()]]
    for name, cross in found.compared.items():
        cells = [_cell([getattr(run, key) for run in cross.runs]) for key in COLUMNS]
        rows.append([name, *cells])
    runs = found.compared["all"].runs
    most, mean = (_cell([getattr(run, key) for run in runs]) for key in ("majority", "mean_rmse"))
    rows.append(["always the same", "0.500", most, "", "0.000", mean])
    more = (*_of_reliability(found), *_of_images(found), *_of_features(found.model))
    return "\n".join([plain_table(rows), *more])


def write_reliability(found: SegmentFit, path: str | Path) -> None:
    """Write one page: the reliability of P(touches its class) before and after its calibration.

    Args:
        found: what `doubtmap.segments.fitting.fit_segments` gave.
        path: the file.

    Raises:
        DataError: where it cannot be written.
    """
    about = (
        "P(touches its class) of segments of images that the model was not fitted to, as fitted "
        "and calibrated on others of them. Whiskers are 95 % intervals over images; the larger a "
        "point, the more segments."
    )
    title = "P(true) of segments"
    parts = [header("fit segments", title, about, *found.notes)]
    for name, told in found.reliability.items():
        chart = event_chart(told.diagram.tolist(), "true", "segments")
        parts += [
            Markup("<h2>{}</h2><figure>{}</figure>").format(name, chart),
            page_table(name, told.rows()),
        ]
    write_atomically(path, framed(title, *parts))


def _of_reliability(found: SegmentFit) -> list[str]:
    """How far P(touches its class) of held-out images was from what came true."""
    lines = []
    for name, told in found.reliability.items():
        gap, ends = told.figures["gap"], told.figures["gap_interval"]
        shown = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if isinstance(ends, list) else ""
        lines.append(
            f"P(touches its class), {name}: ECE {gap:.3f}{shown}, Brier score "
            f"{told.figures['brier']:.3f}, of always saying the share "
            f"{told.figures['brier_of_the_mean']:.3f}"
        )
    return lines


def _of_images(found: SegmentFit) -> list[str]:
    """How well held-out images were foreseen."""
    names = {"miou": "mIoU", "wrong": "share of wrong pixels"}
    return [
        f"{names[what]} of an image: mean absolute error {error:.3f}, of always the mean "
        f"{spread:.3f}"
        for what, (error, spread) in known_errors(found.images, found.segments).items()
    ]


def _of_features(model: MetaModel, most: int = 5) -> list[str]:
    """Which features carry the model, as shares of all gains or weights."""
    lines = []
    for what, estimator in (("touching its class", model.touches), ("IoU", model.iou)):
        top = np.argsort(-estimator.importance, kind="stable")[:most]
        shown = ", ".join(f"{model.names[k]} {estimator.importance[k]:.0%}" for k in top)
        lines.append(f"{what} is carried by {shown}")
    return lines


def _cell(values: list[float]) -> str:
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return "-"
    deviation = f" ±{finite.std(ddof=1):.3f}" if len(finite) > 1 else ""
    return f"{finite.mean():.3f}{deviation}"
