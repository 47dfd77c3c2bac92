"""`doubtmap info MODEL [IMAGE]` says what was understood, and which scores are possible."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import doubtmap as dm
from doubtmap.cli import app

NETWORK = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 4, 1))

class Queries(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.masks = torch.nn.Conv2d(3, 7, 4, 4)
        self.classes = torch.nn.Parameter(torch.randn(7, 5))

    def forward(self, x):
        return {"pred_logits": self.classes.expand(len(x), -1, -1), "pred_masks": self.masks(x)}

def queries():
    return Queries()

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


def test_which_score_suits_depends_on_the_kind_of_network(said):
    plain, queries = (said(name, said.image) for name in ("network", "queries"))
    assert "suited         doubt for unknown objects: an unknown object is often" in plain
    assert "suited         rejected for unknown objects: what no query claims" in queries
    assert "rejected       possible" in queries and "rejected       not possible" in plain


@pytest.mark.parametrize(("function", "score"), [("network", "doubt"), ("queries", "rejected")])
def test_commands_without_a_score_take_the_one_that_suits(said, tmp_path, function, score):
    model, out = f"python:{tmp_path}/net.py:{function}", tmp_path / "out"
    words = [model, said.image, "--mean", "0,0,0", "--std", "1,1,1", "--out", str(out)]
    CliRunner().invoke(app, ["score", *words], catch_exceptions=False)
    assert json.loads((out / "score.json").read_text())["folders"] == {score: score}
    CliRunner().invoke(app, ["objects", *words, "--threshold", "-0.5"], catch_exceptions=False)
    assert json.loads((out / "objects.json").read_text())["info"]["score"] == score


def test_all_scores_of_queries_begin_with_theirs_and_say_why(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    segmenter = dm.load(f"python:{tmp_path}/net.py:queries", mean=[0] * 3, std=[1] * 3)
    pairs = [(torch.rand(3, 24, 32), torch.randint(0, 4, (24, 32)))]
    data = dm.open_dataset(pairs, classes=["sky", "road", "car", "tree"])
    found = dm.evaluate(segmenter, data, scores="all", replicates=20)
    assert next(iter(found.figures["scores"])) == "rejected"
    assert "rejected suits this network best for unknown objects" in " ".join(
        found.figures["notes"]
    )
