"""Pictures for notebooks: what a prediction says of its images, and samples of a data set."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from torch import Tensor

from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.reading import in_colour
from doubtmap.errors import UsageError
from doubtmap.files import write_atomically
from doubtmap.prediction import Prediction, Score
from doubtmap.reports.colours import robust_limits
from doubtmap.reports.digits import digits
from doubtmap.reports.page import framed, header
from doubtmap.reports.pictures import doubt_picture, label_picture, photograph
from doubtmap.scores.parsing import parse_scores


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures with words below them.

    Args:
        title: what they are of.
        rows: of caption and picture, as a `data:` address.
    """

    title: str
    rows: Sequence[Sequence[tuple[str, str]]]

    def __repr__(self) -> str:
        """One line."""
        return f"Pictures({self.title}, {sum(map(len, self.rows))} pictures)"

    def _repr_html_(self) -> Markup:
        """For notebooks."""
        return Markup("").join(
            Markup('<div style="display:flex;gap:6px;flex-wrap:wrap">{}</div>').format(
                Markup("").join(
                    Markup(
                        '<figure style="margin:0;flex:1 1 200px;max-width:420px">'
                        '<img src="{}" alt="{}" style="width:100%">'
                        "<figcaption>{}</figcaption></figure>"
                    ).format(address, caption, caption)
                    for caption, address in row
                )
            )
            for row in self.rows
        )

    def picture(self, row: int = 0, place: int = 0) -> bytes:
        """One of them, as the content of a PNG or JPEG file."""
        return base64.b64decode(self.rows[row][place][1].split(",", 1)[1])

    def save(self, path: str | Path) -> None:
        """Write them as a page of one file.

        Raises:
            DataError: where it cannot be written.
        """
        head = header("pictures", self.title)
        write_atomically(path, framed(self.title, head, self._repr_html_()))


def pictures_of(
    prediction: Prediction, score: str | Score = "entropy", images: Tensor | None = None
) -> Pictures:
    """The images, what is predicted, and a doubt map on one scale for all.

    Args:
        prediction: of a batch.
        score: its name, such as `entropy` or `gradient(p=1)`, or the score itself.
        images: `(B, 3, H, W)`, uint8 or floats in [0, 1], to show beside.

    Raises:
        UsageError: for several scores, or images of another number or size.
    """
    scores = parse_scores(score if isinstance(score, str) else [score])
    if len(scores) != 1:
        raise UsageError(f"show: expected one score, got {len(scores)}. Call it for each.")
    (name, function), count = next(iter(scores.items())), len(prediction.native_logits)
    if images is not None and (len(images), *images.shape[-2:]) != (count, *prediction.size):
        raise UsageError(
            f"show: expected {count} images of {prediction.size}, got {tuple(images.shape)}. Give "
            f"those of the prediction."
        )
    maps = function(prediction).detach().float().cpu().numpy()
    classes = prediction.classes.cpu().numpy().astype(np.int16)
    limits = robust_limits(maps)
    scale = f"{name}, {digits(limits[0])} to {digits(limits[1])}"
    rows = []
    for at in range(count):
        row = [
            ("prediction", label_picture(classes[at], prediction.class_names)),
            (scale, doubt_picture(maps[at], limits)),
        ]
        rows.append(row if images is None else [("image", photograph(_bytes(images[at]))), *row])
    return Pictures(f"{name} of {count} image{'s' * (count > 1)}", rows)


def samples_of(dataset: Dataset, count: int = 3, first: int = 0) -> Pictures:
    """Samples of a data set: image and labels.

    Args:
        dataset: any.
        count: how many.
        first: index of the first.

    Raises:
        UsageError: for samples that there are not.
        DataError: for images that cannot be read.
    """
    if not 0 <= first < len(dataset) or count < 1:
        raise UsageError(
            f"show: expected 1 or more of the {len(dataset)} images of {dataset.name}, got {count} "
            f"from {first}."
        )
    rows = []
    for index in range(first, min(first + count, len(dataset))):
        sample = dataset[index]
        labels = label_picture(sample.label.numpy(), dataset.class_names)
        rows.append([(sample.name, photograph(in_colour(sample.image))), ("labels", labels)])
    return Pictures(f"{dataset.name}, {len(rows)} of {len(dataset)} images", rows)


def _bytes(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """`(3, H, W)` as `(H, W, 3)` uint8."""
    whole = image if not image.is_floating_point() else (image.clamp(0, 1) * 255).round()
    return in_colour(whole.byte().cpu())
