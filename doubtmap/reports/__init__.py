"""How things look: colours, charts, pictures, and maps as files. No feature is known here."""

from doubtmap.reports.colours import class_colours, colour_labels
from doubtmap.reports.maps import MapFormat, read_map, write_classes, write_map
from doubtmap.reports.overlay import overlay, write_overlay

__all__ = [
    "MapFormat",
    "class_colours",
    "colour_labels",
    "overlay",
    "read_map",
    "write_classes",
    "write_map",
    "write_overlay",
]
