"""The files of `doubtmap review`: what to look at first, as a page and as tables.

OUT/review.html           the first images and their suspicious segments
OUT/images.csv            all images, ranked, with what is expected of them
OUT/segments.csv          all segments: place, features, what is expected of them
OUT/segments/NAME.png     which segment every pixel lies in: red + 256 green + 65536 blue
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from doubtmap.atomic import write_atomically
from doubtmap.datasets.reading import read_image
from doubtmap.engine.review import Card, Review, review
from doubtmap.engine.score import ScoredImage
from doubtmap.errors import DataError
from doubtmap.prediction import Segmenter
from doubtmap.reports.cards import CARD_STYLE, card_part
from doubtmap.reports.scoring import unique_names
from doubtmap.segments import MetaModel, Partition
from doubtmap.version import __version__

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;
color:#222226;background:#fff}h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 .4em}
.quiet{color:#55555c}
"""


def write_review(
    segmenter: Segmenter,
    paths: Sequence[Path],
    model: MetaModel,
    out: Path,
    *,
    first: int = 20,
    skip_bad: bool = False,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Review images and write what came out.

    Args:
        segmenter: the network.
        paths: of the images.
        model: of `doubtmap fit segments`.
        out: folder, made if it is not there.
        first: how many images the page shows.
        skip_bad: count images that cannot be read, and go on.
        command: what to write as the origin.
        progress: told after each image.

    Returns:
        One sentence about what was written.

    Raises:
        ModelError, DataError: as `doubtmap.engine.review.review`; for a folder that cannot be
            written.
    """
    names = unique_names(paths)
    try:
        (out / "segments").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}.") from error

    def keep(scored: ScoredImage, partition: Partition) -> None:
        write_segments(_segments_file(out, names[scored.path]), partition.labels.numpy())

    skipped: dict[Path, str] | None = {} if skip_bad else None
    found = review(segmenter, paths, model, found=keep, skipped=skipped, progress=progress)
    more = {"touches_its_class": found.probability, "expected_iou": found.expected_iou}
    found.table.write_csv(out / "segments.csv", more)
    write_atomically(out / "images.csv", _images_csv(found).encode())
    shown = [_card(out, found, int(index), names) for index in found.order[:first]]
    write_atomically(out / "review.html", _page(found, shown, command).encode("utf-8"))
    lost = f", {len(skipped)} could not be read" if skipped else ""
    return (
        f"{len(found.names)} images reviewed{lost}, {len(found.table)} segments; look at "
        f"{out / 'review.html'}"
    )


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


def _images_csv(found: Review) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "image", "expected_wrong_share", "expected_miou", "segments"])
    count = np.bincount(found.table.image, minlength=len(found.names))
    for rank, image in enumerate(found.order.tolist(), 1):
        wrong, miou = found.expected_wrong[image], found.expected_miou[image]
        writer.writerow([rank, found.names[image], f"{wrong:.4f}", f"{miou:.4f}", count[image]])
    return text.getvalue()


def _page(found: Review, shown: Sequence[Card], command: str) -> str:
    head = Markup(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        'content="width=device-width"><title>Look at these first</title><style>{}</style>'
        "<h1>Look at these first</h1><p>The {} of {} images with the largest expected share of "
        "wrong pixels, as learnt from labelled images. The glow is 1 - expected IoU of the "
        "predicted segment that a pixel lies in. Beside it, the segments in which most is "
        "expected to be amiss, each outlined: they are more likely than not to touch nothing of "
        "the class that they claim.</p><p class=quiet>doubtmap {}. {}</p>"
    ).format(Markup(_STYLE + CARD_STYLE), len(shown), len(found.names), __version__, command)
    return Markup("\n").join([head, *(card_part(rank, card) for rank, card in enumerate(shown, 1))])


def _card(out: Path, found: Review, index: int, names: dict[Path, str]) -> Card:
    path = Path(found.names[index])
    pixels = read_image(path, orient=True).permute(1, 2, 0).numpy()
    return found.card(index, pixels, read_segments(_segments_file(out, names[path])))
