"""Windows over images that are too large for one pass: how they are cut, and blended."""

from doubtmap.windows.blended import OVERLAP, TILE, Windows, for_images, without_windows

__all__ = ["OVERLAP", "TILE", "Windows", "for_images", "without_windows"]
