"""Data sets in Python: torch `Dataset`, `DataLoader`, Hugging Face data set, a list of pairs."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from doubtmap.datasets.dataset import ComponentSizes, Sample
from doubtmap.datasets.labels import LabelValues
from doubtmap.datasets.reading import Rendering, read_image, read_label
from doubtmap.datasets.survey import Survey, survey
from doubtmap.datasets.tiff import turn
from doubtmap.errors import DataError, UsageError, first_line
from doubtmap.files.afar import is_afar, path_of
from doubtmap.files.parquet import columns_of
from doubtmap.shown import ShownDataset

INSTALL = "pip install pyarrow"

_IMAGES = ("image", "img", "pixel_values", "images")
_MASKS = ("mask", "label", "labels", "annotation", "semantic_segmentation", "segmentation")
"""Names under which such data sets keep images and masks."""


@dataclass(frozen=True, eq=False)
class PairedImages(ShownDataset):
    """A data set of (image, mask); implements `Dataset`.

    An image is a file, a PIL image, an array `(H, W, 3)`, or a tensor `(3, H, W)` of uint8 or of
    fractions in [0, 1]; a mask is a file, a PIL image, or whole numbers `(H, W)`. Files of a list
    are looked at as a whole, as those of a folder are.

    Args:
        pairs: anything with a length whose entries are pairs, or mappings with an image and a mask.
        classes: names in the order of the numbers in the masks.
        void: numbers that count for nothing.
        name: how results call it.
        every: see `Rendering`; images then are `(K, H, W)`.
        names: of the samples; default: their numbers.
    """

    pairs: Any
    classes: tuple[str, ...]
    void: tuple[int, ...] = (255, -1)
    name: str = "pairs"
    every: int = 0
    names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the label classes, in the order of their indices."""
        return self.classes

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """None: nobody published any."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""
        void = " and ".join(map(str, self.void)) or "none"
        said = f"{self.name}: masks were read as numbers of the classes, void {void}."
        return (said, *self._survey.notes)

    @cached_property
    def _survey(self) -> Survey:
        """What the files together say, where the pairs are a list of files."""
        return survey(self.files, Rendering(every=self.every), by_place=True)

    @cached_property
    def files(self) -> list[tuple[Path, Path | None]]:
        """Images and masks that are files, where the pairs are a list of such."""
        return _files(self.pairs) if isinstance(self.pairs, list | tuple) else []

    def __len__(self) -> int:
        return len(self.pairs)

    def with_bands(self, count: int) -> PairedImages:
        """The same with all bands of its images, of which there must be so many."""
        return self if self.every == count else replace(self, every=count)

    def sample_name(self, index: int) -> str:
        """Name of a sample: its own, or its number."""
        return self.names[index] if self.names else f"{index:06d}"

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataError: for something else than an image and a mask of its size.
        """
        where = f"{self.name}[{index}]"
        image, mask = _pair(self.pairs[index], where)
        with _LOOKING:
            rendering = self._survey.rendering
        raw = _mask(mask, where, rendering)
        pixels = _image(image, where, rendering, (raw.shape[0], raw.shape[1]))
        if pixels.shape[1:] != raw.shape[:2]:
            raise DataError(
                f"{where}: expected an image and a mask of one size, got "
                f"{tuple(pixels.shape[1:])} and {raw.shape[:2]} (height, width)."
            )
        numbers = {name: () if k in self.void else (k,) for k, name in enumerate(self.classes)}
        values = LabelValues(numbers, void=self.void)
        label = torch.from_numpy(values.translate(raw, Path(where)))
        return Sample(self.sample_name(index), pixels, label)


VOID_NUMBERS = (255, -1)
"""Numbers that masks have where there is nothing, unless they are numbers of classes."""

_LOOKING = threading.Lock()
"""One thread looks at all files, while others wait for what it finds."""


