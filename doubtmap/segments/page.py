"""The files of `doubtmap review`: what to look at first, as a page and as tables.

OUT/review.html           the first images and their suspicious segments
OUT/images.csv            all images, ranked, with what is expected of them
OUT/segments.csv          all segments: place, features, what is expected of them
OUT/review.json           how all this was made
OUT/segments/NAME.png     which segment every pixel lies in: red + 256 green + 65536 blue

A part of a run has OUT/part.json, segments.csv, review.safetensors and the pictures only
(`doubtmap.segments.parts`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from doubtmap.datasets.reading import Rendering, in_colour, left_out, none_left, read_image
from doubtmap.datasets.survey import survey
from doubtmap.engine.parts import PART, hashes_of, write_part
from doubtmap.engine.places import PartNumber
from doubtmap.engine.settings import bands_needed, model_settings
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, beside, cell, sweep, utf8, write_atomically, writing_to
from doubtmap.files.afar import again_in
from doubtmap.files.earlier import begin_in
from doubtmap.files.naming import outside, unique_names
from doubtmap.images import ScoredImage
from doubtmap.prediction import Segmenter
from doubtmap.reports.page import framed, header
from doubtmap.segments import MetaModel, Partition, SegmentTable
from doubtmap.segments.cards import card_part
from doubtmap.segments.review import (
    ORDERS,
    Card,
    ImageReview,
    Review,
    errors_of,
    judged,
    together,
)
from doubtmap.version import __version__


@dataclass(frozen=True)
class Choice:
    """Which images of a review are shown, and handed on.

    Args:
        count: how many at most.
        by: what images are ranked by, of `doubtmap.segments.review.ORDERS`.
        diverse: images that are unlike each other instead of the very worst.
        to: forms of labelling tools in which those that are shown are handed on.

    Raises:
        UsageError: for an order that there is not.
    """

    count: int = 20
    by: str = "wrong"
    diverse: bool = False
    to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by not in ORDERS:
            raise UsageError(f"review: expected --by {' or '.join(ORDERS)}, got {self.by!r}.")


USUAL = Choice()

REVIEWED = "review.safetensors"
"""What a part expects of its images."""


Chosen = Callable[[Review, Sequence[Card], Sequence[str]], None]
"""Called with a review, the images that its page shows, and `Choice.to`."""


@alone
def write_review(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    out: Path,
    *,
    choice: Choice = USUAL,
    part: PartNumber | None = None,
    skip_bad: bool = False,
    range: tuple[float, float] | None = None,
    command: str = "",
    chosen: Chosen | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Review images and write what came out.

    Args:
        segmenter: the network.
        paths: of the images; those in `out` are left out.
        model: of `doubtmap fit segments`.
        out: folder, made if it is not there.
        choice: which images the page shows.
        part: which of the images only, for `doubtmap.segments.parts.merge_reviews`.
        skip_bad: count images that cannot be read, and go on.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that all images of the run use.
        command: what to write as the origin.
        chosen: takes the images that the page shows.
        progress: told after each image.

    Returns:
        One sentence about what was written.

    Raises:
        ModelError, DataError: as `doubtmap.segments.review.review`; for a folder that cannot be
            written.
    """
    paths = outside(paths, out)
    own = [paths[at] for at in part.numbers(len(paths))] if part else paths
    names = unique_names(paths)
    seen = survey([(path, None) for path in paths], Rendering(range, every=bands_needed(segmenter)))
    skipped: dict[Path, str] | None = {} if skip_bad else None
    with writing_to(out):
        (out / "segments").mkdir(parents=True, exist_ok=True)
        note_files(out, list(names.values()))
        for folder in (out, out / "segments"):
            sweep(folder)
        with beside(out / "segments.csv") as file:
            table = _Table(out, names, file)
            images = judged(segmenter, own, model, table.add, skipped, seen.rendering, progress)
            if not images and not part:
                raise DataError(none_left(len(own), skipped))
    about = {
        "doubtmap": __version__,
        "command": command,
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "segments": model.origin.told(),
        "notes": list(seen.notes),
        "directory": str(Path.cwd()),
        "images": {names[path]: str(path) for path in paths},
        "skipped": {str(path): reason for path, reason in (skipped or {}).items()},
    }
    if part:
        done = [names[path] for path in own if path not in (skipped or ())]
        asked = model_settings(segmenter) | {"meta model": model.digest}
        told = {
            "settings": asked,
            "choice": asdict(choice),
            "own": done,
            "header": table.header,
        }
        told |= {"rendering": asdict(seen.rendering), "errors": errors_of(model), **about}
        _write_part(out, part, together(images, model) if images else None, told)
        return f"Part {part}: {len(images)} images reviewed{left_out(skipped)}: {out}. {part.then}"
    return finish(out, together(images, model), choice, seen.rendering, about, chosen)


