"""What an evaluation keeps of each image for `doubtmap view`, where it is asked to.

OUT/classes/NAME.png   predicted classes, a palette picture
OUT/labels/NAME.png    labels, 16 bits: classes; 65535 unknown, 65534 void, 65533 known
OUT/SCORE/NAME.png     a doubt map for each score
OUT/images/NAME.jpg    the image, where it lies in no file of its own
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import Tensor

from doubtmap.datasets.dataset import Sample
from doubtmap.datasets.fingerprints import folders_of, image_files
from doubtmap.datasets.reading import in_colour
from doubtmap.engine.run import Run
from doubtmap.errors import UsageError
from doubtmap.files import sweep, write_atomically, writing_to
from doubtmap.files.earlier import begin_in
from doubtmap.files.naming import score_folders
from doubtmap.prediction import Prediction
from doubtmap.reports.maps import write_classes, write_map
from doubtmap.reports.scales import natural_scale

TAKEN = ("classes", "labels", "images")
"""Folders that hold something else than doubt."""


def forms_of(run: Run) -> list[str]:
    """What is kept of each image, where `*` stands for its name."""
    folders = ("classes", "labels", *score_folders(run.scores, taken=TAKEN).values())
    drawn = None in image_files(run.dataset)
    return [*(f"{folder}/*.png" for folder in folders), *(["images/*.jpg"] if drawn else [])]


def check_outside(out: Path, run: Run) -> None:
    """Refuse to keep anything where the data lie, which it would be written over.

    Args:
        out: folder of the evaluation.
        run: its images and scores.

    Raises:
        UsageError: where they do.
    """
    written = {(out / form).parent.resolve() for form in forms_of(run)}
    for folder in map(Path.resolve, folders_of(run.dataset)):
        if written & {folder, *folder.parents}:
            raise UsageError(
                f"--maps: expected data outside of the folders that it writes, but they lie in "
                f"{folder}. Name another --out."
            )


def note_files(out: Path, run: Run, *, resume: bool = False) -> None:
    """Remove what an earlier evaluation has kept, and note what this one does; see `begin_in`.

    Args:
        out: folder of both.
        run: its images and scores.
        resume: the earlier one goes on.

    Raises:
        DataError: where the folder cannot be written.
    """
    names = [run.dataset.sample_name(index) for index in range(len(run.dataset))]
    begin_in(out, "evaluate", names, forms_of(run), resume=resume)


@dataclass(frozen=True)
class Keeping:
    """Writes what each image came to.

    Args:
        out: folder of the evaluation.
        folders: of each score's maps, by its name.
        files: of the images, None for those that lie in no file.
    """

    out: Path
    folders: Mapping[str, str]
    files: Sequence[Path | None]

    @classmethod
    def of(cls, out: Path | None, run: Run) -> Self | None:
        """Make the folders, where maps are to be kept.

        Args:
            out: folder of the evaluation; None: nothing is kept.
            run: its images and scores.

        Raises:
            DataError: where they cannot be made.
        """
        if out is None:
            return None
        folders = score_folders(run.scores, taken=TAKEN)
        for folder in (*TAKEN, *folders.values()):
            with writing_to(out):
                (out / folder).mkdir(parents=True, exist_ok=True)
            sweep(out / folder)
        return cls(out, folders, image_files(run.dataset))

    def keep(
        self,
        index: int,
        sample: Sample,
        prediction: Prediction,
        label: Tensor,
        maps: Mapping[str, Tensor],
    ) -> None:
        """Write one image.

        Args:
            index: in the data set.
            sample: with its name and image.
            prediction: of this image alone.
            label: `(H, W)` in the model's classes, or `KNOWN`, `UNKNOWN`, `VOID`.
            maps: `(H, W)` by score, finite.

        Raises:
            DataError: where a file cannot be written.
        """
        name, file = f"{sample.name}.png", self.out / "images" / f"{sample.name}.jpg"
        if self.files[index] is None:
            stream = io.BytesIO()
            Image.fromarray(in_colour(sample.image)).save(stream, "JPEG", quality=92)
            write_atomically(file, stream.getvalue())
        classes = prediction.classes[0].cpu().numpy()
        write_classes(self.out / "classes" / name, classes, prediction.class_names)
        codes = label.cpu().numpy().astype(np.int16).view(np.uint16)
        write_classes(self.out / "labels" / name, codes)
        for score, values in maps.items():
            path = self.out / self.folders[score] / name
            doubt = values.cpu().numpy()
            scale = natural_scale(score, prediction.native_logits.shape[1])
            write_map(path, doubt, "png", score, scale=scale)
