"""Make the picture of `docs/dudes.md`: five small teachers, a student, and what each map shows.

    python scripts/make_student_picture.py [--work FOLDER]

Teachers are the embedded demo network, each trained further at a high rate on streets of its own;
the student is the embedded one with a second head. About three minutes of one thread; `--work`
keeps the networks, and a second run only draws.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import doubtmap as dm
from doubtmap.datasets import Sample
from doubtmap.reports.colours import colour_doubt, colour_labels
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.training import Dudes, Settings, train
from doubtmap.training.folds import fold_of

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "student.png"
TEACHERS, IMAGES, SCENES = 5, 120, (1, 7)
TILE, GAP, LINE = (288, 144), 8, 24
SHOWN = SyntheticStreets(24, seed=0)
USED = {"crop": (128, 256), "workers": 1, "augment": False, "seed": 1}


class Remembered(SyntheticStreets):
    """Streets that are drawn once."""

    def __getitem__(self, index: int) -> Sample:
        return _drawn(index)


@cache
def _drawn(index: int) -> Sample:
    return SyntheticStreets(IMAGES, seed=5000, unknowns=False)[index]


STREETS = Remembered(IMAGES, seed=5000, unknowns=False)


def taught(work: Path) -> tuple[str, str]:
    """The teachers and the student, trained where they are not there yet."""
    teachers = [work / "teachers" / str(number + 1) for number in range(TEACHERS)]
    if not all((folder / "doubtmap.json").exists() for folder in teachers):
        settings = Settings(epochs=8, batch=4, rate=4e-3, **USED)  # type: ignore[arg-type]
        for number, folder in enumerate(teachers, 1):
            train(fold_of(STREETS, number, TEACHERS), folder, settings=settings)
    names = tuple(map(str, teachers))
    if not (work / "student" / "doubtmap.json").exists():
        recipe = Dudes(names, cache=work / "cache", freeze=True, hidden=64)
        settings = Settings(epochs=16, batch=4, **USED)  # type: ignore[arg-type]
        train(STREETS, work / "student", recipe=recipe, settings=settings)
    return ",".join(names), str(work / "student")


def tiles(scene: int, teachers: dm.Segmenter, student: dm.Segmenter) -> dict[str, np.ndarray]:
    """`(H, W, 3)` of each column, for one street."""
    sample = SHOWN[scene]
    theirs, own = teachers(sample.image[None]), student(sample.image[None])
    spread, entropy = dm.scores.member_spread(theirs)[0], dm.scores.entropy(own)[0]
    return {
        "image": sample.image.permute(1, 2, 0).numpy(),
        "labels (orange: unknown)": colour_labels(sample.label.numpy(), student.class_names),
        "five teachers: spread": colour_doubt(spread.numpy(), (0, 0.4)),
        "student: distilled": colour_doubt(dm.scores.distilled(own)[0].numpy(), (0, 0.4)),
        "student: entropy": colour_doubt(entropy.numpy(), (0, 1.6)),
    }


def sheet(rows: list[dict[str, np.ndarray]]) -> Image.Image:
    """The tiles of each street in a row, with a title above each column."""
    width, height = TILE
    size = GAP + len(rows[0]) * (width + GAP), LINE + len(rows) * (height + GAP)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for row, columns in enumerate(rows):
        for place, (title, pixels) in enumerate(columns.items()):
            left = GAP + place * (width + GAP)
            tile = Image.fromarray(pixels).resize(TILE, Image.Resampling.BOX)
            picture.paste(tile, (left, LINE + row * (height + GAP)))
            draw.text((left, 4), title, fill=(34, 34, 38), font=font)
    return picture.quantize(200, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def main() -> None:
    """Train what is missing, and write `docs/pictures/student.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        names = taught(work or Path(temporary))
        networks = [dm.load(name) for name in names]
        picture = sheet([tiles(scene, *networks) for scene in SCENES])
    PICTURE.parent.mkdir(exist_ok=True)
    picture.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