def _write_part(out: Path, part: PartNumber, found: Review | None, told: Mapping[str, Any]) -> None:
    """What the merge must know beside the pictures and the table of segments."""
    files = ["segments.csv", *map(picture_of, told["own"])]
    if found is not None:
        write_atomically(out / REVIEWED, safetensors.numpy.save(_contiguous(found.arrays)))
        files.append(REVIEWED)
    hashes = hashes_of(out, files)
    reviewed = [] if found is None else found.names
    write_part(out, "review", part, {**told, "reviewed": reviewed, "hashes": hashes})


def _contiguous(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def finish(
    out: Path,
    found: Review,
    choice: Choice,
    rendering: Rendering,
    about: Mapping[str, Any],
    chosen: Chosen | None = None,
) -> str:
    """Write what follows from all images, once `segments.csv` and the pictures are there.

    Args:
        out: the run's folder.
        found: what is expected of all images.
        choice: which of them the page shows; these are read again.
        rendering: how they become RGB.
        about: what `review.json` says; its `images` are the paths by the images' names, in order.
        chosen: takes the images that the page shows.

    Returns:
        One sentence about what was written.

    Raises:
        DataError: for an image that cannot be read, or a folder that cannot be written.
    """
    names = {path: name for name, path in about["images"].items()}
    first = found.first(choice.count, choice.by, choice.diverse)
    write_atomically(out / "images.csv", utf8(_images_csv(found, choice.by, first, names)))
    where = about["directory"], rendering
    shown = [_card(out, found, int(index), names, *where) for index in first]
    write_atomically(out / "review.html", _page(found, shown, choice, about["command"]))
    written = {
        **{key: about[key] for key in ("doubtmap", "command", "model", "class_names", "segments")},
        "ranked_by": choice.by,
        "diverse": choice.diverse,
        "chosen": [names[found.names[index]] for index in first],
        "range": rendering.range,
        "notes": [*about["notes"], *found.notes],
        "directory": about["directory"],
        "images": {names[path]: path for path in found.names},
        "skipped": about["skipped"],
    }
    write_atomically(out / "review.json", json.dumps(written, indent=1).encode())
    if chosen:
        chosen(found, shown, choice.to)
    return (
        f"{len(found.names)} images reviewed{left_out(about['skipped'])}, {len(found.table)} "
        f"segments; look at {out / 'review.html'}"
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
        self.header = 0
        """Bytes of the header, once there is one."""

    def add(
        self, scored: ScoredImage, partition: Partition, table: SegmentTable, said: ImageReview
    ) -> None:
        """Write one image."""
        name = self.names[scored.path]
        write_segments(self.out / picture_of(name), partition.labels.numpy())
        more = {
            "pixels": np.full(len(table), picture_of(name)),
            "touches_its_class": said.probability,
            "expected_iou": said.expected_iou,
        }
        rows = utf8(table.to_csv(more, header=False))
        if self.file.tell() == 0:
            whole = utf8(table.to_csv(more))
            self.header = len(whole) - len(rows)
            rows = whole
        self.file.write(rows)


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


def picture_of(name: str) -> str:
    """The file of an image's segments, in the run's folder."""
    return f"segments/{name}.png"


def note_files(out: Path, names: Sequence[str]) -> None:
    """Remove the files of an earlier run, or part, and note those of this one; see `begin_in`.

    Args:
        out: folder of both.
        names: of the images.
    """
    (out / PART).unlink(missing_ok=True)
    begin_in(out, "review", names, [picture_of("*"), *OF_ALL])


OF_ALL = ("review.html", "review.json", "images.csv", "segments.csv", REVIEWED)
"""Files of all images together."""


def _images_csv(found: Review, by: str, first: NDArray[np.int64], names: Mapping[str, str]) -> str:
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
        pixels = picture_of(names[path])
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
    out: Path,
    found: Review,
    index: int,
    names: Mapping[str, str],
    directory: str,
    rendering: Rendering,
) -> Card:
    name = names[found.names[index]]
    file = again_in(directory, found.names[index])
    pixels = in_colour(read_image(file, rendering))
    labels = read_segments(out / picture_of(name))
    if pixels.shape[:2] != labels.shape:
        sizes = ["{1} x {0}".format(*each.shape) for each in (labels, pixels)]
        raise DataError(
            f"{file}: expected an image of {sizes[0]} pixels, as it was looked at before, got "
            f"{sizes[1]}. Put that one back, or merge where the parts' images lie."
        )
    return replace(found.card(index, pixels, labels, name=name), path=file)
