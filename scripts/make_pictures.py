"""Make the pictures of the README and the docs from the synthetic streets.

python scripts/make_pictures.py
"""

from pathlib import Path

import numpy as np
from panel import panel

import doubtmap as dm

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SCENE = 1


def main() -> None:
    """Write `docs/pictures/street.png`: image, labels, prediction and doubt of one street."""
    segmenter = dm.load("demo")
    streets = dm.open_dataset("synthetic:24")
    sample = streets[SCENE]
    prediction = segmenter(sample.image[None])
    picture = panel(
        sample.image.permute(1, 2, 0).numpy(),
        sample.label.numpy(),
        prediction.classes[0].numpy().astype(np.int16),
        dm.scores.entropy(prediction)[0].numpy(),
        segmenter.class_names,
    )
    PICTURES.mkdir(exist_ok=True)
    picture.save(PICTURES / "street.png", optimize=True)


if __name__ == "__main__":
    main()
