"""The files of `doubtmap labels`: labels that are likely wrong, for the eye and for other tools.

OUT/labels.html         the likeliest, each as image, labels and prediction
OUT/label_errors.csv    a row for each, ranked
OUT/images.csv          a row for each image, the likeliest wrong labels first
OUT/labels.json         the same with outlines, and how all this was made; for `doubtmap view`
OUT/images/NAME.jpg     images that lie in no file of their own
OUT/FORM/               files of labelling tools, where they are asked for
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from doubtmap.datasets.dataset import Dataset, Sample, notes_of
from doubtmap.datasets.fingerprints import image_files, range_of
from doubtmap.datasets.reading import in_colour, left_out
from doubtmap.engine.run import Progress, Run
from doubtmap.engine.seen import who_has_seen
from doubtmap.engine.settings import data_settings, model_settings, with_bands_of
from doubtmap.errors import UsageError
from doubtmap.files import alone, cell, sweep, utf8, write_atomically, writing_to
from doubtmap.labelling.denied import DenialRule, Denied
from doubtmap.labelling.find import MOST, USUAL, LabelErrors, find_label_errors
from doubtmap.labelling.handing import check_forms, hand_on
from doubtmap.labelling.page import Shown, error_page
from doubtmap.labelling.quality import label_probability
from doubtmap.labelling.task import Region, Task
from doubtmap.objects.coco import run_lengths
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.segments import MetaModel
from doubtmap.version import __version__

COLUMNS = (
    *("rank", "image", "predicted", "labelled", "score", "confidence", "label_probability"),
    *("probability_right", "iou", "area", "left", "top", "width", "height"),
)
OF_IMAGES = ("rank", "image", "quality", "agreement", "denied", "denied_share", "highest")


@dataclass(frozen=True)
class Output:
    """What is written beside the lists.

    Args:
        first: how many wrong labels the page shows, and from how many images tools get theirs.
        forms: of labelling tools, of `doubtmap.labelling.handing.FORMS`.
        command: what to write as the origin.

    Raises:
        UsageError: for a form that there is not, or fewer than none.
    """

    first: int = 60
    forms: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        check_forms(self.forms)
        if self.first < 0:
            raise UsageError(f"first: expected a number from 0 on, got {self.first}.")


PLAIN = Output()


@alone
def write_label_errors(
    segmenter: Segmenter,
    dataset: Dataset,
    out: Path,
    model: MetaModel | None = None,
    rule: DenialRule = USUAL,
    *,
    output: Output = PLAIN,
    most: int = MOST,
    skip_bad: bool = False,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[LabelErrors, list[str]]:
    """Look for labels that are likely wrong, and write what was found.

    Args:
        segmenter: the network.
        dataset: with class labels.
        out: folder, made if it is not there.
        model: of `doubtmap fit segments`, for the column `probability_right`.
        rule: which disagreements are looked at.
        output: what is written beside the lists.
        most: how many wrong labels are listed.
        skip_bad: count images that cannot be used, and go on.
        notes: sentences that belong to the run.
        progress: told after each image.

    Returns:
        What was found, and sentences on what to do with the files.

    Raises:
        UsageError, ModelError: as `find_label_errors`.
        DataError: where no image can be used, or the folder cannot be written.
    """
    dataset = with_bands_of(segmenter, dataset)
    files = image_files(dataset)
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)

    def keep(index: int, sample: Sample, *_: object) -> None:
        if files[index] is None:
            _keep_image(out / "images" / f"{sample.name}.jpg", sample.image)

    found = find_label_errors(
        segmenter,
        dataset,
        model,
        rule,
        most=most,
        skip_bad=skip_bad,
        look=keep,
        progress=progress,
    )
    parts = {} if model is None else {"the meta model": model}
    told = [*notes, *notes_of(dataset), *found.notes, *who_has_seen(dataset, segmenter, parts)]
    written = _Written(out, segmenter, dataset, found, files, told)
    write_atomically(out / "label_errors.csv", utf8(written.errors_csv()))
    write_atomically(out / "images.csv", utf8(written.images_csv()))
    write_atomically(out / "labels.json", written.json(model, rule, output.command))
    shown = list(written.shown(found.parts[: output.first]))
    page = error_page(found, shown, told, dataset.name, output.command)
    write_atomically(out / "labels.html", page)
    chosen = written.to_hand_on(output.first)
    places = [written.file(index) for index in chosen]
    said = hand_on(written.tasks(chosen), output.forms, out, found.class_names, places)
    count = f"{len(found.images)} images{left_out(found.skipped)}"
    start = f"labels are denied at {found.found} places of {count}; look at {out / 'labels.html'}"
    return found, [start, *said]


def _keep_image(file: Path, image: Tensor) -> None:
    stream = io.BytesIO()
    Image.fromarray(in_colour(image)).save(stream, "JPEG", quality=92)
    write_atomically(file, stream.getvalue())


@dataclass(frozen=True, eq=False)
class _Written:
    """What was found, as files say it."""

    out: Path
    segmenter: Segmenter
    dataset: Dataset
    found: LabelErrors
    files: Sequence[Path | None]
    notes: Sequence[str]

    def file(self, index: int) -> Path:
        """Of an image, absolute: its own, or the one that was kept."""
        own = self.files[index]
        kept = self.out / "images" / f"{self.dataset.sample_name(index)}.jpg"
        return (kept if own is None else own).absolute()

    def errors_csv(self) -> str:
        """A row for each wrong label."""
        return _csv(COLUMNS, (self._row(at, part) for at, part in enumerate(self.found.parts, 1)))

    def _row(self, rank: int, part: Denied) -> Iterator[Any]:
        right = part.probability_right
        yield from (rank, self.dataset.sample_name(part.image))
        yield from (self.found.class_names[k] for k in (part.predicted, part.labelled))
        numbers = (part.score, part.confidence, part.label_probability, right, part.iou)
        yield from ("" if x is None or np.isnan(x) else f"{x:.4f}" for x in numbers)
        yield from (part.area, *part.box)

    def images_csv(self) -> str:
        """A row for each image, that with the likeliest wrong label first."""
        order = sorted(self.found.images, key=lambda image: -image.highest)
        rows = (
            (
                *(rank, image.name, _digits(image.quality), _digits(image.agreement)),
                *(image.denied, f"{image.denied_share:.4f}", f"{image.highest:.4f}"),
            )
            for rank, image in enumerate(order, 1)
        )
        return _csv(OF_IMAGES, rows)

    def json(self, model: MetaModel | None, rule: DenialRule, command: str) -> bytes:
        """How all this was made, and the wrong labels with their masks."""
        sizes = {image.index: image.size for image in self.found.images}
        about = {
            "doubtmap": __version__,
            "command": command,
            "model": self.segmenter.description,
            "class_names": list(self.found.class_names),
            "data": self.dataset.name,
            "settings": model_settings(self.segmenter) | data_settings(self.dataset),
            "segments": None if model is None else model.origin.told(),
            "rule": vars(rule),
            "range": range_of(self.dataset),
            "notes": list(self.notes),
            "directory": str(Path.cwd()),
            "found": self.found.found,
            "images": {
                image.name: None if (own := self.files[image.index]) is None else str(own)
                for image in self.found.images
            },
            "label_errors": [
                {
                    "image": self.dataset.sample_name(part.image),
                    "predicted_class": self.found.class_names[part.predicted],
                    "labelled_class": self.found.class_names[part.labelled],
                    "bbox": list(part.box),
                    "area": part.area,
                    "score": part.score,
                    "confidence": part.confidence,
                    "label_probability": part.label_probability,
                    "probability_right": part.probability_right,
                    "iou": part.iou,
                    "segmentation": run_lengths(self._region(part).thing, sizes[part.image]),
                }
                for part in self.found.parts
            ],
            "skipped": self.found.skipped,
        }
        return json.dumps(about).encode()

    def _region(self, part: Denied) -> Region:
        names = self.found.class_names
        return Region(
            names[part.predicted], part.confidence, part.box, part.mask, names[part.labelled]
        )

    def looked_at(self, index: int) -> tuple[Sample, Prediction, Tensor]:
        """An image again, its prediction, and its labels in the network's classes."""
        run = Run(self.segmenter, self.dataset, {}, (), None)
        sample = run.dataset[index]
        return sample, *run.predict(sample)

    def shown(self, parts: Sequence[Denied]) -> Iterator[Shown]:
        """Pictures of parts, in their order; each image is looked at once."""
        pictures: dict[int, Shown] = {}
        for index in dict.fromkeys(part.image for part in parts):
            sample, prediction, label = self.looked_at(index)
            image, classes = in_colour(sample.image), prediction.classes[0].cpu().numpy()
            for at, part in enumerate(parts):
                if part.image == index:
                    pictures[at] = Shown.of(part, sample.name, image, label.cpu().numpy(), classes)
        yield from (pictures[at] for at in range(len(parts)))

    def to_hand_on(self, most: int) -> list[int]:
        """The images with the likeliest wrong labels, in that order."""
        return list(dict.fromkeys(part.image for part in self.found.parts))[:most]

    def tasks(self, chosen: Sequence[int]) -> Iterator[Task]:
        """These images for labelling tools: doubt is 1 - the probability of the label."""
        by_image: dict[int, list[Denied]] = {}
        for part in self.found.parts:
            by_image.setdefault(part.image, []).append(part)
        for index in chosen:
            sample, prediction, label = self.looked_at(index)
            yield Task(
                sample.name,
                self.file(index),
                in_colour(sample.image),
                prediction.classes[0].cpu().numpy(),
                1 - label_probability(prediction, label).numpy(),
                max(part.score for part in by_image[index]),
                tuple(self._region(part) for part in by_image[index]),
            )


def _digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _csv(columns: Sequence[str], rows: Iterator[Any]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(value) if isinstance(value, str) else value for value in row])
    return stream.getvalue()
