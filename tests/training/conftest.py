"""A data set of stripes that a tiny network can learn, on disk, so that other processes see it.

And three teachers that did.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_school import MUD, QUICK, taught

from doubtmap.datasets import open_dataset
from doubtmap.training import train

NETWORK = """
from torch import nn


def build(classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(8, classes, 1),
    )


def without_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))


def four():
    return build(4)


def wild():
    network = without_norm()
    network[2].weight.data.fill_(float("nan"))
    return network


def softmax():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(1))
"""

DESCRIPTION = """
name = "stripes"
images = "images/{split}/{frame}.png"
labels = "labels/{split}/{frame}.png"
void = 255
split = "train"
[classes]
grass = 0
stone = 1
water = 2
mud = 3
"""


def write_stripes(folder, split, count, seed):
    random = np.random.default_rng(seed)
    colours = np.array([[40, 160, 60], [130, 130, 130], [40, 80, 200], [120, 80, 40]])
    for part in ("images", "labels"):
        (folder / part / split).mkdir(parents=True)
    for index in range(count):
        label = np.repeat(random.permutation(4), 6)[:, None].repeat(32, 1)
        image = (colours[label] + random.normal(0, 25, (24, 32, 3))).clip(0, 255)
        label = np.where(random.random((24, 32)) < 0.02, 255, label)
        for part, array in (("images", image), ("labels", label)):
            picture = Image.fromarray(array.astype(np.uint8))
            picture.save(folder / part / split / f"{index:02d}.png")


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """`folder:PATH`, with the splits train (8 images) and val (4) of 24 x 32 pixels."""
    folder = tmp_path_factory.mktemp("stripes")
    write_stripes(folder, "train", 8, 0)
    write_stripes(folder, "val", 4, 1)
    (folder / "doubtmap.toml").write_text(DESCRIPTION)
    (folder / "net.py").write_text(NETWORK)
    return f"folder:{folder}"


@pytest.fixture
def training_set(stripes):
    return open_dataset(f"{stripes}:train")


@pytest.fixture
def validation_set(stripes):
    return open_dataset(f"{stripes}:val")


@pytest.fixture
def network(stripes):
    """`python:FILE:build`, three classes; hold `mud` out."""
    return f"python:{stripes.removeprefix('folder:')}/net.py:build"


@pytest.fixture(scope="session")
def school(stripes, tmp_path_factory):
    """Three teachers, `1`, `2` and `3`, and the network's maker."""
    folder = tmp_path_factory.mktemp("school")
    network = f"python:{stripes.removeprefix('folder:')}/net.py:build"
    data = open_dataset(f"{stripes}:train")
    train(data, folder, model=network, hold_out=MUD, settings=QUICK, members=3)
    names = tuple(taught(network, folder, name) for name in "123")
    torch.manual_seed(0)
    for name in "23":  # so short a training from one seed does not make them disagree
        weights = load_file(folder / name / "model.safetensors")
        weights["4.weight"] += 0.7 * torch.randn_like(weights["4.weight"])
        save_file(weights, folder / name / "model.safetensors")
    return folder, network, names


@pytest.fixture
def learn(training_set, network):
    """`train` of a recipe on the stripes but mud, with small settings; other options replace."""

    def call(out, recipe, dataset=training_set, **options):
        usual = {"model": network, "hold_out": MUD, "settings": QUICK}
        return train(dataset, out, recipe=recipe, **(usual | options))

    return call
