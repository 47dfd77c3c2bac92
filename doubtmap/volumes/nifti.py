"""Volumes slice by slice, for networks of images; this is the one place that knows nibabel.

OUT/classes/NAME.nii.gz    predicted classes
OUT/SCORE/NAME.nii.gz      doubt, float32
OUT/score.json             how all this was made

All have the volume's own affine, so that viewers lay them over it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.datasets.reading import scaled
from doubtmap.engine.settings import bands_needed
from doubtmap.errors import DataError, UsageError
from doubtmap.files import alone, write_atomically
from doubtmap.files.afar import is_afar
from doubtmap.files.naming import score_folders
from doubtmap.prediction import Score, Segmenter, showing
from doubtmap.scoring import prepared, score_maps
from doubtmap.version import __version__

SUFFIXES = (".nii", ".nii.gz")
FIRST = "_0000"
"""How nnU-Net ends the names of a case's first channel."""
PERCENTILES = (0.5, 99.5)
"""Black and white of a volume for which nobody says them."""


def is_volume(name: str) -> bool:
    """Whether a name is that of a NIfTI file."""
    return name.lower().endswith(SUFFIXES)


def case_of(path: Path) -> str:
    """The case that a volume shows, by its name; nnU-Net ends those of images by a channel.

    Example:
        >>> case_of(Path("spleen_3_0000.nii.gz")), case_of(Path("spleen_3.nii"))
        ('spleen_3', 'spleen_3')
    """
    return path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(FIRST)


def slice_name(path: Path, index: int) -> str:
    """Such as `CASE_slice012`, by which predictions of the case that were saved are found."""
    return f"{case_of(path)}_slice{index:03d}"


def _nibabel(name: object) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UsageError(
            f"{name}: needs nibabel to be read. Install it with: pip install 'doubtmap[medical]'"
        ) from error
    return nibabel


@dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI file as images of 8 bits, one a slice.

    A slice has the rows of its second axis and the columns of its first, as other readers of
    volumes and what networks of images learn from them have it.

    Args:
        path: of the file.
        axis: across which it is cut: 0, 1 or 2.
        range: the values that become black and white; default: those that half a percent of the
            voxels are below and above.

    Raises:
        UsageError: without nibabel, or for another axis.
        DataError: for what is no volume.
    """

    path: Path
    axis: int = 2
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise UsageError(f"--axis: expected 0, 1 or 2, got {self.axis}.")
        if len(self._file.shape) not in (3, 4):
            raise DataError(
                f"{self.path}: expected a volume of three axes, or four with one for each band, "
                f"got {self._file.shape}."
            )

    @cached_property
    def _file(self) -> Any:
        if is_afar(self.path):
            raise UsageError(f"{self.path}: expected a volume on this disk. Fetch it first.")
        nibabel = _nibabel(self.path)
        try:
            return nibabel.load(self.path)
        except (
            *(OSError, ValueError, EOFError, zlib.error),
            *(nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError),
        ) as error:
            raise DataError(
                f"{self.path}: cannot be read as NIfTI ({error}). Replace it."
            ) from error

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """`(x, y, z)`, or `(x, y, z, bands)` of several.

        Raises:
            DataError: for a damaged file, or values that are not finite.
        """
        try:
            values: NDArray[np.float32] = np.asarray(self._file.dataobj, np.float32)
        except (OSError, ValueError, TypeError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self.path}: cannot be read as NIfTI ({error}). Replace it."
            ) from error
        if not np.isfinite(values).all():
            raise DataError(
                f"{self.path}: expected finite values, got NaN or infinity. Replace them, as with "
                f"numpy.nan_to_num, by what air has."
            )
        return values[..., 0] if values.shape[3:] == (1,) else values

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.values.shape[:3]
        return x, y, z

    @cached_property
    def span(self) -> tuple[float, float]:
        """The values that become black and white."""
        if self.range is not None:
            return self.range
        low, high = np.percentile(self.values, PERCENTILES)
        return float(low), float(max(high, low + 1e-6))

    @property
    def affine(self) -> NDArray[np.float64]:
        """`(4, 4)`, from voxels to the patient or scanner."""
        found: NDArray[np.float64] = self._file.affine
        return found

    @property
    def length(self) -> int:
        """Slices; known without reading the voxels."""
        return int(self._file.shape[self.axis])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between slices, rows and columns, in the units of the file, mostly millimetres."""
        zooms = [float(each) for each in self._file.header.get_zooms()[:3]]
        slices = zooms.pop(self.axis)
        return slices, zooms[1], zooms[0]

    def slice(self, index: int) -> NDArray[np.float32]:
        """`(H, W)`, the values of a slice of a volume of three axes."""
        found: NDArray[np.float32] = np.take(self.values, index, self.axis).T
        return found

    def bands(self, needed: int) -> Sequence[int]:
        """All, where a network takes others than RGB; else three, or the one three times.

        Raises:
            DataError: where there are fewer than are needed.
        """
        given = self.values.shape[3] if self.values.ndim == 4 else 1
        if needed > given:
            raise DataError(
                f"{self.path}: expected {needed} bands or more, as the network takes, got {given}. "
                f"Correct --bands."
            )
        if needed:
            return tuple(range(1, given + 1))
        return (1, 2, 3) if given > 2 else (1, 1, 1)

    def image(self, index: int, bands: Sequence[int]) -> Tensor:
        """`(bands, H, W)` uint8 of a slice.

        Args:
            index: of the slice.
            bands: which of the fourth axis, from 1; a volume without one has one band.
        """
        cut = np.take(self.values, index, self.axis)
        cut = cut[..., None] if cut.ndim == 2 else cut
        chosen = cut[..., [band - 1 for band in bands]].transpose(2, 1, 0)
        return torch.from_numpy(np.ascontiguousarray(scaled(chosen, *self.span)))

    def write(self, path: Path, values: NDArray[Any], about: str) -> None:
        """Write a volume of the same voxels, in the same place.

        Raises:
            DataError: where it cannot be written.
        """
        nibabel = _nibabel(self.path)
        made = nibabel.Nifti1Image(values, self._file.affine, dtype=values.dtype)
        made.header.set_xyzt_units(*self._file.header.get_xyzt_units())
        made.header["descrip"] = about.encode("ascii", "replace")[:79]
        for code in ("sform", "qform"):
            getattr(made, f"set_{code}")(self._file.affine, int(self._file.header[f"{code}_code"]))
        write_atomically(path, gzip.compress(made.to_bytes(), 1, mtime=0))


