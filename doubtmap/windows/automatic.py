"""Windows that come by themselves, where images are too large for the memory of a device."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.fingerprints import beneath
from doubtmap.datasets.pasting import Part
from doubtmap.datasets.reading import read_size
from doubtmap.errors import DataError
from doubtmap.files.afar import is_afar
from doubtmap.prediction import Segmenter
from doubtmap.windows.blended import TILE, Windows

BYTES = 2048
"""That a network takes for each pixel of an image, at most: networks with 64 channels at full size
take about 1,000, those that halve the image at once 300 to 700."""
SHARE = 0.5
"""Of a device's memory that a network may take. What others take of it at a moment counts for
nothing, so that the same run is cut in the same way every time."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says what a container may take."""
LOOKED_AT = 16
"""Images afar whose size is asked for; each costs a request."""


def for_images(
    segmenter: Segmenter, sizes: Iterable[tuple[int, int]], run: Path | None = None
) -> tuple[Segmenter, str | None]:
    """The network, looking through windows where images are too large for the device's memory.

    Args:
        segmenter: the network.
        sizes: heights and widths of the images.
        run: `settings.json` of a run that goes on, whose windows are then taken.

    Returns:
        It, and what a user must know of it.
    """
    if isinstance(segmenter, Windows):
        return segmenter, None
    height, width = max(sizes, key=math.prod, default=(1, 1))
    images = f"images of up to {width} x {height} pixels are looked at through windows of"
    if run is not None and run.exists():
        known = windows_of(run)
        if known is None:
            return segmenter, None
        return Windows(segmenter, **known), f"{images} {known['tile']}, as in the run that goes on."
    memory = memory_of(device_of(segmenter))
    if height * width * BYTES * _longest_view(segmenter) ** 2 <= SHARE * memory:
        return segmenter, None
    return Windows(segmenter), (
        f"{images} {TILE}, since half of the {memory / 1e9:.1f} GB of memory would not take them "
        f"whole. Give --tile and --overlap to choose."
    )


def _longest_view(segmenter: Segmenter) -> float:
    """Factor of the images' sides in the largest view that a network has of them."""
    members = segmenter.description.get("members")
    abouts: list[Any] = members if isinstance(members, list) else [segmenter.description]
    views = [about["views"]["sides"] for about in abouts if "views" in about]
    return max((float(side) for sides in views for side in sides), default=1.0)


def windows_of(run: Path) -> dict[str, int] | None:
    """The windows that a run had, by its `settings.json`; None for none."""
    try:
        known = json.loads(run.read_text())["model"]["windows"]
        return None if known is None else {key: int(known[key]) for key in ("tile", "overlap")}
    except (OSError, ValueError, LookupError, TypeError):
        return None  # whoever compares the settings tells


Size = tuple[int, int]


def sizes_of(
    images: Dataset | Sequence[Path], size_of: Callable[[Path], Size] = read_size
) -> list[Size]:
    """Heights and widths of the images that have files and can be opened.

    Args:
        images: their files, or a data set.
        size_of: tells the size of one, or raises `DataError`.
    """
    if isinstance(images, Dataset):
        chosen: Iterable[int] = range(len(images))
        if isinstance(images, Part):
            chosen = images.indices
        files: Sequence[Any] = getattr(beneath(images), "files", ())
        paths = [each[0] if isinstance(each, tuple) else each for each in _at(files, chosen)]
    else:
        paths = list(images)
    afar = [path for path in paths if is_afar(path)][:LOOKED_AT]
    found = []
    for path in [path for path in paths if not is_afar(path)] + afar:
        with suppress(DataError):  # told when it is read
            found.append(size_of(path))
    return found


def _at(files: Sequence[Any], chosen: Iterable[int]) -> list[Any]:
    return [files[index] for index in chosen if index < len(files)]


def device_of(segmenter: Segmenter) -> torch.device:
    """Where a network runs, or the first of several, or the one behind what stands before it."""
    members = getattr(segmenter, "members", None)
    behind = members[0] if members else getattr(segmenter, "segmenter", None)
    if hasattr(segmenter, "device") or behind is None:
        found: torch.device = getattr(segmenter, "device", torch.device("cpu"))
        return found
    return device_of(behind)


def memory_of(device: torch.device) -> float:
    """Bytes that a device has, or that a container may take; infinite where nobody says."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    said = [_kilobytes(Path("/proc/meminfo"), "MemTotal:"), *map(_bytes, map(Path, LIMITS))]
    return min(said)


def _kilobytes(path: Path, name: str) -> float:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return float("inf")
    found = [1024.0 * int(line.split()[1]) for line in lines if line.startswith(name)]
    return found[0] if found else float("inf")


def _bytes(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")
