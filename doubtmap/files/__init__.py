"""Files: they appear whole or not at all, and are checked when they are read."""

from doubtmap.files.fitted import Content, FileKind, Origin, encoded, read, write
from doubtmap.files.tables import Entry, Part
from doubtmap.files.writing import beside, check_place, sweep, write_atomically, writing_to

__all__ = [
    "Content",
    "Entry",
    "FileKind",
    "Origin",
    "Part",
    "beside",
    "check_place",
    "encoded",
    "read",
    "sweep",
    "write",
    "write_atomically",
    "writing_to",
]