def pair_images(
    found: object, classes: Sequence[str], void: int | Sequence[int] = VOID_NUMBERS
) -> PairedImages:
    """A data set of something in Python.

    Args:
        found: a sequence, a torch `Dataset` with a length, a `DataLoader` (whose data set is read
            image by image), or a Hugging Face data set.
        classes: names in the order of the numbers in the masks.
        void: numbers that count for nothing.

    Raises:
        UsageError: for something without length and entries, or without class names.
    """
    inner = getattr(found, "dataset", found) if hasattr(found, "batch_size") else found
    if isinstance(inner, Mapping):
        raise UsageError(
            f"expected a data set, got a {type(inner).__name__} with {', '.join(map(str, inner))}. "
            "Give one of them."
        )
    if not (hasattr(inner, "__len__") and hasattr(inner, "__getitem__")) or isinstance(inner, str):
        raise UsageError(
            f"expected a data set, got {type(found).__name__}. Open one with "
            "doubtmap.open_dataset(...), or give something with a length and (image, mask) at each "
            "index."
        )
    if not classes:
        raise UsageError(
            f"expected the class names of {type(inner).__name__}, got none. Give "
            "open_dataset(..., classes=[...]) or load(..., classes=[...])."
        )
    values = (void,) if isinstance(void, int) else tuple(void)
    name = type(inner).__name__
    free = values
    if values == VOID_NUMBERS:
        free = tuple(value for value in values if not 0 <= value < len(classes))
    return PairedImages(inner, tuple(classes), free, "pairs" if name in ("list", "tuple") else name)


def _pair(entry: Any, where: str) -> tuple[Any, Any]:
    if isinstance(entry, Mapping):
        image = next((entry[key] for key in _IMAGES if key in entry), None)
        mask = next((entry[key] for key in _MASKS if key in entry), None)
        if image is None or mask is None:
            raise DataError(
                f"{where}: expected an image under {' or '.join(_IMAGES)} and a mask under "
                f"{' or '.join(_MASKS)}, got {', '.join(map(str, entry))}. Rename them."
            )
        return image, mask
    if not isinstance(entry, Sequence) or len(entry) < 2:
        raise DataError(f"{where}: expected (image, mask), got {type(entry).__name__}.")
    return entry[0], entry[1]


def _files(pairs: Sequence[Any]) -> list[tuple[Path, Path | None]]:
    """The images among pairs that are files, and their masks that are."""
    found: list[tuple[Path, Path | None]] = []
    for index, entry in enumerate(pairs):
        image, mask = _pair(entry, f"pairs[{index}]")
        if isinstance(image, str | Path):
            found.append((path_of(image), path_of(mask) if isinstance(mask, str | Path) else None))
    return found


def _stored(value: Mapping[str, Any], where: str) -> Image.Image:
    """The picture that an Arrow file holds as the bytes of an image file."""
    try:
        return Image.open(io.BytesIO(value["bytes"]), formats=("PNG", "JPEG", "TIFF", "WEBP"))
    except (KeyError, TypeError, OSError) as error:
        raise DataError(
            f"{where}: expected the bytes of an image, got {', '.join(value)} ({error}). Save the "
            "data set again with save_to_disk."
        ) from error


def is_saved(root: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of Hugging Face's datasets."""
    return (root / _SPLITS).is_file() or (root / _STATE).is_file()


_SPLITS, _STATE = "dataset_dict.json", "state.json"


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of Arrow tables, read on demand."""

    table: Any

    def __len__(self) -> int:
        rows: int = self.table.num_rows
        return rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.table.slice(index, 1).to_pylist()[0]
        return row


def open_saved(
    root: Path, split: str | None, classes: Sequence[str], void: int | Sequence[int]
) -> PairedImages:
    """A folder that `save_to_disk` of Hugging Face's datasets wrote.

    Args:
        root: the folder.
        split: where it has any.
        classes: names in the order of the numbers in the masks; default: `classes.txt` in the
            folder, one a line.
        void: numbers that count for nothing.

    Raises:
        UsageError: for a split that is not there, or without class names.
        DataError: without pyarrow, or for files that cannot be read.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{root}: expected pyarrow, which reads data sets saved by Hugging Face's datasets, "
            f"found none. Install it with: {INSTALL}."
        ) from error
    try:
        place = _split_of(root, split)
        listed = json.loads((place / _STATE).read_text())["_data_files"]
        tables = []
        for file in listed:
            with pyarrow.memory_map(str(place / file["filename"])) as source:
                tables.append(pyarrow.ipc.open_stream(source).read_all())
        table = pyarrow.concat_tables(tables)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{root}: expected a data set saved by save_to_disk, got a damaged one ({error}). Save "
            "it again."
        ) from error
    found = pair_images(_Rows(table), classes or classes_beside(str(root), str(root)), void)
    return replace(found, name=f"{root.name}:{place.name}" if place != root else root.name)


