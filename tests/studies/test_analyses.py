"""The four analyses: what they compare, and what they say of right and wrong pixels."""

import json
import sys

import pytest
import torch

import doubtmap as dm
from doubtmap.cli import main
from doubtmap.cli.options import NetworkOptions
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.studies.analyses import Windowed, analyse


class PixelNetwork:
    """Logits that depend on a pixel's own colour only, so that windows change nothing."""

    class_names = ("road", "sky")
    description = {"source": "pixel"}  # noqa: RUF012

    def __call__(self, images):
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return Prediction(4 * x[:, :2], (x.shape[-2], x.shape[-1]))


@pytest.mark.parametrize("side", [8, 13, 40, 10**20])
def test_windows_are_put_together_where_they_were(side):
    images = torch.rand(2, 3, 21, 30)
    whole = PixelNetwork()(images)
    assert isinstance(Windowed(PixelNetwork(), side), Segmenter)
    assert torch.equal(Windowed(PixelNetwork(), side)(images).logits, whole.logits)


def test_windows_do_not_see_what_lies_around():
    class Mean(PixelNetwork):
        def __call__(self, images):
            level = images.mean((1, 2, 3), keepdim=True).expand(-1, 2, *images.shape[-2:])
            return Prediction(level * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1), images.shape[-2:])

    images = torch.zeros(1, 3, 16, 32)
    images[..., 16:] = 1.0
    found = Windowed(Mean(), 16)(images).logits[0, 0]
    assert (found[:, :16] == 0).all() and (found[:, 16:] == 1).all()


def test_windows_that_make_no_sense():
    with pytest.raises(dm.UsageError, match="8 pixels"):
        Windowed(PixelNetwork(), 4)


def test_right_and_wrong_pixels_are_told_apart():
    """By the definition of the subsets: confidence of the wrong ones, 1 - that of the right."""
    streets, segmenter = SyntheticStreets(2, size=(64, 64)), dm.load("demo")
    row = analyse({"demo": segmenter}, streets)["demo"]
    confidence, right = [], []
    for index in range(2):
        prediction = segmenter(streets[index].image[None])
        names = [
            segmenter.class_names.index(n) if n in segmenter.class_names else -1
            for n in streets.class_names
        ]
        label = torch.tensor([*names, -1, -1, -1])[streets[index].label.long()]
        there = label >= 0
        confidence.append(prediction.probabilities.amax(1)[0][there])
        right.append((prediction.classes[0] == label)[there])
    confidence, right = torch.cat(confidence), torch.cat(right)
    assert row["ece_wrong"] == pytest.approx(confidence[~right].mean().item(), abs=1e-5)
    assert row["ece_right"] == pytest.approx(1 - confidence[right].mean().item(), abs=1e-5)
    assert row["accuracy"] == pytest.approx(right.float().mean().item())
    assert sum(row["confidence_wrong"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("correctness", "demo"), ["demo"]),
        (("crop", "demo", "--sizes", "64"), ["window 64", "whole image"]),
        (("multiscale", "demo", "--scales", "0.5,1"), ["one scale", "scales 0.5,1"]),
    ],
)
def test_the_command_prints_a_row_for_each_and_writes_a_page(
    monkeypatch, capsys, tmp_path, words, rows
):
    kind, *rest = words
    page = tmp_path / "page.html"
    line = ["doubtmap", "analyse", kind, rest[0], "synthetic:1", *rest[1:]]
    monkeypatch.setattr(sys, "argv", [*line, "--json", "--out", str(page)])
    with pytest.raises(SystemExit, match="0"):
        main()
    found = json.loads(capsys.readouterr().out)
    assert list(found) == rows
    assert all(0 < row["ece"] < 1 and 0 < row["miou"] < 1 for row in found.values())
    assert page.read_text().count("<svg") == 1 + len(rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("size", "demo"), "capacity, crop"),
        (("capacity", "demo"), "--against"),
        (("crop", "demo", "--sizes", "big"), "128,256"),
        (("crop", "demo", "--sizes", "inf"), "128,256"),
        (("crop", "demo", "--sizes", "16.5"), "whole numbers"),
        (("multiscale", "demo", "--scales", "nan"), "0.75,1,1.25"),
        (("multiscale", "demo", "--scales", "1,inf"), "0.75,1,1.25"),
    ],
)
def test_misuse(monkeypatch, capsys, words, says):
    kind, model, *rest = words
    monkeypatch.setattr(sys, "argv", ["doubtmap", "analyse", kind, model, "synthetic:1", *rest])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert says in capsys.readouterr().err


def test_the_seed_reaches_the_network(monkeypatch, capsys):
    seeds = []

    def opened(self, model, seed=0):
        seeds.append(seed)
        return dm.load(model)

    monkeypatch.setattr(NetworkOptions, "open", opened)
    line = ["doubtmap", "analyse", "capacity", "demo", "synthetic:1", "--against", "demo"]
    monkeypatch.setattr(sys, "argv", [*line, "--seed", "7"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert seeds == [7, 7]
