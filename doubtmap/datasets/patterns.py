"""Path patterns with named fields: `leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png`.

A field stands for one piece of a path without `/`. `{path}` may hold several folders, `{suffix}`
any image suffix. `*`, `?` and `**` mean what they mean in a shell. A suffix at the end, such as
`.png`, ignores case. What the fields of an image pattern caught fills the pattern of its label.

Also the images that a command line means: files, folders and shell patterns.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from doubtmap.errors import DataError
from doubtmap.files.afar import is_afar, listed, path_of

IMAGE_SUFFIXES = (
    *("avif", "bmp", "gif", "heic", "heif", "j2k", "jp2", "jpeg", "jpg", "pgm", "png", "ppm"),
    *("tif", "tiff", "webp"),
)
"""Suffixes that a folder search takes for images; the content decides when a file is read."""

_TOKEN = re.compile(r"(\{\w+\}|\*\*/|\*|\?)")
_SPECIAL = {
    "{path}": r"(?P<path>.+)",
    "{suffix}": rf"(?P<suffix>(?i:{'|'.join(IMAGE_SUFFIXES)}))",
    "**/": "(?:.*/)?",
    "*": "[^/]*",
    "?": "[^/]",
}


def fields_of(pattern: str) -> set[str]:
    """Names of the fields in a pattern."""
    return set(re.findall(r"\{(\w+)\}", pattern))


def misnamed_field(pattern: str) -> str | None:
    """What stands in braces and cannot name a field, where there is such a thing."""
    names = re.findall(r"\{([^{}]*)\}", pattern)
    return next((name for name in names if not name.isidentifier()), None)


def find(
    root: Path, pattern: str, fields: Mapping[str, str], *, of_images: bool = False
) -> Iterator[dict[str, str]]:
    """Files under `root` that match, in sorted order, as the fields that they fill.

    Args:
        root: folder to search; hidden files are left out.
        pattern: relative to `root`.
        fields: fields that are already known.
        of_images: where the pattern does not say the suffix, leave out files of other kinds.

    Yields:
        All fields, and `file` (path relative to `root`, with `/`), `folder` and `stem` of it.
    """
    body, suffix = _parted(pattern)
    expression = _expression(pattern, fields)
    for file in _files(root, _shell_pattern(body, fields) + _any_case(suffix)):
        path = PurePosixPath(file)
        kind = path.suffix.lower().lstrip(".")
        if of_images and not suffix and kind and kind not in (*IMAGE_SUFFIXES, "npy"):
            continue
        if match := expression.fullmatch(file):
            named = {"file": file, "folder": str(path.parent), "stem": path.stem}
            yield {**named, **fields, **match.groupdict()}


def fits(pattern: str, file: str) -> bool:
    """Whether a path has the form of a pattern, whatever its fields are."""
    return _expression(pattern, {}).fullmatch(file) is not None


def _expression(pattern: str, fields: Mapping[str, str]) -> re.Pattern[str]:
    body, suffix = _parted(pattern)
    return re.compile(f"{_regular_expression(body, fields)}(?i:{re.escape(suffix)})")


def first_files(root: Path, patterns: Iterable[str], fields: Mapping[str, str]) -> list[Path]:
    """All files of the first pattern that has any once its fields are filled in."""
    for pattern in patterns:
        if files := _named(root, pattern, fields):
            return [root / file for file in files]
    return []


def _named(root: Path, pattern: str, fields: Mapping[str, str]) -> list[str]:
    """Files of a pattern; the one that is spelt exactly so before others that differ in case."""
    body, suffix = _parted(pattern)
    shell = _shell_pattern(body, fields)
    exact = _files(root, shell + suffix)
    if exact or not suffix:
        return exact
    if glob.has_magic(_unescaped(shell)):
        return _files(root, shell + _any_case(suffix))
    name = PurePosixPath(fill(body, fields) + suffix)
    folder = root / name.parent
    if not folder.is_dir():
        return []
    there = _listed(str(folder), folder.stat().st_mtime_ns).get(name.suffix.lower(), {})
    return [str(name.parent / found) for found in there.get(_composed(name.stem), ())]


@lru_cache(maxsize=8)
def _listed(folder: str, _: int) -> dict[str, dict[str, list[str]]]:
    """Names in a folder, by suffix without case and by stem, whose accents are composed."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208
        path = PurePosixPath(name)
        if not name.startswith("."):
            found.setdefault(path.suffix.lower(), {}).setdefault(_composed(path.stem), []).append(
                name
            )
    return found


