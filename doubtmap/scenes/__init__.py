"""Images of any size, with a place on earth: maps as rasters, window by window."""

from doubtmap.scenes.parts import merge_scenes
from doubtmap.scenes.rasters import is_georeferenced, raster_size, rasters_are_read
from doubtmap.scenes.writing import write_scenes

__all__ = ["is_georeferenced", "merge_scenes", "raster_size", "rasters_are_read", "write_scenes"]
