"""`doubtmap info MODEL [IMAGE]` says what was understood, and which scores are possible."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from doubtmap.cli import app

NETWORK = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 4, 1))

def probabilities():
    return torch.nn.Sequential(network(), torch.nn.Upsample(scale_factor=2), torch.nn.Softmax(1))
"""


@pytest.fixture
def said(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")

    def run(function, *options):
        model = f"python:{tmp_path}/net.py:{function}"
        found = CliRunner().invoke(app, ["info", model, *options], catch_exceptions=False)
        return found.stdout

    run.image = str(tmp_path / "image.png")
    return run


def test_what_was_understood(said):
    text = said("network", said.image, "--classes", "sky,road,car,tree")
    assert "4: sky, road, car, tree" in text
    assert "from: assumed" in text and "mean [0.485" in text
    assert "16x24 for 32x48 pixels" in text
    assert "logits" in text and "features       8" in text
    assert "gradient       possible" in text
    assert "mutual_information not possible" in text
    assert " ms" in text


def test_scores_that_are_not_possible_say_why(said):
    text = said("probabilities", "--mean", "0,0,0", "--std", "1,1,1")
    assert "energy         not possible" in text and "from: given" in text
    assert "note           The network returns probabilities" in text


def test_without_a_network_it_says_versions():
    text = CliRunner().invoke(app, ["info"]).stdout
    assert text.startswith("doubtmap ") and "torch" in text