def _composed(text: str) -> str:
    """One spelling of letters with accents, of which file systems have two."""
    return unicodedata.normalize("NFC", text)


def _unescaped(shell: str) -> str:
    """A shell pattern without its escaped characters, to see whether any others are special."""
    return re.sub(r"\[[*?[]\]", "", shell)


def _parted(pattern: str) -> tuple[str, str]:
    """A pattern and its suffix, which is empty where it is a field or has none."""
    match = re.fullmatch(r"(.*[^/])(\.[A-Za-z][A-Za-z0-9]*)", pattern)
    return (match[1], match[2]) if match else (pattern, "")


def _any_case(suffix: str) -> str:
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in suffix)


def fill(pattern: str, fields: Mapping[str, str], rest: str = r"{\1}") -> str:
    """The pattern with its known fields filled in, and `rest` for the others."""
    return re.sub(r"\{(\w+)\}", lambda field: fields.get(field[1], field.expand(rest)), pattern)


def _files(root: Path, shell_pattern: str) -> list[str]:
    # Unlike Path.glob, this leaves hidden files out, such as the ._NAME of archives.
    found = glob.glob(shell_pattern, root_dir=root, recursive=True)  # noqa: PTH207
    return sorted(name.replace(os.sep, "/") for name in found if (root / name).is_file())


def _shell_pattern(pattern: str, fields: Mapping[str, str]) -> str:
    def shell(token: str) -> str:
        if token in ("**/", "*", "?"):
            return token
        if not _TOKEN.fullmatch(token):
            return glob.escape(token)
        known = fields.get(token[1:-1])
        wild = "**/*" if token == "{path}" else "*"
        return wild if known is None else glob.escape(known)

    return "".join(map(shell, _TOKEN.split(pattern)))


def _regular_expression(pattern: str, fields: Mapping[str, str]) -> str:
    seen: set[str] = set()

    def expression(token: str) -> str:
        name = token[1:-1]
        if not _TOKEN.fullmatch(token):
            return re.escape(token)
        if token.startswith("{") and name in fields:
            return re.escape(fields[name])
        if name in seen:
            return f"(?P={name})"
        if token.startswith("{"):
            seen.add(name)
        return _SPECIAL.get(token, f"(?P<{name}>[^/]+)")

    return "".join(map(expression, _TOKEN.split(pattern)))


def sequence_of(name: str) -> str:
    """What the names of the frames of one sequence begin with; empty where a name is a number.

    Example:
        >>> sequence_of("ulm_000012_000019")
        'ulm_000012_'
    """
    return re.sub(r"\d+$", "", name)


def collect_images(paths: Sequence[str | Path]) -> list[Path]:
    """Find the images that files, folders and shell patterns stand for.

    A file is taken as it is. Folders (searched to the bottom) and patterns give the files with an
    image suffix, hidden ones left out; addresses do likewise, see `doubtmap.files.afar`. Nothing is
    opened: the content is checked on reading.

    Args:
        paths: files, folders, or patterns such as `scenes/*.png` or `scenes/**/front_*`.

    Returns:
        Each image once, in the order of `paths`, sorted within a folder or pattern.

    Raises:
        DataError: a path does not exist, or has no images.
    """
    found: dict[Path, None] = {}
    for path in paths:
        before = len(found)
        images = list(_images(path))
        found.update(dict.fromkeys(images))
        if not images and len(found) == before:
            raise DataError(_nothing(path))
    if not found:
        raise DataError("Expected images, got no path. Name image files, folders or patterns.")
    return list(found)


def _images(path: str | Path) -> Iterator[Path]:
    if is_afar(path):
        found = listed(path, IMAGE_SUFFIXES)
        yield from (each for each in found if _looks_like_image(each) or each == path_of(path))
    elif Path(path).is_dir():
        yield from _below(Path(path))
    elif Path(path).exists():
        yield Path(path)
    else:
        # Path.glob takes no absolute patterns.
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if match.is_dir():
                yield from _below(match)
            elif _looks_like_image(match):
                yield match


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if _looks_like_image(path) and path.is_file() and not hidden:
            yield path


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES


def _nothing(path: str | Path) -> str:
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if Path(path).is_dir():
        return f"{path}: expected images in this folder, found no file ending in {suffixes}."
    if glob.has_magic(str(path)):
        return f"{path}: expected images, but no image file matches this pattern. Check it."
    return f"{path}: expected an image file or a folder, found nothing there. Check the path."
