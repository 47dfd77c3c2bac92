"""Make the pictures of the README and the docs from the synthetic streets.

    python scripts/pictures.py [street objects review student flow] [--work FOLDER]

All, or those named. `street.png`: image, labels, prediction and doubt. `objects.png`: all objects
of a street, and those on the ground. `review.png`: what `doubtmap review` shows first.
`student.png`: five small teachers, a student, and what each map shows; about three minutes of one
thread, `--work` keeps the networks, and a second run only draws. `flow.png`: above, patches of the
streets; below, samples of a flow that was trained on such patches for 400 steps; some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import doubtmap as dm
from doubtmap.datasets import Sample
from doubtmap.errors import DataError
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.objects.find import class_indices
from doubtmap.objects.overlay import object_picture
from doubtmap.prediction import Segmenter
from doubtmap.reports.colours import (
    colour_doubt,
    colour_labels,
    labels_present,
    ramp,
    robust_limits,
)
from doubtmap.reports.digits import MINUS, digits
from doubtmap.reports.overlay import overlay
from doubtmap.segments import Partition
from doubtmap.segments.cards import outlined
from doubtmap.segments.fitting import fit_segments
from doubtmap.segments.review import Card, review
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.training import Dudes, Settings, train
from doubtmap.training.batches import Batches
from doubtmap.training.flow_training import FlowTraining, patches, pretrain, read_flow
from doubtmap.training.folds import fold_of
from doubtmap.training.labels import Targets
from doubtmap.training.pictures import COLUMNS, SIDE, tiled

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
INK = (34, 34, 38)


def pixels_of(streets: dm.datasets.Dataset, index: int) -> np.ndarray:
    """`(H, W, 3)` uint8."""
    return streets[index].image.permute(1, 2, 0).numpy()


def street(_: Path) -> Image.Image:
    """Image, labels, prediction and doubt of one street."""
    scene, segmenter, streets = 1, dm.load("demo"), dm.open_dataset("synthetic:24")
    sample = streets[scene]
    prediction = segmenter(sample.image[None])
    return panel(
        pixels_of(streets, scene),
        sample.label.numpy(),
        prediction.classes[0].numpy().astype(np.int16),
        dm.scores.entropy(prediction)[0].numpy(),
        segmenter.class_names,
    )


PAPER, BORDER, TEXT = (255, 255, 255), 10, 15
ROW = TEXT + 11


def panel(
    image: NDArray[np.uint8],
    label: NDArray[np.int16] | None,
    predicted: NDArray[np.int16],
    doubt: NDArray[np.float32],
    class_names: Sequence[str] = (),
    tile_width: int = 420,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Put image, label, prediction and doubt side by side, with a legend and a colour bar.

    Args:
        image: `(H, W, 3)` RGB.
        label: `(H, W)` classes or label codes, or None.
        predicted: `(H, W)` classes.
        doubt: `(H, W)`, finite.
        class_names: in the order of the classes, or empty.
        tile_width: width of each picture, in pixels.
        limits: doubt at the ends of the colour bar; default: `robust_limits(doubt)`.

    Raises:
        DataError: where the maps are not of one size.
    """
    maps = [m for m in (label, predicted, doubt) if m is not None]
    if any(m.shape != image.shape[:2] for m in maps):
        raise DataError(
            f"panel: expected maps of the image's size {image.shape[:2]}, got "
            f"{', '.join(str(m.shape) for m in maps)}."
        )
    ends = robust_limits(doubt) if limits is None else limits
    tiles = [("image", image, Image.Resampling.LANCZOS)]
    if label is not None:
        tiles.append(("label", colour_labels(label, class_names), Image.Resampling.NEAREST))
    tiles.append(("prediction", colour_labels(predicted, class_names), Image.Resampling.NEAREST))
    tiles.append(("doubt", colour_doubt(doubt, ends), Image.Resampling.BOX))

    tile_height = max(1, round(tile_width * image.shape[0] / image.shape[1]))
    width = BORDER + len(tiles) * (tile_width + BORDER)
    legend = legend_lines(label, predicted, class_names, width - tile_width - 3 * BORDER)
    height = ROW + tile_height + BORDER // 2 + max(1, len(legend)) * ROW + BORDER
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (title, pixels, resampling) in enumerate(tiles):
        left = BORDER + place * (tile_width + BORDER)
        draw.text((left, 5), title, fill=INK, font=words())
        tile = Image.fromarray(pixels).resize((tile_width, tile_height), resampling)
        sheet.paste(tile, (left, ROW))
    foot = ROW + tile_height + BORDER // 2
    draw_legend(draw, legend, foot)
    draw_bar(sheet, draw, width - BORDER - tile_width, foot, tile_width, ends)
    return sheet