def open_table(text: str, classes: Sequence[str], void: int | Sequence[int]) -> PairedImages:
    """A table of paths, `.csv` or `.parquet`, with the columns `image` and `label`.

    Args:
        text: the table, here or afar; its paths may be addresses, or relative to its folder.
        classes: names in the order of the numbers in the masks; default: `classes.txt` beside the
            table, one a line.
        void: numbers that count for nothing.

    Raises:
        UsageError: without class names.
        DataError: for a table that cannot be read, or has no such columns, or no rows.
    """
    table = path_of(text if is_afar(text) else Path(text).expanduser())
    columns = _columns(table)
    image, mask = (next((n for n in known if n in columns), None) for known in (_IMAGES, _MASKS))
    if image is None or mask is None or not columns[image]:
        raise DataError(
            f"{table}: expected rows with the columns image and label, got "
            f"{len(next(iter(columns.values()), []))} rows of {', '.join(columns) or 'nothing'}."
        )
    folder = str(table).rpartition("/")[0]
    classes = classes or classes_beside(folder, str(table))
    pairs = [(_below(folder, a), _below(folder, b)) for a, b in zip(columns[image], columns[mask])]
    return replace(pair_images(pairs, classes, void), name=f"table:{table.name}")


def classes_beside(folder: str, data: str) -> list[str]:
    """The class names in a folder's `classes.txt`, one a line in the order of the numbers in masks.

    Args:
        folder: path or address; empty: the current one.
        data: which has no names itself, for errors.

    Raises:
        UsageError: where there are none.
    """
    names = path_of(f"{folder}/classes.txt" if folder else "classes.txt")
    listed = names.read_bytes().decode().splitlines() if names.is_file() else []
    if classes := [line.strip() for line in listed if line.strip()]:
        return classes
    raise UsageError(
        f"{data}: expected class names, which such data do not say. Write them into {names}, one a "
        f"line in the order of the numbers in the masks."
    )


def _columns(table: Path) -> dict[str, list[str]]:
    """The columns of a table by name."""
    kind = table.suffix.lower()
    if kind not in _KINDS:
        raise DataError(
            f"{table}: expected a table of paths, .csv or .parquet, got {kind or 'no ending'}. "
            f"Save it as one of these, with the columns image and label."
        )
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DataError(
            f"{table}: expected a table of paths, but it cannot be read ({first_line(error)}). "
            f"Check the path."
        ) from error
    name, read = _KINDS[kind]
    try:
        return read(content)
    except ImportError as error:
        raise DataError(
            f"{table}: expected pyarrow, which reads Parquet, found none. Install it with: "
            f"{INSTALL}."
        ) from error
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{table}: expected {name}, got something else ({first_line(error)}). Save the table "
            f"again, as .csv or .parquet."
        ) from error


def _of_csv(content: bytes) -> dict[str, list[str]]:
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    header, *rows = [row for row in lines if row] or [[]]
    for at, row in enumerate(rows, 2):
        if len(row) < len(header):
            raise ValueError(f"row {at} has {len(row)} cells, the header {len(header)}")
    return {name: [row[at] for row in rows] for at, name in enumerate(header)}


_KINDS = {".csv": ("CSV in UTF-8", _of_csv), ".parquet": ("Parquet", columns_of)}
"""Tables by the endings of their names."""


