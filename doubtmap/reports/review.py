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
from doubtmap.engine.review import Review, review
from doubtmap.engine.score import ScoredImage
from doubtmap.errors import DataError
from doubtmap.prediction import Segmenter
from doubtmap.reports.overlay import overlay
from doubtmap.reports.pictures import photograph
from doubtmap.reports.scoring import unique_names
from doubtmap.segments import MetaModel, Partition
from doubtmap.version import __version__

CROP = 160
"""Smallest side of the surroundings that are shown of a segment, in pixels."""
OUTLINE = (255, 220, 60)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;
color:#222226;background:#fff}h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 .4em}
.row{display:grid;grid-template-columns:minmax(300px,480px) 1fr;gap:16px}
@media(max-width:800px){.row{display:block}}figure{margin:0}
figcaption{font-size:13px;color:#55555c;line-height:1.35;margin-top:3px}.whole img{width:100%}
.crops{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:12px;
align-content:start}.crop img{height:130px;max-width:100%}
b{font-weight:600;color:#222226}img{border-radius:3px;display:block}.none{color:#55555c}
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
    shown = [
        _image_part(found, rank, int(image), read_segments(_segments_file(out, names[path])))
        for rank, image in enumerate(found.order[:first], 1)
        for path in [found.paths[image]]
    ]
    write_atomically(out / "review.html", _page(found, shown, command).encode("utf-8"))
    lost = f", {len(skipped)} could not be read" if skipped else ""
    return (
        f"{len(found.paths)} images reviewed{lost}, {len(found.table)} segments; look at "
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
    count = np.bincount(found.table.image, minlength=len(found.paths))
    for rank, image in enumerate(found.order.tolist(), 1):
        wrong, miou = found.expected_wrong[image], found.expected_miou[image]
        writer.writerow([rank, found.paths[image], f"{wrong:.4f}", f"{miou:.4f}", count[image]])
    return text.getvalue()


def _page(found: Review, shown: Sequence[Markup], command: str) -> str:
    head = Markup(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        'content="width=device-width"><title>Look at these first</title><style>{}</style>'
        "<h1>Look at these first</h1><p>The {} of {} images with the largest expected share of "
        "wrong pixels, as learnt from labelled images. The glow is 1 - expected IoU of the "
        "predicted segment that a pixel lies in. Beside it, the segments in which most is "
        "expected to be amiss, each outlined: they are more likely than not to touch nothing of "
        "the class that they claim.</p><p class=none>doubtmap {}. {}</p>"
    ).format(Markup(_STYLE), len(shown), len(found.paths), __version__, command)
    return Markup("\n").join([head, *shown])


def _image_part(found: Review, rank: int, image: int, labels: NDArray[np.int32]) -> Markup:
    """One image: its doubt, and crops around its suspects."""
    path, table = found.paths[image], found.table
    pixels = read_image(path, orient=True).permute(1, 2, 0).numpy()
    doubt = (1 - found.expected_iou[table.image == image])[labels].astype(np.float32)
    crops = [_crop(found, row, pixels, labels) for row in found.suspects(image)]
    none = Markup("<p class=none>No segment is more likely wrong than right.</p>")
    whole = photograph(overlay(pixels, doubt, (0.3, 1.0), opacity=0.6))
    return Markup(
        '<section><h2>{}. {}</h2><div class=row><figure class=whole><img alt="" src="{}">'
        "<figcaption>expected: <b>{:.1%}</b> of pixels wrong, mIoU <b>{:.2f}</b></figcaption>"
        "</figure><div class=crops>{}</div></div></section>"
    ).format(
        rank,
        path.name,
        whole,
        found.expected_wrong[image],
        found.expected_miou[image],
        Markup("").join(crops) if crops else none,
    )


def _crop(found: Review, row: int, pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> Markup:
    table = found.table
    left, top, width, height = (int(value) for value in table.boxes[row])
    place = tuple(
        slice(max(0, start - gap), min(limit, start + length + gap))
        for start, length, limit in ((top, height, labels.shape[0]), (left, width, labels.shape[1]))
        for gap in [max(12, (CROP - length) // 2)]
    )
    inside = labels[place] == table.segment[row]
    crop = pixels[place].copy()
    crop[_outline(inside)] = OUTLINE
    return Markup(
        '<figure class=crop><img alt="" src="{}"><figcaption><b>{}?</b> {} x {} px at {}, {}; '
        "touches any with probability {:.2f}, expected IoU {:.2f}</figcaption></figure>"
    ).format(
        photograph(crop),
        table["class"][row],
        width,
        height,
        left,
        top,
        found.probability[row],
        found.expected_iou[row],
    )


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels just outside of a mask; those just inside where it fills the picture's side."""
    grown = np.pad(inside, 1)
    grown = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return np.asarray(grown & ~inside)
