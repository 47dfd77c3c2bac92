"""Files that lie elsewhere: in buckets, behind web addresses, in archives.

They are named as fsspec does (`s3://bucket/a.tif`, `gs://`, `az://`, `https://`, `zip://`) or as
GDAL does (`/vsis3/bucket/a.tif`, `/vsigs/`, `/vsiaz/`, `/vsicurl/https://...`, `/vsizip/a.zip/b`);
either way rasters are read by GDAL and all else by fsspec, which this is the one place to know.

References:
    fsspec, https://filesystem-spec.readthedocs.io
    GDAL virtual file systems, https://gdal.org/user/virtual_file_systems.html
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from doubtmap.errors import DataError, DoubtmapError, UsageError

GDAL = {"s3": "/vsis3/", "gs": "/vsigs/", "gcs": "/vsigs/", "az": "/vsiaz/", "abfs": "/vsiaz/"}
"""How GDAL begins the names of what lies in buckets."""
WEB = ("http", "https", "ftp")
SCHEMES = (*GDAL, *WEB, "zip", "memory", "hf")
KEPT_IN = tuple(f"{scheme}://" for scheme in (*GDAL, "hf", "memory"))
"""How addresses begin at which something can be written."""
INSTALL = "pip install 'doubtmap[afar]'"
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=.)|/vsi[a-z0-9_]+/", re.IGNORECASE)
_KNOWN = re.compile(r"/vsi(s3|gs|az|zip)/")
"""Names of GDAL's below which fsspec can list."""

if TYPE_CHECKING:
    _Here = Path
else:
    _Here = type(Path())


class Afar(_Here):
    """A path whose file lies elsewhere; it is read, and never written."""

    _given: str = ""

    def __str__(self) -> str:
        """Its address, as it was given."""
        return self._given or address_of(super().__str__())

    def __fspath__(self) -> str:
        """Its address: the file cannot be opened by it."""
        return str(self)

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Its content, as bytes (`rb`) or as text in UTF-8 (`r`)."""
        file = open_afar(self)
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8")

    def read_bytes(self) -> bytes:
        """All of it."""
        with translated(self):
            system, name = found_by(self)
            content: bytes = system.cat_file(name)
            return content

    def is_file(self, **_: Any) -> bool:
        """Whether it can be seen; False where it cannot for whatever reason: reading it tells."""
        try:
            with translated(self):
                system, name = found_by(self)
                return bool(system.isfile(name))
        except DoubtmapError:
            return False

    exists = is_file

    def stat(self, **_: Any) -> os.stat_result:
        """Its size, and nothing else."""
        with translated(self):
            system, name = found_by(self)
            size = int(system.info(name)["size"] or 0)
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def mark(self) -> str:
        """See `mark_of`."""
        with translated(self):
            system, name = found_by(self)
            about = system.info(name)
        return hashlib.blake2b(repr(said_of(about)).encode(), digest_size=8).hexdigest()

    def is_dir(self, **_: Any) -> bool:
        """No: see `listed`."""
        return False

    def resolve(self, strict: bool = False) -> Afar:
        """Itself."""
        return self

    def absolute(self) -> Afar:
        """Itself."""
        return self


def is_afar(path: str | Path) -> bool:
    """Whether a path or address names a file that lies elsewhere.

    Example:
        >>> is_afar("s3://bucket/a.tif"), is_afar("/vsizip/a.zip/b.tif"), is_afar("s3/a.tif")
        (True, True, False)
    """
    return isinstance(path, Afar) or _ADDRESS.match(str(path)) is not None


def path_of(text: str | Path) -> Path:
    """A path by which a file is read wherever it lies."""
    if not is_afar(text) or isinstance(text, Afar):
        return Path(text) if isinstance(text, str) else text
    found = Afar(str(text))
    found._given = address_of(str(text))
    return found


def again_in(directory: str | Path, text: str) -> Path:
    """An image that is read once more, by the path by which a run was given it.

    Args:
        directory: in which the run was.
        text: the path, or an address.

    Raises:
        DataError: where there is none.
    """
    file = path_of(text if is_afar(text) else Path(directory, text))
    if not is_afar(file) and not file.exists():
        raise DataError(
            f"{file}: expected an image, which is read again for what is shown of it, found none. "
            f"Put it back, or merge where the images lie at the paths that the parts were given."
        )
    return file


def address_of(text: str) -> str:
    """An address whose slashes a path has swallowed, as it was.

    Example:
        >>> address_of("s3:/bucket/a.tif"), address_of("/vsicurl/https:/host/a.tif")
        ('s3://bucket/a.tif', '/vsicurl/https://host/a.tif')
    """
    text = text.replace("\\", "/")
    return re.sub(rf"(^|/)({'|'.join(SCHEMES)}):/+(?=[^/])", r"\1\2://", text)


def for_gdal(path: str | Path) -> str:
    """The name by which GDAL reads a file, near or far.

    Example:
        >>> for_gdal("s3://bucket/a.tif"), for_gdal("https://host/a.tif"), for_gdal("here/a.tif")
        ('/vsis3/bucket/a.tif', '/vsicurl/https://host/a.tif', 'here/a.tif')
    """
    text = str(path)
    if not is_afar(path) or text.startswith("/vsi"):
        return address_of(text) if is_afar(path) else text
    scheme, _, rest = address_of(text).partition("://")
    if scheme in GDAL:
        return GDAL[scheme] + rest
    if scheme == "zip":
        inner, _, outer = rest.partition("::")
        return f"/vsizip/{{{for_gdal(outer.removeprefix('file://'))}}}/{inner}"
    return f"/vsicurl/{scheme}://{rest}" if scheme in WEB else text


def settings_for_gdal() -> None:
    """Let GDAL know in the environment what others are told there by other names."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        os.environ.setdefault("AWS_S3_ENDPOINT", host.rstrip("/"))
        os.environ.setdefault("AWS_HTTPS", "NO" if scheme == "http" else "YES")
        os.environ.setdefault("AWS_VIRTUAL_HOSTING", "FALSE")
    os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    os.environ.setdefault("GDAL_HTTP_CONNECTTIMEOUT", "20")