def _below(folder: str, path: str) -> Path:
    """A path of a table in this folder."""
    whole = is_afar(path) or Path(path).is_absolute() or not folder
    return path_of(path if whole else f"{folder}/{path}")


def saved_splits(root: Path) -> list[str]:
    """The splits of a folder that `save_to_disk` wrote, in its order."""
    if not (root / _SPLITS).is_file():
        return []
    return list(json.loads((root / _SPLITS).read_text())["splits"])


def _split_of(root: Path, split: str | None) -> Path:
    if not (root / _SPLITS).is_file():
        if split:
            raise UsageError(f"{root} has no splits, got {split}. Leave :{split} away.")
        return root
    splits = saved_splits(root)
    if split is None or split not in splits:
        raise UsageError(
            f"{root} needs a split, as in folder:{root}:{splits[0]}. Splits there: "
            f"{', '.join(splits)}."
        )
    return root / split


def _image(value: Any, where: str, rendering: Rendering, size: tuple[int, int]) -> Tensor:
    if isinstance(value, str | Path):
        return read_image(value, rendering)
    if isinstance(value, Mapping):
        value = _stored(value, where)
    if isinstance(value, Image.Image):
        value = _picture(value, size)
    pixels = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    every = rendering.every
    if every and pixels.ndim == 3:
        last = pixels.shape[2] < min(pixels.shape[:2])
        pixels = pixels.transpose(2, 0, 1) if last else pixels
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[None], 3, axis=0)
    elif pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3, 4):
        pixels = pixels[..., :3].transpose(2, 0, 1)
    if pixels.ndim == 3 and pixels.shape[0] == 1 and not every:
        pixels = np.repeat(pixels, 3, axis=0)
    few = pixels.ndim == 3 and (pixels.shape[0] < every if every else pixels.shape[0] != 3)
    if pixels.ndim != 3 or few or not pixels.size:
        raise DataError(f"{where}: expected an image ({every or 3}, H, W), got {pixels.shape}.")
    if pixels.dtype != np.uint8:
        pixels = _eight_bits(pixels, where)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _picture(image: Image.Image, size: tuple[int, int]) -> NDArray[Any]:
    """Pixels of a PIL image, upright unless its mask, of this height and width, fits as stored."""
    deep = image.mode.startswith(("I", "F"))
    pixels = np.array(image if deep else image.convert("RGB"))
    # Pillow turns TIFF by itself on opening.
    orientation = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)
    upright = turn(pixels, orientation if isinstance(orientation, int) else 1)
    return upright if upright.shape[:2] == size or pixels.shape[:2] != size else pixels


def _eight_bits(pixels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    low, high = float(pixels.min()), float(pixels.max())
    whole = pixels.dtype.kind in "iu"
    top = 255 if whole or high > 1 else 1
    if not (low >= 0 and high <= top and (whole or high <= 1)):
        raise DataError(
            f"{where}: expected an image of uint8, or of fractions in [0, 1], got "
            f"{pixels.dtype} of {low:g} to {high:g}. Give images before they are normalised, and "
            "deep ones scaled, or as files."
        )
    return np.rint(pixels * (255 / top)).astype(np.uint8)


def _mask(value: Any, where: str, rendering: Rendering) -> NDArray[Any]:
    if isinstance(value, str | Path):
        return read_label(value, upright=rendering.upright)
    if isinstance(value, Mapping):
        value = _stored(value, where)
    raw = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if raw.ndim == 3 and raw.shape[0] == 1:
        raw = raw[0]
    if raw.ndim == 3 and raw.shape[2] in (1, 2):
        raw = raw[..., 0]
    if raw.ndim == 3 and raw.shape[2] in (3, 4) and (raw[..., :1] == raw[..., :3]).all():
        raw = raw[..., 0]
    if raw.ndim != 2 or raw.dtype.kind not in "buif" or (raw != np.rint(raw)).any():
        raise DataError(
            f"{where}: expected a mask of whole numbers (H, W), got {raw.shape} {raw.dtype}."
        )
    return raw if raw.dtype in (np.uint8, np.uint16) else raw.astype(np.int32)
