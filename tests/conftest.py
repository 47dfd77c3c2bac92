"""What all tests share: one thread, since small tensors are slower on two; a small network and
small streets, so that whole runs take a second.
"""

import functools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

import doubtmap as dm
from doubtmap.cli import main
from doubtmap.streets import synthetic
from doubtmap.streets.synthetic import SyntheticStreets

SHARED = Path(__file__).parents[1].parent / "shared"

torch.set_num_threads(1)
# A busy machine is no failure, nor is what is imported at a first example.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def shared():
    """The folder of real images and networks, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real images and networks (../shared) are not here")
    return SHARED


SMALL = (96, 144)
"""Height and width of the streets that tests of the command draw."""


@pytest.fixture
def small_streets(monkeypatch):
    """Let `synthetic:N` be of small streets."""
    monkeypatch.setattr(
        synthetic, "SyntheticStreets", functools.partial(SyntheticStreets, size=SMALL)
    )


@pytest.fixture
def run(monkeypatch, capsys, small_streets):
    """Run a command line over small streets; returns exit code, stdout and stderr.

    An evaluation takes twenty replicates where it does not say how many: most are of tiny images,
    whose bootstrap would take longer than all else.
    """

    def call(*arguments):
        words = [*map(str, arguments)]
        if words[:1] == ["evaluate"] and words[1:] and "--replicates" not in words:
            words += ["--replicates", "20"]
        monkeypatch.setattr(sys, "argv", ["doubtmap", *words])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


CLASSES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")


class TinyNetwork(nn.Module):
    """Two convolutions at stride 4 and a 1x1 classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.classifier = nn.Conv2d(8, len(CLASSES), 1)

    def forward(self, x):
        logits = self.classifier(self.body(x).relu())
        return nn.functional.interpolate(logits, x.shape[-2:], mode="bilinear")


@pytest.fixture
def fresh_segmenter():
    """Makes segmenters that have seen no image yet."""
    return lambda: dm.load(TinyNetwork(), classes=CLASSES)


@pytest.fixture
def segmenter(fresh_segmenter):
    return fresh_segmenter()


@pytest.fixture
def streets():
    return SyntheticStreets(6, seed=3, size=(64, 96))
