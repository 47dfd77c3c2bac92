"""Saved predictions on the command line: fitted to, judged and looked at as a network is."""

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.datasets import open_dataset


def pixels(image):
    eight = image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)
    return eight.permute(1, 2, 0).numpy()


@pytest.fixture
def saved(tmp_path):
    """The demonstration network's logits of four streets, saved by name; images beside them."""
    (folder := tmp_path / "saved").mkdir()
    (tmp_path / "images").mkdir()
    segmenter, streets = dm.load("demo"), open_dataset("synthetic:4")
    for index in range(len(streets)):
        image, name = streets[index].image, streets.sample_name(index)
        np.save(folder / f"{name}.npy", segmenter(image[None]).native_logits[0])
        Image.fromarray(pixels(image)).save(tmp_path / "images" / f"{name}.png")
    return f"saved:{folder}"


@pytest.mark.parametrize(
    ("fit", "use"),
    [
        (
            "threshold MODEL synthetic:4 --score entropy --of wrong --by f1 --out FILE",
            "threshold MODEL synthetic:4 --check FILE",
        ),
        (
            "fit wrong MODEL synthetic:4 --scores entropy,margin --out FILE",
            "evaluate MODEL synthetic:4 --scores wrong:FILE --out OUT",
        ),
        (
            "fit segments MODEL synthetic:4 --scores entropy,margin --out FILE",
            "review MODEL IMAGES --segments FILE --out OUT",
        ),
    ],
    ids=["threshold", "wrong", "segments"],
)
def test_what_is_fitted_to_saved_predictions_is_used_on_them(run, tmp_path, saved, fit, use):
    words = {"MODEL": saved, "IMAGES": tmp_path / "images"}
    words |= {"FILE": tmp_path / "fitted", "OUT": tmp_path / "out"}
    for command in (fit, use):
        code, _, said = run(
            *(
                words.get(word) or word.replace("FILE", str(words["FILE"]))
                for word in command.split()
            )
        )
        assert code == 0, said


def test_what_is_understood_of_saved_predictions(run, tmp_path, saved):
    code, said, wrong = run("info", saved, sorted((tmp_path / "images").iterdir())[0])
    assert code == 0, wrong
    assert "(saved)" in said


def test_what_is_said_of_saved_predictions(run, tmp_path, saved):
    image = next((tmp_path / "images").iterdir())
    code, out, _ = run("info", saved, image)
    assert code == 0 and "None" not in out and "saved predictions have no features" in out
    code, _, said = run("info", saved)
    assert code == 2 and "doubtmap info saved:FOLDER IMAGE" in said
    code, _, said = run("score", saved, image, "--format", "gif")
    assert code == 2 and "safetensors, geotiff, cog, got gif" in said
