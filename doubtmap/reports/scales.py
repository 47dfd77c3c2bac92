"""Doubt maps of one run on one scale, so that they can be compared.

Where a score has a natural scale, that is it. Else the maps wait as they are, in a hidden folder,
until the whole run has shown how low and high they go; a run that is taken up again finds them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doubtmap.reports.colours import robust_limits
from doubtmap.reports.maps import read_map, read_scale, write_map
from doubtmap.reports.overlay import write_overlay

Scale = tuple[float, float]


def natural_scale(score: str, classes: int, *, probability: bool = False) -> Scale | None:
    """The lowest and highest value that a score can have, where it has such.

    Args:
        score: its name.
        classes: that the network tells apart.
        probability: whether the score claims to be one.

    Example:
        >>> natural_scale("margin", 19)
        (0.0, 1.0)
    """
    if probability:
        return 0.0, 1.0
    return {
        "max_softmax": (0.0, 1 - 1 / classes),
        "margin": (0.0, 1.0),
        "entropy": (0.0, math.log(classes)),
        "divergence": (-math.log(2), 0.0),
        "sets": (1.0, float(classes)),
    }.get(score)


@dataclass(frozen=True)
class Waiting:
    """Maps and overlays that wait for the scale of the whole run.

    Args:
        out: the run's folder.
    """

    out: Path

    def path(self, file: Path) -> Path:
        """Where the map of a file waits."""
        return self.out / ".waiting" / file.parent.name / f"{file.stem}.npy"

    def holds(self, file: Path) -> bool:
        """Whether a file's map waits."""
        return self.path(file).exists()

    def keep(self, file: Path, values: NDArray[np.float32]) -> None:
        """Let a map, or an overlay's limits, wait.

        Raises:
            DataError: where it cannot be written.
        """
        write_map(self.path(file), values, "npy")

    def keep_overlay(self, file: Path, doubt: NDArray[np.float32]) -> None:
        """Let an overlay wait: its limits alone are kept."""
        self.keep(file, np.array([robust_limits(doubt)], np.float32))

    def settle(self, files: Iterable[Path], score: str) -> Scale | None:
        """Write the PNG maps of one score on the scale of all of them.

        Args:
            files: of all images of the run; those that are not there are passed over.
            score: its name.

        Returns:
            The scale; None without any file.

        Raises:
            DataError: for a file that cannot be read or written.
        """
        listed = list(files)
        waiting = [file for file in listed if self.holds(file)]
        written = [file for file in listed if file.exists() and file not in set(waiting)]
        scales = [read_scale(file) for file in written]
        for file in waiting:
            values = read_map(self.path(file))
            scales.append((float(values.min()), float(values.max())))
        if not scales:
            return None
        scale = min(low for low, _ in scales), max(high for _, high in scales)
        for file in waiting:
            write_map(file, read_map(self.path(file)), "png", score, scale=scale)
        for file, before in zip(written, scales):
            if before != scale:
                write_map(file, read_map(file), "png", score, scale=scale)
        return scale

    def lay(self, files: Iterable[tuple[Path, Path, Callable[[], NDArray[np.uint8]]]]) -> None:
        """Write the overlays that wait, with the limits of all of them.

        Args:
            files: overlay, map, and what reads the image, of each image of the run.

        Raises:
            DataError: for a file that cannot be read or written.
        """
        waiting = [entry for entry in files if self.holds(entry[0])]
        if not waiting:
            return
        limits = np.concatenate([read_map(self.path(overlay)) for overlay, _, _ in waiting])
        run = float(limits[:, 0].min()), float(limits[:, 1].max())
        for overlay, doubt, image in waiting:
            write_overlay(overlay, image(), read_map(doubt), run, bar=True)

    def has_all(self, files: Iterable[Path]) -> bool:
        """Whether all files are there, or wait."""
        return all(file.exists() or self.holds(file) for file in files)

    def finish(
        self,
        files: Sequence[Sequence[Path]],
        scores: Sequence[str],
        pictures: Iterable[Callable[[], NDArray[np.uint8]]],
    ) -> dict[str, Scale | None]:
        """Write all that waits.

        Args:
            files: of each image: classes, a map for each score, the overlay.
            scores: their names, in that order.
            pictures: what reads each image as `(H, W, 3)`.

        Returns:
            The scale of each score whose maps are PNG.

        Raises:
            DataError: for a file that cannot be read or written.
        """
        scales = {
            score: self.settle([those[place] for those in files], score)
            for place, score in enumerate(scores, 1)
            if files[0][place].suffix == ".png"
        }
        self.lay((those[-1], those[1], read) for those, read in zip(files, pictures))
        self.clear()
        return scales

    def clear(self) -> None:
        """Remove what waited."""
        shutil.rmtree(self.out / ".waiting", ignore_errors=True)
