"""Windows over images that are too large for one pass: how they are cut, and blended."""

from doubtmap.windows.automatic import for_images, sizes_of
from doubtmap.windows.blended import OVERLAP, TILE, Windows, usual_overlap, without_windows

__all__ = [
    "OVERLAP",
    "TILE",
    "Windows",
    "for_images",
    "sizes_of",
    "usual_overlap",
    "without_windows",
]