def open_afar(path: str | Path) -> IO[bytes]:
    """The content of a file, read in the parts that are asked for.

    Raises:
        UsageError: without the library that reads from there.
        DataError: for what cannot be read, here or at a later read.
    """
    with translated(path):
        system, name = found_by(path)
        return io.BufferedReader(_Reading(system, system.open(name, "rb"), path), 1 << 16)


def listed(path: str | Path, suffixes: Collection[str] = ()) -> list[Path]:
    """The files that an address stands for: one, all below a folder, or those of a pattern.

    Behind web addresses, and where GDAL alone reads, nothing can be listed: they are one file.

    Args:
        path: an address.
        suffixes: such as `png`, of what is taken for a file without asking.

    Raises:
        UsageError, DataError: as `open_afar`; an address without files gives none.
    """
    text = address_of(str(path))
    one = text.partition("://")[0] in WEB or (text.startswith("/vsi") and not _KNOWN.match(text))
    if one or (_suffix(text) in suffixes and not glob.has_magic(text)):
        return [path_of(text)]
    with translated(path):
        system, name = found_by(path)
        found = system.glob(name) if glob.has_magic(name) else system.find(name)
    return sorted(path_of(_named_alike(text, name, each)) for each in found)


def mark_of(path: str | Path) -> str:
    """A short hash that changes with a file: of its size and of what its keeper says of it.

    Raises:
        UsageError, DataError: as `open_afar`.
    """
    found = path_of(path)
    assert isinstance(found, Afar)
    return found.mark()


def said_of(about: Mapping[str, Any]) -> list[str]:
    """What a file's keeper says of it that changes with its content."""
    said = [str(about.get(key)) for key in ("size", "ETag", "etag", "LastModified", "md5Hash")]
    said += [str(about.get(key)) for key in ("created", "CRC", "date_time", "file_size")]
    return [*said, str(about.get("blob_id"))]


def _suffix(text: str) -> str:
    return text.rpartition("/")[2].rpartition(".")[2].lower()


class _Reading(io.RawIOBase):
    """A file of fsspec's, whose troubles are told in one sentence."""

    def __init__(self, system: Any, file: Any, path: str | Path) -> None:
        self._file, self._path = file, path
        self._system = system  # an archive is closed when its system goes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        place: int = self._file.seek(offset, whence)
        return self._file.tell() if place is None else place

    def tell(self) -> int:
        place: int = self._file.tell()
        return place

    def readinto(self, buffer: Any) -> int:
        with translated(self._path):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def found_by(path: str | Path) -> tuple[Any, str]:
    """The file system of fsspec, and the file's name in it."""
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{path}: needs fsspec to be read. Install it with: {INSTALL}") from error
    address = _for_fsspec(address_of(str(path)))
    scheme = address.partition("://")[0]
    options = _of_s3() if scheme == "s3" else {}
    found: tuple[Any, str] = fsspec.core.url_to_fs(address, **options)
    return found


def _of_s3() -> dict[str, Any]:
    """What the environment says of buckets by GDAL's names."""
    options: dict[str, Any] = {}
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1"):
        options["anon"] = True
    if (host := os.environ.get("AWS_S3_ENDPOINT")) and "AWS_ENDPOINT_URL" not in os.environ:
        near = os.environ.get("AWS_HTTPS", "").upper() in ("NO", "FALSE", "0")
        options["endpoint_url"] = f"{'http' if near else 'https'}://{host}"
    return options


