"""Doubt maps of images of any size, as rasters that lie where the image lies.

OUT/classes/NAME.tif    predicted classes, with their colours
OUT/SCORE/NAME.tif      a doubt map for each score, float32, NaN where the image has no data
OUT/overlay/NAME.jpg    the first score laid over a small picture of the image
OUT/score.json          how all this was made

While an image is worked on, what is ready waits strip by strip in OUT/.strips; a run that was
killed goes on after the last whole strip.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.reading import Rendering, left_out, none_left
from doubtmap.engine.settings import bands_needed, model_settings, score_settings
from doubtmap.errors import DataError, ModelError
from doubtmap.files import alone, sweep, write_atomically
from doubtmap.files.naming import outside, score_folders, unique_names
from doubtmap.files.resuming import hold_samples, hold_to
from doubtmap.prediction import Prediction, Score, Segmenter, showing
from doubtmap.reports.colours import class_colours, robust_limits
from doubtmap.reports.overlay import write_overlay
from doubtmap.scenes.rasters import (
    FEW,
    Scene,
    scene_of,
    write_raster,
)
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
    if not resume:
        (out / "settings.json").unlink(missing_ok=True)
        shutil.rmtree(out / ".strips", ignore_errors=True)
        for name in names.values():  # so that no map of an earlier run counts as done
            (out / "overlay" / f"{name}.jpg").unlink(missing_ok=True)
    settings = model_settings(windows) | score_settings(scores)
    settings |= {"cloud": cloud, "range": range}
    (out / "overlay").mkdir(parents=True, exist_ok=True)
    hold_to(out / "settings.json", settings)
    folders = score_folders(scores)
    for folder in ("classes", "overlay", *folders.values()):
        sweep(out / folder)
    works = {
        path: _Work(windows, path, scores, rendering, out, names[path], folders) for path in paths
    }
    begun = [work.name for work in works.values() if resume and work.begun]
    hold_samples(out / "settings.json", file_marks(names), begun)
    about: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for path, work in works.items():
        try:
            about[names[path]] = work.done(cloud, command, progress, resume=resume)
        except DataError as error:
            if not skip_bad:
                raise
            skipped[str(path)] = str(error)
    if not about:
        raise DataError(none_left(len(paths), skipped))
    facts = {
        "doubtmap": __version__,
        "command": command,
        "directory": str(Path.cwd()),
        "model": windows.description,
        "class_names": list(windows.class_names),
        "folders": folders,
        "images": about,
        "skipped": skipped,
        "notes": [],
    }
    write_atomically(out / "score.json", json.dumps(facts, indent=1, default=str).encode())
    return f"{len(about)} of {len(paths)} images scored{left_out(skipped)}: {out}"


@dataclass(eq=False)
class _Work:
    """One image on its way from a raster to maps of its pixels."""

    windows: Windows
    path: Path
    scores: dict[str, Score]
    rendering: Rendering
    out: Path
    name: str
    folders: dict[str, str]

    @cached_property
    def scene(self) -> Scene:
        """The image."""
        return scene_of(self.path, self.rendering)

    @property
    def waiting(self) -> Path:
        """Where strips wait until all are there."""
        return self.out / ".strips" / self.name

    @property
    def files(self) -> dict[str, Path]:
        """Maps by what they show."""
        folders = {"classes": "classes"} | self.folders
        return {what: self.out / folder / f"{self.name}.tif" for what, folder in folders.items()}

    @property
    def overlay(self) -> Path:
        """The last file that is written."""
        return self.out / "overlay" / f"{self.name}.jpg"

    @property
    def begun(self) -> bool:
        """Whether a run before has seen any of it."""
        return self.waiting.exists() or self.finished

    @property
    def finished(self) -> bool:
        """Whether all files are there."""
        return self.overlay.exists() and all(file.exists() for file in self.files.values())

    def done(
        self,
        cloud: bool,
        command: str,
        progress: Callable[[str, int, int], None] | None,
        *,
        resume: bool,
    ) -> dict[str, object]:
        """Do all of it that is not done, and tell of it."""
        if not (resume and self.finished):
            self.look(progress)
            self.write(cloud, command)
        shutil.rmtree(self.waiting, ignore_errors=True)
        about: dict[str, object] = {
            "path": str(self.path),
            "size": self.scene.size,
            "range": self.scene.range,
        }
        del self.scene  # with its pixels, or its open file
        return about

    def look(self, progress: Callable[[str, int, int], None] | None) -> None:
        """Let the network see every window, and keep what it said strip by strip."""
        first = self._first()
        laying = self.windows.laying(first, features=needs_features(self.scores, first))
        context = context_of(self.scores, self.windows.tile)
        self.count = first.native_logits.shape[1]
        tile = self.windows.tile
        strip = PANEL_BYTES // (2 * tile * (2 + 4 * len(self.scores)))  # with its copy when written
        width = max(2 * tile, min(panel_width(first, laying, tile, context), strip))
        self.strips = Strips(
            self.scene.size, self.windows.tile, self.windows.overlap, context, width
        )
        done = {key for key in self.strips.keys if self._strip(key).exists()}
        total = sum(len(self.strips.windows_of(p)) for p in range(len(self.strips.panels)))
        total *= len(self.strips.rows)
        count = 0

        def seen() -> None:
            nonlocal count
            count += 1
            if progress:
                progress(f"windows of {self.path.name}", min(count, total), total)

        with showing(self.path.name):
            for key, parts in self._parts(laying, done, seen):
                write_atomically(self._strip(key), safetensors.save(parts))

    def _first(self) -> Prediction:
        """Of the first window with data."""
        height, width = self.scene.size
        for rows, columns in self.windows.places(height, width):
            image = self.scene.read((rows.start, rows.stop), (columns.start, columns.stop))
            if image is not None:
                return self.windows.segmenter(image[None])
        raise DataError(f"{self.path}: expected pixels with data, got none. Leave it out.")

    def _strip(self, key: Key) -> Path:
        panel, row = key
        return self.waiting / f"{row:05d}-{panel:05d}.safetensors"

    def _parts(
        self, laying: Laying, done: set[Key], seen: Callable[[], None]
    ) -> Iterator[tuple[Key, Parts]]:
        """What is written of each strip, once it is whole."""
        found: Parts = {}
        walk = blocks(self.windows, self.scene.read, self.strips, laying, done, seen)
        for key, block in walk:
            first, last = self.strips.columns_of(key[0])
            if block.columns[0] == first:
                found = self._blank(key)
            self._fill(found, key, block)
            if block.columns[1] == last:
                yield key, found

    def _blank(self, key: Key) -> Parts:
        rows, columns = self.strips.range_of(key[1]), self.strips.columns_of(key[0])
        shape = rows[1] - rows[0], columns[1] - columns[0]
        many = self._void > np.iinfo(np.uint8).max
        classes = np.full(shape, self._void, np.uint16 if many else np.uint8)
        return {"classes": classes} | {
            name: np.full(shape, np.nan, np.float32) for name in self.scores
        }

    def _fill(self, found: Parts, key: Key, block: Block) -> None:
        valid = self.scene.valid(block.rows, block.columns)
        if block.prediction is None or not valid.any():
            return
        left = self.strips.columns_of(key[0])[0]
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

    @cached_property
    def _void(self) -> int:
        count = max(len(self.windows.class_names), self.count)
        return 255 if count < FEW else 65535

    def write(self, cloud: bool, command: str) -> None:
        """Bring the strips together, and remove them."""
        names = self.windows.class_names
        for what, file in self.files.items():
            is_classes = what == "classes"
            tags = {"doubtmap": __version__, "command": command, "shows": what}
            tags |= (
                {"class_names": json.dumps(list(names))}
                if is_classes
                else {"meaning": "higher = more doubt"}
            )
            write_raster(
                file,
                self.scene.size,
                self._laid(what),
                self.scene.place,
                nodata=float(self._void if is_classes else np.nan),
                description="class" if is_classes else what,
                tags=tags,
                colours=class_colours(len(names), names) if is_classes and names else None,
                cloud=cloud,
            )
        self._lay_over()

    def _laid(self, what: str) -> Iterator[tuple[tuple[int, int], tuple[int, int], NDArray[Any]]]:
        for panel, row in sorted(self.strips.keys, key=lambda key: key[::-1]):
            parts = safetensors.load(self._strip((panel, row)).read_bytes())
            yield self.strips.range_of(row), self.strips.columns_of(panel), parts[what]

    def _lay_over(self) -> None:
        doubt = self.scene.small(next(iter(list(self.files.values())[1:])))
        known = np.isfinite(doubt)
        limits = robust_limits(doubt[known]) if known.any() else (0.0, 1.0)
        write_overlay(
            self.overlay,
            self.scene.thumbnail(),
            np.where(known, doubt, limits[0]).astype(np.float32),
            limits,
            bar=True,
        )


def needs_features(scores: Mapping[str, Score], prediction: Prediction) -> bool:
    """Whether any score cannot do without features, as one window tells."""
    bare = replace(prediction, features=None)
    for score in scores.values():
        try:
            score(bare)
        except ModelError:
            return True
    return False