def score_volume(
    segmenter: Segmenter,
    volume: Volume,
    scores: Mapping[str, Score],
    told: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Score a volume slice by slice.

    Args:
        segmenter: a network of images.
        volume: opened.
        scores: by name.
        told: after each slice.

    Returns:
        `(x, y, z)` by name: `classes`, and float32 of each score.
    """
    scores = dict(scores)
    segmenter = prepared(segmenter, scores)
    bands = volume.bands(bands_needed(segmenter))
    found: dict[str, NDArray[Any]] = {"classes": np.zeros(volume.shape, np.uint16)}
    found |= {name: np.zeros(volume.shape, np.float32) for name in scores}
    count = volume.shape[volume.axis]
    for index in range(count):
        with showing(slice_name(volume.path, index)):
            prediction = segmenter(volume.image(index, bands)[None])
        maps = score_maps(prediction, scores)
        for name, values in {"classes": prediction.classes[0], **maps}.items():
            np.moveaxis(found[name], volume.axis, 0)[index] = values.cpu().numpy().T
        if told:
            told(index + 1, count)
    if int(found["classes"].max(initial=0)) < 256:
        found["classes"] = found["classes"].astype(np.uint8)
    return found


@alone
def write_volumes(
    segmenter: Segmenter,
    paths: Sequence[Path],
    scores: dict[str, Score],
    out: Path,
    *,
    axis: int = 2,
    range: tuple[float, float] | None = None,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Score volumes slice by slice and write volumes of doubt.

    Args:
        segmenter: a network of images.
        paths: of NIfTI files.
        scores: by name.
        out: folder, made if it is not there.
        axis: across which they are cut.
        range: the values that become black and white.
        command: what to write as the origin.
        progress: told after each slice.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError: without nibabel.
        DataError: for a file that cannot be read, or a folder that cannot be written.
    """
    folders = {"classes": "classes"} | score_folders(scores)
    about: dict[str, Any] = {}
    notes: list[str] = []
    for path in paths:
        volume = Volume(path, axis, range)
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        name, number = stem, 2
        while name.casefold() in {each.casefold() for each in about}:
            name, number = f"{path.parent.name}_{stem}_{number}", number + 1

        def told(done: int, total: int, name: str = name) -> None:
            if progress:
                progress(f"slices of {name}", done, total)

        for what, values in score_volume(segmenter, volume, scores, told).items():
            volume.write(out / folders[what] / f"{name}.nii.gz", values, f"doubtmap: {what}")
        about[name] = {"path": str(path), "shape": volume.shape, "axis": axis, "range": volume.span}
        if range is None:
            low, high = volume.span
            notes.append(f"{path.name}: {low:g} is shown black and {high:g} white; see --range.")
    facts = {
        "doubtmap": __version__,
        "command": command,
        "directory": str(Path.cwd()),
        "model": segmenter.description,
        "class_names": list(segmenter.class_names),
        "folders": folders,
        "volumes": about,
        "notes": notes,
    }
    write_atomically(out / "score.json", json.dumps(facts, indent=1).encode())
    return f"{len(about)} of {len(paths)} volumes scored: {out}"
