"""Make the picture of docs/objects.md from the synthetic streets.

python scripts/make_object_pictures.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import doubtmap as dm
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.objects.find import class_indices
from doubtmap.objects.overlay import object_picture
from doubtmap.prediction import Segmenter

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "objects.png"
SCENE, WIDTH, GAP, LINE, COLOURS = 15, 690, 10, 26, 96


def chosen_threshold(segmenter: Segmenter) -> float:
    """The score of the best pixel F1 on other streets."""
    streets = dm.open_dataset("synthetic:24", seed=100)
    ranking = dm.metrics.Ranking()
    for index in range(len(streets)):
        sample = streets[index]
        score = dm.scores.pixel_gradient_norm(segmenter(sample.image[None]))[0]
        ranking.update(score, sample.label == dm.datasets.UNKNOWN, sample.label != -2)
    return ranking.curve.best_f1()[1]


def main() -> None:
    """Write `docs/pictures/objects.png`: all objects of a street, and those on the ground."""
    segmenter = dm.load("demo")
    sample = dm.open_dataset("synthetic:24")[SCENE]
    prediction = segmenter(sample.image[None])
    score = dm.scores.pixel_gradient_norm(prediction)[0]
    image = sample.image.permute(1, 2, 0).numpy()
    threshold = chosen_threshold(segmenter)
    ground = class_indices(["road", "pavement"], segmenter.class_names)
    titles = ("all objects", "--on road,pavement --fill-holes")
    rules = (ObjectRule(threshold), ObjectRule(threshold, on=ground, fill_holes=True))
    height = WIDTH * image.shape[0] // image.shape[1]
    sheet = Image.new("RGB", (2 * WIDTH + 3 * GAP, LINE + height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (title, rule) in enumerate(zip(titles, rules)):
        things = find_objects(score, prediction.classes[0], rule)
        shapes = [outlines(np.asarray(thing.mask), thing.box[:2]) for thing in things]
        picture = object_picture(image, things, shapes)
        left = GAP + place * (WIDTH + GAP)
        sheet.paste(picture.resize((WIDTH, height), Image.Resampling.LANCZOS), (left, LINE))
        font = ImageFont.load_default(15)
        draw.text((left, 4), f"{title}: {len(things)}", fill=(34, 34, 38), font=font)
    sheet.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
