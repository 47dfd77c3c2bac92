"""Image and label files as arrays, whatever their suffix says; damaged files are `DataError`s.

The images that a command line means: files, folders and shell patterns.
"""

from __future__ import annotations

import glob
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from doubtmap.datasets.patterns import IMAGE_SUFFIXES
from doubtmap.errors import DataError

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; it is the limit at which Pillow refuses too."""


_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000")
"""Formats that are tried; files are not trusted, so none that runs a program, as EPS does."""


_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""

AHEAD = 4
"""Images that each reading thread may be ahead."""


def read_image(path: str | Path, *, orient: bool = False) -> Tensor:
    """Read an image as RGB.

    Transparency is dropped, grey and palette images become RGB, 16 bits are scaled to 8.

    Args:
        path: an image file; its content decides the format, not its suffix.
        orient: turn a photograph upright as its EXIF tag says. Off by default, because the labels
            of data sets lie on the pixels as stored.

    Returns:
        `(3, H, W)` uint8.

    Raises:
        DataError: the file is missing, damaged, too large, or no image.
    """
    path = Path(path)
    image = _load(path, orient=orient)
    pixels = _scaled_grey(image, path) if image.mode in _SIXTEEN_BIT else _rgb(image, path)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def read_label(path: str | Path) -> NDArray[Any]:
    """Read the raw values of a label file.

    Args:
        path: a file with one value per pixel, 8 or 16 bits; of a palette file, the index.

    Returns:
        `(H, W)` uint8 or uint16.

    Raises:
        DataError: the file is missing, damaged, too large, in colour, or compressed with loss.
    """
    path = Path(path)
    image = _load(path)
    if image.format == "JPEG":
        raise DataError(
            f"{path}: expected label values without loss, got a JPEG, which changes them. "
            "Save the labels as PNG."
        )
    if image.mode in _SIXTEEN_BIT:
        return _sixteen_bit(image, path)
    if image.mode not in ("1", "L", "P"):
        raise DataError(
            f"{path}: expected one label value per pixel, got a colour image ({image.mode}). "
            "Save the labels as a single-channel PNG whose values are class indices, and say in a "
            "doubtmap.toml what they mean, as in classes = {road = 0, car = [1, 2]}."
        )
    return np.array(image, dtype=np.uint8)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as stored, in pixels, without decoding it.

    Raises:
        DataError: the file is missing, no image, or too large.
    """
    with _opened(Path(path)) as image:
        return image.height, image.width


def _load(path: Path, *, orient: bool = False) -> Image.Image:
    """Open, decode and perhaps turn upright."""
    with _opened(path) as image:
        image.load()
        if orient:
            ImageOps.exif_transpose(image, in_place=True)
        return image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet, with the foreseeable failures in our words."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: expected an image file, found {what} there. Check the path.")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(path, f"{image.width} x {image.height}"))
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, "more")) from error
    except _DAMAGE as error:
        raise DataError(
            f"{path}: expected a readable image, got a damaged file or another format than "
            f"{', '.join(_FORMATS)} ({error}). Replace, convert or remove it."
        ) from error


def _too_large(path: Path, size: str) -> str:
    return (
        f"{path}: expected at most {MAX_PIXELS / 1e6:.0f} million pixels, got {size}. "
        "Cut the image into tiles first."
    )


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise DataError(
            f"{path}: expected 8 or 16 bits a channel, got floating-point values, whose range is "
            "not said. Convert the image to 8 bits."
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _scaled_grey(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    grey = _sixteen_bit(image, path).astype(np.uint32)
    eight = ((grey * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


def _sixteen_bit(image: Image.Image, path: Path) -> NDArray[np.uint16]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{path}: expected values of 0 to 65535, got {values.min()} to {values.max()}. "
            "Convert the file to 8 or 16 bits."
        )
    return values.astype(np.uint16)


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


K = TypeVar("K")
T = TypeVar("T")


def read_ahead(
    read: Callable[[K], T], items: Iterable[K], workers: int, ahead: int = AHEAD
) -> Iterator[T]:
    """`read` of each item, in order, by threads that are a few ahead of their use.

    Args:
        read: of an item.
        items: such as indices.
        workers: threads.
        ahead: how many items a thread may be ahead.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="doubtmap-read") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_or_skip(
    read: Callable[[K], T],
    items: Iterable[K],
    workers: int,
    skipped: Callable[[K, DataError], None] | None = None,
) -> Iterator[tuple[K, T]]:
    """Each item and `read` of it, in order, read one a thread ahead of their use.

    Args:
        read: of an item.
        items: such as indices or paths.
        workers: threads.
        skipped: takes what cannot be read, and why; without it the first one ends the reading.

    Raises:
        DataError: for an item that cannot be read, unless `skipped` takes it.
    """

    def attempt(item: K) -> tuple[K, T | DataError]:
        try:
            return item, read(item)
        except DataError as error:
            return item, error

    for item, found in read_ahead(attempt, items, workers, 1):
        if not isinstance(found, DataError):
            yield item, found
        elif skipped is None:
            raise found
        else:
            skipped(item, found)
