"""The maps of one image, from strips that wait on the disk to rasters that lie where it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from doubtmap.datasets.reading import Rendering
from doubtmap.reports.colours import class_colours, robust_limits
from doubtmap.reports.overlay import write_overlay
from doubtmap.scenes.rasters import FEW, Scene, scene_of, write_raster
from doubtmap.version import __version__
from doubtmap.windows.blocks import Key, Strips


@dataclass(frozen=True)
class Seen:
    """What is known of an image once the network has seen a window of it.

    Args:
        strips: how it is gone through.
        classes: how many channels the logits have.
    """

    strips: Strips
    classes: int


@dataclass(eq=False)
class Maps:
    """The maps of one image.

    Args:
        path: of the image.
        rendering: how it becomes what the network takes.
        out: folder of the run.
        name: of the image's files.
        folders: of the maps, by score.
        class_names: of the network.
    """

    path: Path
    rendering: Rendering
    out: Path
    name: str
    folders: Mapping[str, str]
    class_names: tuple[str, ...]

    @cached_property
    def scene(self) -> Scene:
        """The image."""
        return scene_of(self.path, self.rendering)

    @property
    def waiting(self) -> Path:
        """Where strips wait until all are there."""
        return self.out / WAITING / self.name

    def strip(self, key: Key) -> Path:
        """The file of a strip."""
        panel, row = key
        return self.waiting / f"{row:05d}-{panel:05d}.safetensors"

    @property
    def files(self) -> dict[str, Path]:
        """Maps by what they show."""
        folders = {"classes": "classes", **self.folders}
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

    def about(self) -> dict[str, Any]:
        """What `score.json` says of the image, which is let go of with its pixels or open file."""
        scene = self.scene
        del self.scene
        return {"path": str(self.path), "size": scene.size, "range": scene.range}

    def write(self, seen: Seen, cloud: bool, command: str) -> None:
        """Bring the strips together, and remove them.

        Args:
            seen: what is known of the image.
            cloud: write cloud-optimised GeoTIFFs.
            command: what to write as the origin.

        Raises:
            DataError: for files that cannot be written.
        """
        names, void = self.class_names, self.void(seen)
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
                self._laid(seen.strips, what),
                self.scene.place,
                nodata=float(void if is_classes else np.nan),
                description="class" if is_classes else what,
                tags=tags,
                colours=class_colours(len(names), names) if is_classes and names else None,
                cloud=cloud,
            )
        self._lay_over()
        self.clear()

    def clear(self) -> None:
        """Remove the strips, and their folder with those of the last image."""
        shutil.rmtree(self.waiting, ignore_errors=True)
        with suppress(OSError):
            (self.out / WAITING).rmdir()

    def void(self, seen: Seen) -> int:
        """The class of pixels without data."""
        return 255 if max(len(self.class_names), seen.classes) < FEW else 65535

    def _laid(
        self, strips: Strips, what: str
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int], NDArray[Any]]]:
        for panel, row in sorted(strips.keys, key=lambda key: key[::-1]):
            parts = safetensors.load(self.strip((panel, row)).read_bytes())
            yield strips.range_of(row), strips.columns_of(panel), parts[what]

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


WAITING = ".strips"
"""Folder in which strips wait."""