def words() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of legends."""
    return ImageFont.load_default(TEXT)


Entry = tuple[str, tuple[int, int, int], int]


def legend_lines(
    label: NDArray[np.int16] | None,
    predicted: NDArray[np.int16],
    class_names: Sequence[str],
    width: int,
) -> list[list[Entry]]:
    """Legend entries with their left edges, broken into lines."""
    lines: list[list[Entry]] = []
    left = width + 1
    for name, colour in labels_present(label, predicted, class_names):
        shown = name if len(name) <= 28 else name[:27] + "…"
        wide = round(words().getlength(shown)) + TEXT + 24
        if left + wide > width:
            lines.append([])
            left = 0
        lines[-1].append((shown, colour, left))
        left += wide
    return lines


def draw_legend(draw: ImageDraw.ImageDraw, lines: list[list[Entry]], top: int) -> None:
    """A square and a name for each entry."""
    for row, line in enumerate(lines):
        y = top + row * ROW + 5
        for name, colour, left in line:
            x = BORDER + left
            draw.rectangle((x, y + 1, x + TEXT, y + TEXT + 1), fill=colour)
            draw.text((x + TEXT + 6, y), name, fill=INK, font=words())


def draw_bar(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    width: int,
    limits: tuple[float, float],
) -> None:
    """The ramp between the doubt at its ends."""
    low, high = (digits(float(end)).replace(MINUS, "-") for end in limits)
    low_wide, high_wide = (round(words().getlength(text)) + 8 for text in (low, high))
    bar = Image.fromarray(ramp()[None]).resize((max(1, width - low_wide - high_wide), TEXT - 3))
    draw.text((left, top + 5), low, fill=INK, font=words())
    sheet.paste(bar, (left + low_wide, top + 8))
    draw.text((left + width - high_wide + 8, top + 5), high, fill=INK, font=words())


def chosen_threshold(segmenter: Segmenter) -> float:
    """The score of the best pixel F1 on other streets."""
    streets = dm.open_dataset("synthetic:24", seed=100)
    ranking = dm.metrics.Ranking()
    for index in range(len(streets)):
        sample = streets[index]
        score = dm.scores.pixel_gradient_norm(segmenter(sample.image[None]))[0]
        ranking.update(score, sample.label == dm.datasets.UNKNOWN, sample.label != -2)
    return ranking.curve.best_f1()[1]


def objects(_: Path) -> Image.Image:
    """All objects of a street, and those on the ground."""
    scene, wide, gap, line = 15, 690, 10, 26
    segmenter, streets = dm.load("demo"), dm.open_dataset("synthetic:24")
    sample = streets[scene]
    prediction = segmenter(sample.image[None])
    score = dm.scores.pixel_gradient_norm(prediction)[0]
    image = pixels_of(streets, scene)
    threshold = chosen_threshold(segmenter)
    ground = class_indices(["road", "pavement"], segmenter.class_names)
    titles = ("all objects", "--on road,pavement --fill-holes")
    rules = (ObjectRule(threshold), ObjectRule(threshold, on=ground, fill_holes=True))
    height = wide * image.shape[0] // image.shape[1]
    sheet = Image.new("RGB", (2 * wide + 3 * gap, line + height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (title, rule) in enumerate(zip(titles, rules)):
        things = find_objects(score, prediction.classes[0], rule)
        shapes = [outlines(np.asarray(thing.mask), thing.box[:2]) for thing in things]
        picture = object_picture(image, things, shapes)
        left = gap + place * (wide + gap)
        sheet.paste(picture.resize((wide, height), Image.Resampling.LANCZOS), (left, line))
        font = ImageFont.load_default(15)
        draw.text((left, 4), f"{title}: {len(things)}", fill=INK, font=font)
    return sheet.quantize(96, kmeans=3, dither=Image.Dither.NONE)


def reviewed(_: Path) -> Image.Image:
    """The first two cards of a review, by a meta model of 24 other streets."""
    segmenter = dm.load("demo")
    model = fit_segments(segmenter, dm.open_dataset("synthetic:24"), compare=False).model
    streets = dm.open_dataset("synthetic:24", seed=11)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"street_{index:02d}.png" for index in range(len(streets))]
        for index, path in enumerate(paths):
            Image.fromarray(pixels_of(streets, index)).save(path)
        found = review(segmenter, paths, model)
    cards = []
    for index in found.order()[:2].tolist():
        pixels = pixels_of(streets, index)
        classes = segmenter(streets[index].image[None]).classes[0]
        cards.append(found.card(index, pixels, Partition.of(classes).labels.numpy()))
    parts = [drawn_card(card) for card in cards]
    whole = Image.new("RGB", (parts[0].width, sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole.quantize(96, kmeans=3, dither=Image.Dither.NONE)


def drawn_card(card: Card) -> Image.Image:
    """One card: doubt on the left, suspects on the right."""
    wide, tile, line = 620, 150, 30
    whole = Image.fromarray(overlay(card.image, card.doubt, (0.3, 1.0), opacity=0.6))
    height = round(wide * whole.height / whole.width)
    part = Image.new("RGB", (wide + 4 * (tile + 10) + 10, height + line + 10), "white")
    part.paste(whole.resize((wide, height)), (0, line))
    pen = ImageDraw.Draw(part)
    pen.text(
        (0, 10),
        f"{Path(card.name).name}: expected mIoU {card.expected_miou:.2f}, "
        f"{card.expected_wrong:.1%} of pixels wrong",
        "black",
        font=ImageFont.load_default(14),
    )
    for at, suspect in enumerate(card.suspects):
        crop = Image.fromarray(outlined(suspect, card))
        crop.thumbnail((tile, tile + 40))
        left = wide + 10 + at * (tile + 10)
        part.paste(crop, (left, line))
        said = (
            f"{suspect.class_name}?\ntouches any: {suspect.probability:.2f}\n"
            f"expected IoU: {suspect.expected_iou:.2f}"
        )
        pen.text((left, line + crop.height + 6), said, "black", font=ImageFont.load_default(13))
    return part


TEACHERS, IMAGES, SCENES = 5, 120, (1, 7)
TILE, GAP, LINE = (288, 144), 8, 24
SHOWN = SyntheticStreets(24, seed=0)
TAUGHT_WITH = {"crop": (128, 256), "workers": 1, "augment": False, "seed": 1}


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
        settings = Settings(epochs=8, batch=4, rate=4e-3, **TAUGHT_WITH)  # type: ignore[arg-type]
        for number, folder in enumerate(teachers, 1):
            train(fold_of(STREETS, number, TEACHERS), folder, settings=settings)
    names = tuple(map(str, teachers))
    if not (work / "student" / "doubtmap.json").exists():
        recipe = Dudes(names, cache=work / "cache", freeze=True, hidden=64)
        settings = Settings(epochs=16, batch=4, **TAUGHT_WITH)  # type: ignore[arg-type]
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


def sheet(rows: list[dict[str, np.ndarray]], tile: tuple[int, int] = TILE) -> Image.Image:
    """The tiles of each street in a row, with a title above each column."""
    width, height = tile
    size = GAP + len(rows[0]) * (width + GAP), LINE + len(rows) * (height + GAP)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for row, columns in enumerate(rows):
        for place, (title, pixels) in enumerate(columns.items()):
            left = GAP + place * (width + GAP)
            drawn = Image.fromarray(pixels).resize(tile, Image.Resampling.BOX)
            picture.paste(drawn, (left, LINE + row * (height + GAP)))
            draw.text((left, 4), title, fill=(34, 34, 38), font=font)
    return picture.quantize(200, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def student(work: Path) -> Image.Image:
    """Teachers are the demo network, each trained further at a high rate on streets of its own.

    The student is the demo network with a second head. What is missing in `work` is trained.
    """
    torch.set_num_threads(1)
    networks = [dm.load(name) for name in taught(work)]
    return sheet([tiles(scene, *networks) for scene in SCENES])


def flow(work: Path) -> Image.Image:
    """A flow is trained on 64 streets: what it has seen, and what it draws."""
    torch.set_num_threads(1)
    streets = SyntheticStreets(64, seed=7, size=(192, 384), unknowns=False)
    targets = Targets.of(streets, streets.class_names)
    batches = Batches(streets, targets, 4, (192, 256), workers=1)
    path = work / "flow.safetensors"
    pretrain(batches, FlowTraining(400), path, device=torch.device("cpu"))
    trained, about = read_flow(path)
    print(f"{about['bits']:.3f} bits per dimension on held-out patches")
    _, seen = next(patches(batches, SIDE, 64, 1))
    with torch.no_grad():
        drawn = trained.sample(COLUMNS, (SIDE, SIDE), torch.Generator().manual_seed(0))
    rows = torch.stack([seen[:: len(seen) // COLUMNS][:COLUMNS], drawn])
    return tiled(rows)


DRAWN: dict[str, Callable[[Path], Image.Image]] = {
    "street": street,
    "objects": objects,
    "review": reviewed,
    "student": student,
    "flow": flow,
}


def main() -> None:
    """Make those that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWN)}")
    parser.add_argument("--work", type=Path, help="a folder for the networks")
    given = parser.parse_args()
    for name in given.names or DRAWN:
        if name not in DRAWN:
            parser.error(f"expected some of {', '.join(DRAWN)}, got {name}")
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.names or DRAWN:
            picture = DRAWN[name](given.work or Path(temporary))
            picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
