"""Tar files as folders: members are read where they lie, near or afar, and nothing is unpacked.

A shard is a tar file of samples one after the other, as WebDataset writes them: the files of one
sample have one key, their name up to its first point, as `000123.jpg` and `000123.seg.png`.

References:
    WebDataset, https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import glob
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from doubtmap.errors import DataError, UsageError
from doubtmap.files.afar import Afar, found_by, is_afar, listed, mark_of, path_of, translated
from doubtmap.files.stores import cache
from doubtmap.files.writing import write_atomically

AHEAD = 8192
"""Bytes of a shard afar that are read at a time: a header, and small files with it."""
AT_ONCE = 8
"""Shards that are indexed at the same time."""
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


class Member(Afar):
    """A file inside a shard, called `SHARD/NAME`; it is read, and never written."""

    _shard: Path
    _offset: int = 0
    _size: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent to a worker."""
        return member, (self._shard, self.inside, self._offset, self._size)

    @property
    def inside(self) -> str:
        """Its name in the shard."""
        return str(self).removeprefix(f"{self._shard}/")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Its content, as bytes (`rb`) or as text in UTF-8 (`r`)."""
        file = io.BytesIO(self.read_bytes())
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8")

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            DataError: where the shard cannot be read, or ends before it.
        """
        start, end = self._offset, self._offset + self._size
        if is_afar(self._shard):
            with translated(self):
                system, name = found_by(self._shard)
                content: bytes = system.cat_file(name, start=start, end=end) if self._size else b""
        else:
            try:
                with self._shard.open("rb") as file:
                    file.seek(start)
                    content = file.read(self._size)
            except OSError as error:
                raise DataError(
                    f"{self}: cannot be read ({error.strerror or error}). Check the path."
                ) from error
        if len(content) != self._size:
            raise DataError(f"{self}: expected {self._size} bytes, got {len(content)}. {_CUT}")
        return content

    def is_file(self, **_: Any) -> bool:
        """It was, when the shard was looked through."""
        return True

    exists = is_file

    def stat(self, **_: Any) -> os.stat_result:
        """Its size, and nothing else."""
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, self._size, 0, 0, 0))

    def mark(self) -> str:
        """A short hash that changes with the shard, and where in it this lies."""
        if is_afar(self._shard):
            return f"{mark_of(self._shard)} {self._offset} {self._size}"
        about = self._shard.stat()
        return f"{about.st_size} {about.st_mtime_ns} {self._offset} {self._size}"


_CUT = "The shard is cut off: fetch or write it again."


def member(shard: Path, name: str, offset: int, size: int) -> Member:
    """A file inside a shard: of so many bytes, from an offset on."""
    found = Member(f"{shard}/{name}")
    found._given, found._shard, found._offset, found._size = f"{shard}/{name}", shard, offset, size
    return found


def braces(text: str) -> list[str]:
    """What a text with braces stands for.

    Example:
        >>> braces("a-{08..10}.tar"), braces("{x,y}.tar")
        (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['x.tar', 'y.tar'])
    """
    match = _BRACES.search(text)
    if match is None:
        return [text]
    first, last, several = match.groups()
    if several is None:
        numbers = range(int(first), int(last) + 1)
        filled = [f"{number:0{len(first)}d}" for number in numbers]
    else:
        filled = several.split(",")
    whole = [f"{text[: match.start()]}{each}{text[match.end() :]}" for each in filled]
    return [*itertools.chain.from_iterable(map(braces, whole))]


def shards_of(text: str) -> list[Path]:
    """The shards that a path, an address or a pattern with braces or stars stands for, in order.

    Raises:
        UsageError: for a name that is no tar file's.
        DataError: where there are none.
    """
    found: dict[Path, None] = {}
    for each in braces(text):
        if not each.lower().endswith(".tar"):
            raise UsageError(
                f"webdataset: expected tar files without compression, such as "
                f"shards-{{000..009}}.tar, got {each}. Unpack what is compressed."
            )
        if is_afar(each):
            names = listed(each, ("tar",))
        elif glob.has_magic(each):
            names = [*map(Path, sorted(glob.glob(str(Path(each).expanduser()))))]  # noqa: PTH207
        else:
            names = [Path(each).expanduser()]
        found.update(dict.fromkeys(names))
    if not found:
        raise DataError(f"{text}: expected shards, found none. Check the path.")
    return list(found)


def members_of(shards: Sequence[Path]) -> list[list[Member]]:
    """The files in each of several shards, in order.

    Of shards afar the places of their files are kept in this machine's cache.

    Raises:
        UsageError, DataError: for a shard that cannot be read, or is none.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="doubtmap-shards") as pool:
        return list(pool.map(_members, shards))


def _members(shard: Path) -> list[Member]:
    if not is_afar(shard):
        try:
            with shard.open("rb") as file:
                return [member(shard, *each) for each in _index(file, shard)]
        except OSError as error:
            raise DataError(
                f"{shard}: cannot be read ({error.strerror or error}). Check the path."
            ) from error
    kept = cache() / "shards" / f"{mark_of(shard)}.json"
    if kept.exists():
        return [member(shard, *each) for each in json.loads(kept.read_text())]
    with io.BufferedReader(_Ranges(path_of(shard)), AHEAD) as file:
        entries = [*_index(file, shard)]
    write_atomically(kept, json.dumps(entries).encode(), option="DOUBTMAP_CACHE")
    return [member(shard, *each) for each in entries]


def _index(file: IO[bytes] | io.BufferedReader, shard: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file.

    Raises:
        DataError: for what is no tar file, or ends too early.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for about in tar:
                end = about.offset_data + -(-about.size // 512) * 512
                if about.isfile():
                    yield about.name, about.offset_data, about.size
                tar.members = []  # type: ignore[attr-defined]
    except tarfile.TarError as error:
        if end or "end of data" in str(error):
            raise DataError(f"{shard}: expected a whole tar file ({error}). {_CUT}") from error
        raise DataError(
            f"{shard}: expected a tar file without compression, but it cannot be read ({error}). "
            f"Unpack it, or write it again."
        ) from error
    if size < end + 512:
        raise DataError(f"{shard}: expected a whole tar file, got one without its end. {_CUT}")


class _Ranges(io.RawIOBase):
    """A file afar of which only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        with translated(path):
            self._system, self._name = found_by(path)
            self._size = int(self._system.info(self._name)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        with translated(self._path):
            content = self._system.cat_file(self._name, start=self._at, end=end)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
