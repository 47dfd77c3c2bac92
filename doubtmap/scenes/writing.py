"""Doubt maps of images of any size, as rasters that lie where the image lies.

OUT/classes/NAME.tif    predicted classes, with their colours
OUT/SCORE/NAME.tif      a doubt map for each score, float32, NaN where the image has no data
OUT/overlay/NAME.jpg    the first score laid over a small picture of the image
OUT/score.json          how all this was made

While an image is worked on, what is ready waits strip by strip in OUT/.strips; a run that was
killed goes on after the last whole strip. A part of a run has OUT/part.json and strips only
(`doubtmap.scenes.parts`).
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.reading import Rendering, left_out, none_left
from doubtmap.engine.parts import PART, SETTINGS, hashes_of, write_part
from doubtmap.engine.places import PartNumber
from doubtmap.engine.settings import bands_needed, model_settings, score_settings
from doubtmap.errors import DataError, ModelError
from doubtmap.files import alone, sweep, write_atomically
from doubtmap.files.earlier import begin_in
from doubtmap.files.naming import outside, score_folders, unique_names
from doubtmap.files.resuming import hold_samples, hold_to
from doubtmap.prediction import Prediction, Score, Segmenter, showing
from doubtmap.scenes.maps import WAITING, Maps, Seen
from doubtmap.scenes.rasters import raster_size
from doubtmap.scoring import prepared, score_maps
from doubtmap.version import __version__
from doubtmap.windows import Windows
from doubtmap.windows.blocks import PANEL_BYTES, Block, Key, Strips, blocks, panel_width
from doubtmap.windows.canvas import Laying
from doubtmap.windows.spans import STEP

PIXELWISE = (
    *("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence", "gradient"),
    *("mutual_information", "member_entropy", "member_spread", "rejected"),
    *("distilled", "negative"),
    *("density", "mahalanobis"),
)
"""Scores that look at a pixel and its neighbours on the native grid; the others look about."""

Parts = dict[str, NDArray[Any]]
"""What is written of a strip: classes, and each score, by name."""


def context_of(scores: Mapping[str, Score], tile: int) -> int:
    """Pixels around a block that its scores look at: `island` and `doubt` a quarter of a window."""
    near = all(
        name.partition(":")[0].partition("(")[0] in PIXELWISE and "smooth" not in name
        for name in scores
    )
    return STEP if near else max(STEP, tile // 4 // STEP * STEP)


@alone
def write_scenes(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    out: Path,
    *,
    range: tuple[float, float] | None = None,
    cloud: bool = False,
    resume: bool = False,
    skip_bad: bool = False,
    part: PartNumber | None = None,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Score images of any size window by window, in bounded memory.

    Args:
        segmenter: the network, in `Windows` or not.
        paths: of the images.
        scores: by name. Those that look about see a quarter of a window, and take the window for
            the image.
        out: folder, made if it is not there.
        range: values that are black and white in images of more than 8 bits; default: by the bits
            that an overview of each uses.
        cloud: write cloud-optimised GeoTIFFs.
        resume: go on where a run of the same settings stopped.
        skip_bad: count images that cannot be read, and go on.
        part: which share of the rows of all images only, for `doubtmap.scenes.parts.merge_scenes`.
        command: what to write as the origin.
        progress: told after each window.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: without rasterio, or for settings other than those of the run that goes on.
        DataError: for an image that cannot be read, or a folder that cannot be written.
    """
    windows = segmenter if isinstance(segmenter, Windows) else Windows(segmenter)
    windows = prepared(windows, scores)  # type: ignore[assignment]
    rendering = Rendering(range, every=bands_needed(windows))
    paths = outside(paths, out)
    names = unique_names(paths)
    folders = score_folders(scores)
    asked = out / SETTINGS
    if not resume:
        asked.unlink(missing_ok=True)
        (out / PART).unlink(missing_ok=True)
        shutil.rmtree(out / WAITING, ignore_errors=True)
        for name in names.values():  # so that no map of an earlier run counts as done
            (out / "overlay" / f"{name}.jpg").unlink(missing_ok=True)
    note_files(out, list(names.values()), folders, resume=resume)
    settings = model_settings(windows) | score_settings(scores)
    settings |= {"cloud": cloud, "range": range} | ({"part": str(part)} if part else {})
    (out / "overlay").mkdir(parents=True, exist_ok=True)
    hold_to(asked, settings)
    for folder in ("classes", "overlay", *folders.values()):
        sweep(out / folder)
    works = {
        path: _Work(
            *(path, rendering, out, names[path], folders, tuple(windows.class_names)),
            windows=windows,
            scores=scores,
            own=own,
        )
        for path, own in own_rows(paths, part).items()
    }
    begun = [work.name for work in works.values() if resume and work.begun]
    hold_samples(asked, file_marks({path: names[path] for path in works}), begun)
    told: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for path, work in works.items():
        try:
            if part:
                found = work.look(progress)
                seen[names[path]] = asdict(found)
                told[names[path]] = work.about()
            else:
                told[names[path]] = work.done(cloud, command, progress, resume=resume)
        except DataError as error:
            if not skip_bad:
                raise
            skipped[str(path)] = str(error)
    facts = {
        "doubtmap": __version__,
        "command": command,
        "directory": str(Path.cwd()),
        "model": windows.description,
        "class_names": list(windows.class_names),
        "folders": folders,
        "images": told,
        "skipped": skipped,
        "notes": [],
    }
    if part:
        strips = sorted((out / WAITING).rglob("*.safetensors"))
        files = [SETTINGS, *(file.relative_to(out).as_posix() for file in strips)]
        more = {"seen": seen, "names": {names[path]: str(path) for path in paths}}
        more |= {"rendering": asdict(rendering), "hashes": hashes_of(out, files)}
        write_part(out, KIND, part, json.loads(json.dumps(facts | more, default=str)))
        return (
            f"Part {part}: strips of {len(told)} of {len(paths)} images scored"
            f"{left_out(skipped)}: {out}. {part.then}"
        )
    if not told:
        raise DataError(none_left(len(paths), skipped))
    write_atomically(out / "score.json", json.dumps(facts, indent=1, default=str).encode())
    return f"{len(told)} of {len(paths)} images scored{left_out(skipped)}: {out}"


