"""`saved:FOLDER`: predictions that any other framework wrote, one file for each image.

They give every score that needs logits only, the figures, calibration and decisions. A file belongs
to the image of its name: `a/b.png` to `b.npz`, `b.npy`, `b.safetensors` or `b.tif`. To slices of a
volume, `b_slice012`, belongs what was saved of the whole: `b.npz` of `(C, slices, rows, columns)`,
as nnU-Net has it, or, where only that fits, `(C, columns, rows, slices)` as nibabel has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from doubtmap.datasets.fingerprints import file_marks
from doubtmap.errors import DataError, ModelError, UsageError, first_line
from doubtmap.models.forms import Activation, Form, fits, form_of, given_form
from doubtmap.prediction import Prediction, shown
from doubtmap.shown import ShownSegmenter

KEYS = ("logits", "probabilities", "softmax", "arr_0")
"""Names under which files of several arrays hold the scores; nnU-Net says `probabilities`."""
INSTALL_TIFF = "pip install rasterio"
LEVEL_LOST = "the saved predictions are probabilities, whose free energy is 0 everywhere"


SLICE = re.compile(r"(?P<case>.+)_slice(?P<at>[0-9]+)")
"""Names of slices of volumes."""
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


class NoNameError(UsageError):
    """Of an image that no file was saved for, since it has no name, such as the probe image."""


class SavedPredictions(ShownSegmenter):
    """A segmenter that reads what was predicted, by the name of the image that is looked at.

    Args:
        folder: with a file for each image.
        classes: one name per class; default: those of `dataset.json` beside the files.
        activation: what the numbers are, where they do not tell.
        called: what results call the folder; default: its path.

    Raises:
        UsageError: for a folder without such files, or with two for one image name.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str] | None = None,
        activation: Activation | None = None,
        called: str = "",
    ) -> None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READERS)
        if not found:
            raise UsageError(
                f"saved:{folder}: expected a folder with {', '.join(READERS)} files, one for each "
                f"image, found none. Check the path."
            )
        self.folder, self._activation = folder, activation
        self._called = called or str(folder)
        self._files = _by_stem(folder, found)
        self._names = tuple(classes) if classes is not None else _names(folder)
        self._form: Form | None = None
        self._order = ""
        self._held: dict[Path, Array] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, or empty where the folder does not know them."""
        return self._names

    @property
    def description(self) -> dict[str, object]:
        """What a results file should say."""
        kind = self._form.kind if self._form else None
        said = f"The saved predictions are taken for {kind}." if kind else "Not read yet."
        return {
            "source": f"saved:{self._called}",
            "kind": "saved",
            "classes": len(self._names) or None,
            "form": kind,
            "asked": {"activation": self._activation},
            "features": None,
            "notes": [said, *filter(None, [self._order])],
            "sha256": None,
        }

    @property
    def content(self) -> dict[str, str]:
        """Hashes of the saved files, by the names of their images."""
        return file_marks({path: stem for stem, path in self._files.items()})

    def __call__(self, images: Tensor) -> Prediction:
        """The saved prediction of the one image that is looked at.

        Args:
            images: `(1, 3, H, W)`.

        Raises:
            NoNameError: where the image has no name, or more than one is given.
            DataError: where it has no file, or one that does not fit it.
            ModelError: for numbers that could be several things.
        """
        size = (images.shape[-2], images.shape[-1])
        path, at = self._file(images)
        array = self._array(path)
        if at is not None:
            array, told = _cut(path, array, at, size)
            self._order = self._order or told
        scores = _scores(path, array, size, len(self._names) or None)
        if self._form is None:
            self._form = self._told(path, scores)
        probabilities = self._form.kind in ("softmax", "log_softmax")
        return Prediction(
            self._form.logits(scores),
            size,
            features_missing="saved predictions have no features",
            class_names=self._names,
            energy_missing=LEVEL_LOST if probabilities else "",
        )

    def _array(self, path: Path) -> Array:
        """What a file holds; of volumes the last is held."""
        if path not in self._held:
            array = _read(path)
            if array.ndim < 4:
                return array
            self._held = {path: array}
        return self._held[path]

    def _file(self, images: Tensor) -> tuple[Path, int | None]:
        """The file, and the slice of a volume that is looked at."""
        name = Path(shown()).name
        if not name or len(images) != 1:
            raise NoNameError(
                "saved: expected one image with a name, as score and evaluate give, got an image "
                "without. Saved predictions cannot be made anew; name an image, as doubtmap info "
                "saved:FOLDER IMAGE, or use the network itself."
            )
        for stem in (name, Path(name).stem, Path(name).stem.removesuffix("_0000")):
            if stem in self._files:
                return self._files[stem], None
        volume = SLICE.fullmatch(name)
        if volume is not None and volume["case"] in self._files:
            return self._files[volume["case"]], int(volume["at"])
        raise DataError(
            f"expected a saved prediction for {name} in {self.folder}, found none. Save one under "
            "this name, or leave the image out."
        )

    def _told(self, path: Path, scores: Tensor) -> Form:
        if self._activation is not None:
            return given_form(scores, self._activation)
        form = form_of(scores)
        if form.kind == "unknown":
            raise ModelError(
                f"{path}: expected logits or a softmax, got values in [0, 1] that do not sum to 1. "
                f"Pass --activation sigmoid, softmax or none."
            )
        return form


def _by_stem(folder: Path, found: Sequence[Path]) -> dict[str, Path]:
    """Each file by its name without suffix, which no other has."""
    files: dict[str, Path] = {}
    for path in found:
        other = files.setdefault(path.stem, path)
        if other != path:
            raise UsageError(
                f"saved:{folder}: expected one file for each image name, got "
                f"{other.relative_to(folder)} and {path.relative_to(folder)}. Rename images and "
                f"files so that names differ, or name a folder that has one of them."
            )
    return files


def _read(path: Path) -> Array:
    try:
        return READERS[path.suffix.lower()](path)
    except ModelError:
        raise
    except Exception as error:  # whatever a reader makes of a damaged file
        raise DataError(f"{path}: cannot be read ({first_line(error)}).") from error


def _ways(shape: tuple[int, ...], at: int, size: tuple[int, int]) -> list[tuple[int, bool]]:
    """Axes that may go across the slices, each with whether columns come before rows then."""
    ways = []
    for turned in (False, True) if len(shape) == 4 else ():
        for axis in (3, 2, 1) if turned else (1, 2, 3):
            sides = [side for each, side in enumerate(shape) if each not in (0, axis)]
            if tuple(sides[::-1] if turned else sides) == size and at < shape[axis]:
                ways.append((axis, turned))
    return ways


def _cut(path: Path, volume: Array, at: int, size: tuple[int, int]) -> tuple[Array, str]:
    """`(C, H, W)` of a slice of a volume, whichever of its axes goes across slices.

    Returns:
        The slice, and what to tell where the volume's shape does not say which axis that is.
    """
    ways = _ways(volume.shape, at, size)
    if not ways:
        raise DataError(
            f"{path}: expected scores (C, slices, {size[0]}, {size[1]}) of more than {at} slices, "
            f"got {volume.shape}. Save the whole volume as the network saw it."
        )
    (axis, turned), *others = ways
    order = {(1, False): "(C, slices, rows, columns)", (3, True): "(C, columns, rows, slices)"}
    taken = order.get((axis, turned), f"slices along axis {axis}")
    told = f"{path.name} could be read in several orders, and is taken for {taken}."
    found: Array = np.take(volume, at, axis)
    return found.swapaxes(1, 2) if turned else found, told if others else ""


def _scores(path: Path, array: Array, size: tuple[int, int], classes: int | None) -> Tensor:
    """`(1, C, h, w)` of a file, on a grid that is the image stretched."""
    x = torch.from_numpy(np.ascontiguousarray(array))
    x = x.float() if not x.is_floating_point() else x
    for axis in (0, 1):
        if x.ndim == 4 and x.shape[axis] == 1:
            x = x.squeeze(axis)  # a batch of one, or a volume of one slice
    last = x.ndim == 3 and (x.shape[-1] == classes or not fits(x.shape[1:], size))
    if last and fits(x.shape[:2], size):
        x = x.movedim(-1, 0)
    if x.ndim != 3 or len(x) < 2 or not fits(x.shape[1:], size):
        raise DataError(
            f"{path}: expected scores (C, H, W) for an image of {size[0]}x{size[1]}, got "
            f"{tuple(array.shape)}. Save one channel a class, at the image's size."
        )
    return x[None]


def _npz(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        name = next((key for key in KEYS if key in archive), archive.files[0])
        found: Array = archive[name]
        return found


def _npy(path: Path) -> Array:
    found: Array = np.load(path, allow_pickle=False)
    return found


def _safetensors(path: Path) -> Array:
    tensors = load(path.read_bytes())
    name = next((key for key in KEYS if key in tensors), next(iter(tensors)))
    found: Array = tensors[name].float().numpy()
    return found


def _tiff(path: Path) -> Array:
    try:
        import rasterio
    except ImportError as error:
        raise ModelError(
            f"{path}: expected rasterio for files of many bands, found none. Install with "
            f"{INSTALL_TIFF}."
        ) from error
    with rasterio.open(path) as opened:
        found: Array = opened.read()
        return found


READERS: dict[str, Callable[[Path], Array]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".tif": _tiff,
    ".tiff": _tiff,
}
"""How files are read, by suffix."""


def _names(folder: Path) -> tuple[str, ...]:
    """Class names that nnU-Net's `dataset.json` says: `{"labels": {name: number}}`."""
    for place in (folder, folder.parent):
        try:
            labels = json.loads((place / "dataset.json").read_text())["labels"]
            numbered = sorted((int(number), str(name)) for name, number in labels.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # there is none, or it is another program's
        return tuple(name for _, name in numbered)
    return ()
