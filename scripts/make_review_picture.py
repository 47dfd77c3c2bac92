"""Make `docs/pictures/review.png`: what `doubtmap review` shows first, of drawn streets.

    python scripts/make_review_picture.py

Fits a meta model to 24 streets, reviews 24 others, and draws the first two as the page has them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import doubtmap as dm
from doubtmap.reports.overlay import overlay
from doubtmap.segments import Partition
from doubtmap.segments.cards import outlined
from doubtmap.segments.fitting import fit_segments
from doubtmap.segments.review import Card, review

OUT = Path(__file__).parents[1] / "docs" / "pictures" / "review.png"
WIDE, TILE, LINE = 620, 150, 30


def main() -> None:
    """Draw it."""
    segmenter = dm.load("demo")
    model = fit_segments(segmenter, dm.open_dataset("synthetic:24"), compare=False).model
    streets = dm.open_dataset("synthetic:24", seed=11)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"street_{index:02d}.png" for index in range(len(streets))]
        for index, path in enumerate(paths):
            Image.fromarray(pixels_of(streets, index)).save(path)
        found = review(segmenter, paths, model)
    cards = []
    for index in found.order[:2].tolist():
        pixels = pixels_of(streets, index)
        classes = segmenter(streets[index].image[None]).classes[0]
        cards.append(found.card(index, pixels, Partition.of(classes).labels.numpy()))
    parts = [drawn(card) for card in cards]
    whole = Image.new("RGB", (parts[0].width, sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    whole.quantize(96, kmeans=3, dither=Image.Dither.NONE).save(OUT, optimize=True)


def pixels_of(streets: dm.datasets.Dataset, index: int) -> np.ndarray:
    """`(H, W, 3)` uint8."""
    return streets[index].image.permute(1, 2, 0).numpy()


def drawn(card: Card) -> Image.Image:
    """One card: doubt on the left, suspects on the right."""
    whole = Image.fromarray(overlay(card.image, card.doubt, (0.3, 1.0), opacity=0.6))
    height = round(WIDE * whole.height / whole.width)
    part = Image.new("RGB", (WIDE + 4 * (TILE + 10) + 10, height + LINE + 10), "white")
    part.paste(whole.resize((WIDE, height)), (0, LINE))
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
        crop.thumbnail((TILE, TILE + 40))
        left = WIDE + 10 + at * (TILE + 10)
        part.paste(crop, (left, LINE))
        said = (
            f"{suspect.class_name}?\ntouches any: {suspect.probability:.2f}\n"
            f"expected IoU: {suspect.expected_iou:.2f}"
        )
        pen.text((left, LINE + crop.height + 6), said, "black", font=ImageFont.load_default(13))
    return part


if __name__ == "__main__":
    main()