KIND = "score of rasters"
"""What parts of it are called."""


def note_files(
    out: Path, names: Sequence[str], folders: Mapping[str, str], *, resume: bool = False
) -> None:
    """Remove the files of an earlier run, and note those of this one; see `begin_in`.

    Args:
        out: folder of both.
        names: of the images.
        folders: of the scores' maps.
        resume: the earlier run goes on.
    """
    forms = [f"{folder}/*.tif" for folder in ("classes", *folders.values())]
    begin_in(out, "score", names, [*forms, "overlay/*.jpg", "score.json"], resume=resume)


def own_rows(paths: Sequence[Path], part: PartNumber | None) -> dict[Path, range | None]:
    """The rows of each image that are a part's: a share of the rows of all, one below the other.

    Args:
        paths: of the images.
        part: which share; None: all rows of all images, which is said by None, too.

    Returns:
        For the images of which the part has rows; one that cannot be opened counts as one row.
    """
    if part is None:
        return dict.fromkeys(paths)
    heights = [(raster_size(path) or (0, 0))[0] for path in paths]
    ends = [*itertools.accumulate(max(1, height) for height in heights)]
    share = part.numbers(ends[-1] if ends else 0)
    found: dict[Path, range | None] = {}
    for path, end, height in zip(paths, ends, heights):
        first = end - max(1, height)
        own = range(max(share.start, first) - first, min(share.stop, end) - first)
        if own:
            found[path] = own
    return found


