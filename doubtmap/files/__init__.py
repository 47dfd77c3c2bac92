"""Files: they appear whole or not at all, and are checked when they are read."""

from doubtmap.files.fitted import Content, FileKind, Origin, encoded, kind_of, read, write
from doubtmap.files.locking import alone, held
from doubtmap.files.tables import Entry, Part
from doubtmap.files.writing import (
    beside,
    cell,
    check_place,
    sweep,
    utf8,
    write_atomically,
    writing_to,
)

__all__ = [
    "Content",
    "Entry",
    "FileKind",
    "Origin",
    "Part",
    "alone",
    "beside",
    "cell",
    "check_place",
    "encoded",
    "held",
    "kind_of",
    "read",
    "sweep",
    "utf8",
    "write",
    "write_atomically",
    "writing_to",
]
