"""Files: they appear whole or not at all, and are checked when they are read."""

from doubtmap.files.fitted import Content, FileKind, Origin, encoded, read, write
from doubtmap.files.locking import alone, held
from doubtmap.files.tables import Entry, Part
from doubtmap.files.writing import cell, check_place, utf8, write_atomically

__all__ = [
    "Content",
    "Entry",
    "FileKind",
    "Origin",
    "Part",
    "alone",
    "cell",
    "check_place",
    "encoded",
    "held",
    "read",
    "utf8",
    "write",
    "write_atomically",
]