def _for_fsspec(address: str) -> str:
    """The address by which fsspec knows a file that is named as GDAL does."""
    for scheme, start in GDAL.items():
        if address.startswith(start):
            return f"{scheme}://{address.removeprefix(start)}"
    if address.startswith("/vsicurl/"):
        return address.removeprefix("/vsicurl/")
    if address.startswith("/vsizip/"):
        archive, inner = _in_archive(address)
        archive = f"/{archive}" if re.match(r"vsi[a-z]+/", archive) else archive
        near = not is_afar(archive)
        outer = Path(archive).absolute().as_uri() if near else _for_fsspec(archive)
        return f"zip://{inner}::{outer}"
    if address.startswith("/vsi"):
        raise UsageError(
            f"{address}: expected /vsis3/, /vsigs/, /vsiaz/, /vsicurl/ or /vsizip/, whose files "
            f"can be read without GDAL. Give a GeoTIFF to doubtmap score, or fetch the file."
        )
    return address


def _in_archive(address: str) -> tuple[str, str]:
    """The archive and the name in it, of `/vsizip/ARCHIVE.zip/NAME` or `/vsizip/{ARCHIVE}/NAME`."""
    rest = address.removeprefix("/vsizip/")
    match = re.match(r"\{(?P<a>.+)\}/?(?P<n>.*)", rest) or re.match(
        r"(?P<a>.+?\.(?:zip|kmz))(?:/(?P<n>.*)|$)", rest, re.IGNORECASE
    )
    if match is None:
        raise UsageError(
            f"{address}: expected /vsizip/ARCHIVE.zip/NAME, got no archive. Correct the address."
        )
    return match["a"], match["n"] or ""


def _named_alike(address: str, asked: str, found: str) -> str:
    """A file that was found below an address, by an address of the same form."""
    found = found.lstrip("/")
    if address.startswith("/vsizip/"):
        archive = _in_archive(address)[0]
        return f"/vsizip/{f'{{{archive}}}' if '{' in address else archive}/{found}"
    if address.startswith("zip://"):
        return f"zip://{found}::{address.partition('::')[2]}"
    scheme = address.partition("://")[0]
    start = next((gdal for gdal in GDAL.values() if address.startswith(gdal)), f"{scheme}://")
    return start + found


@contextmanager
def translated(path: str | Path, done: str = "read") -> Iterator[None]:
    """What libraries raise about a file afar, as one sentence.

    Args:
        path: of the file.
        done: what cannot be done with it: read, or written.

    Raises:
        UsageError: without a library.
        DataError: for all else.
    """
    try:
        yield
    except DoubtmapError:
        raise
    except ImportError as error:
        raise UsageError(
            f"{path}: needs another library to be {done} ({error}). Install it with: {INSTALL}"
        ) from error
    except Exception as error:  # each file system has its own, and none a class above them
        raise DataError(sentence(path, error, done)) from error


_CAUSES = (
    (
        r"credentials|AWS_SECRET_ACCESS_KEY|InvalidAccessKeyId|SignatureDoesNotMatch|GOOGLE_|OAuth",
        "found no credentials that are taken there. Give them in the environment, or "
        "AWS_NO_SIGN_REQUEST=YES for what is open to all",
    ),
    (
        r"\b40[13]\b|Access ?Denied|Forbidden|Unauthorized|PermissionError|Permission denied",
        "that is not allowed (403). Ask its owner, or give other credentials",
    ),
    (
        r"NoSuchBucket|bucket does not exist|No such bucket",
        "there is no such bucket. Check its name",
    ),
    (
        r"resolve host|Name or service|nodename|refused|Could ?n.t connect|Failed to connect|"
        r"Cannot connect|Could not connect|unreachable|timed? ?out|Timeout",
        "nobody answers there. Check the network and the address",
    ),
    (
        r"\b404\b|NoSuchKey|FileNotFound|does not exist|No such file|KeyError|There is no item",
        "nothing lies there. Check the address",
    ),
    (
        r"Payload|cut off|reset by peer|disconnected|EOF|Incomplete|Connection closed|transfer",
        "the connection was cut off. Try again",
    ),
)


def why(path: str | Path, error: BaseException) -> str:
    """What went wrong where GDAL could not open a file, which seldom says it itself.

    Args:
        path: of the file.
        error: GDAL's.
    """
    try:
        with open_afar(path) as file:
            file.read(1)
    except DataError as found:
        return str(found)
    except UsageError:  # there is no library that could say more
        return sentence(path, str(error))
    return f"{path}: cannot be opened as a raster: {error}."


def sentence(path: str | Path, error: BaseException | str, done: str = "read") -> str:
    """What went wrong with a file afar, and what to do next."""
    kind = "" if isinstance(error, str) else type(error).__name__
    causes = [error] if isinstance(error, str) else [error, error.__cause__ or ""]
    text = " ".join(filter(None, [kind, *map(str, causes)]))
    for pattern, says in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{path}: cannot be {done}: {says}."
    short = " ".join(str(error).split())[:200]
    return f"{path}: cannot be {done} ({kind or 'GDAL'}: {short}). Check the address."