@dataclass(eq=False)
class _Work(Maps):
    """One image on its way from a raster to maps of its pixels.

    Args:
        windows: the network.
        scores: by name.
        own: rows of which the strips that begin in them are looked at; None: all.
    """

    windows: Windows
    scores: dict[str, Score]
    own: range | None = None

    def done(
        self,
        cloud: bool,
        command: str,
        progress: Callable[[str, int, int], None] | None,
        *,
        resume: bool,
    ) -> dict[str, Any]:
        """Do all of it that is not done, and tell of it."""
        if not (resume and self.finished):
            self.write(self.look(progress), cloud, command)
        self.clear()
        return self.about()

    def look(self, progress: Callable[[str, int, int], None] | None) -> Seen:
        """Let the network see the windows, and keep what it said strip by strip."""
        first = self._first()
        laying = self.windows.laying(first, features=needs_features(self.scores, first))
        context = context_of(self.scores, self.windows.tile)
        tile, overlap = self.windows.tile, self.windows.overlap
        strip = PANEL_BYTES // (2 * tile * (2 + 4 * len(self.scores)))  # with its copy when written
        width = max(2 * tile, min(panel_width(first, laying, tile, context), strip))
        strips = Strips(self.scene.size, tile, overlap, context, width)
        seen = Seen(strips, first.native_logits.shape[1])
        own = [key for key in strips.keys if self._is_own(strips, key)]
        done = {*strips.keys} - {key for key in own if not self.strip(key).exists()}
        total = sum(len(strips.windows_of(panel)) for panel, _ in own)
        count = 0

        def tell() -> None:
            nonlocal count
            count += 1
            if progress:
                progress(f"windows of {self.path.name}", min(count, total), total)

        with showing(self.path.name):
            for key, parts in self._parts(seen, laying, done, tell):
                write_atomically(self.strip(key), safetensors.save(parts))
        return seen

    def _is_own(self, strips: Strips, key: Key) -> bool:
        return self.own is None or strips.range_of(key[1])[0] in self.own

    def _first(self) -> Prediction:
        """Of the first window with data."""
        height, width = self.scene.size
        for rows, columns in self.windows.places(height, width):
            image = self.scene.read((rows.start, rows.stop), (columns.start, columns.stop))
            if image is not None:
                return self.windows.segmenter(image[None])
        raise DataError(f"{self.path}: expected pixels with data, got none. Leave it out.")

    def _parts(
        self, seen: Seen, laying: Laying, done: set[Key], tell: Callable[[], None]
    ) -> Iterator[tuple[Key, Parts]]:
        """What is written of each strip, once it is whole."""
        found: Parts = {}
        strips = seen.strips
        for key, block in blocks(self.windows, self.scene.read, strips, laying, done, tell):
            first, last = strips.columns_of(key[0])
            if block.columns[0] == first:
                found = self._blank(seen, key)
            self._fill(found, first, block)
            if block.columns[1] == last:
                yield key, found

    def _blank(self, seen: Seen, key: Key) -> Parts:
        rows, columns = seen.strips.range_of(key[1]), seen.strips.columns_of(key[0])
        shape, void = (rows[1] - rows[0], columns[1] - columns[0]), self.void(seen)
        many = void > np.iinfo(np.uint8).max
        classes = np.full(shape, void, np.uint16 if many else np.uint8)
        return {"classes": classes} | {
            name: np.full(shape, np.nan, np.float32) for name in self.scores
        }

    def _fill(self, found: Parts, left: int, block: Block) -> None:
        valid = self.scene.valid(block.rows, block.columns)
        if block.prediction is None or not valid.any():
            return
        place = slice(None), slice(block.columns[0] - left, block.columns[1] - left)
        inside = block.inside
        classes = block.prediction.classes[0].cpu().numpy()[inside]
        maps = {
            name: values.cpu().numpy()[inside]
            for name, values in score_maps(block.prediction, self.scores).items()
        }
        for name, values in ({"classes": classes} | maps).items():
            target = found[name][place]
            target[valid] = values[valid]


def needs_features(scores: Mapping[str, Score], prediction: Prediction) -> bool:
    """Whether any score cannot do without features, as one window tells."""
    bare = replace(prediction, features=None)
    for score in scores.values():
        try:
            score(bare)
        except ModelError:
            return True
    return False
