"""The images that a command line means: files, folders and shell patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.errors import DataError


def collect_images(paths: Sequence[str | Path]) -> list[Path]:
    """Find the images that files, folders and shell patterns stand for.

    A file is taken as it is. Folders (searched to the bottom) and patterns give the files with an
    image suffix, hidden ones left out. Nothing is opened: the content is checked on reading.

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
    if Path(path).is_dir():
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
