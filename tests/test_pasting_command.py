"""`doubtmap evaluate` with pasted objects and thresholds from other images."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from doubtmap.evaluation.results import read_results

NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
"""


@pytest.fixture
def evaluate(run, tmp_path):
    """Runs `doubtmap evaluate` on two small images of a yard."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        for folder, high, shape in (("images", 256, (24, 32, 3)), ("labels", 2, (24, 32))):
            (tmp_path / "yard" / folder).mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, high, shape).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "yard" / folder / f"{name}.png")
    (tmp_path / "yard" / "doubtmap.toml").write_text(
        'images = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n'
        "[classes]\nlawn = 0\ncar = 1\n"
    )
    (tmp_path / "network.py").write_text(NETWORK)

    def call(*options):
        given = ("--classes", "lawn,car", "--scores", "entropy", "--replicates", "20")
        model, data = f"python:{tmp_path}/network.py:build", f"folder:{tmp_path}/yard"
        return run("evaluate", model, data, *given, "--out", tmp_path / "out", *options)

    return call


@pytest.fixture
def things(tmp_path):
    """A dog and a car to paste, in one photograph."""
    root = tmp_path / "things"
    for folder in ("images", "polygons"):
        (root / folder).mkdir(parents=True)
    image = Image.new("RGB", (40, 40), (200, 30, 30))
    ImageDraw.Draw(image).rectangle((0, 0, 8, 8), fill=(0, 0, 0))
    image.save(root / "images" / "a.png")
    (root / "polygons" / "a.txt").write_text("16 0 0 0.2 0 0.2 0.2\n2 0.5 0.5 0.9 0.5 0.9 0.9\n")
    return root


def test_repeats_give_mean_and_deviation(evaluate, things, tmp_path):
    code, _, err = evaluate("--paste", things, "--repeats", "3", "--seed", "4")
    assert code == 0, err
    figures = read_results(tmp_path / "out" / "results.json")
    assert figures["data"]["name"] == "yard+things@4"
    assert figures["passes"]["data"] == [f"yard+things@{seed}" for seed in (4, 5, 6)]
    found = figures["passes"]["scores"]["entropy"]["unknown"]["auprc"]
    assert found["values"][0] == figures["scores"]["entropy"]["unknown"]["auprc"]
    assert found["deviation"] == pytest.approx(np.std(found["values"], ddof=1))
    assert found["deviation"] > 0
    assert figures["data"]["pixels"]["unknown"] == 2 * 36
    assert "1 of 2 objects were left out, since the network knows their classes: car." in err
    assert "AUPRC of the unknown over all: entropy" in err
    assert (tmp_path / "out" / "report.html").exists()


def test_the_same_command_gives_the_same_figures(evaluate, things, tmp_path):
    def figures(*options):
        assert evaluate("--paste", f"{things}", *options)[0] == 0
        return read_results(tmp_path / "out" / "results.json")["scores"]

    assert figures() == figures()


def test_chosen_classes_are_pasted_and_said(evaluate, things):
    code, _, err = evaluate("--paste", things, "--paste-only", "car")
    assert code == 0
    assert "(car) are pasted as unknown because you asked" in err


def test_thresholds_from_other_images(evaluate, things, tmp_path):
    code, _, err = evaluate("--paste", things, "--open-set", "synthetic:1")
    assert code == 2 and "same names" in err
    (tmp_path / "yard2").mkdir()
    toml = (tmp_path / "yard" / "doubtmap.toml").read_text()
    (tmp_path / "yard2" / "doubtmap.toml").write_text(
        toml.replace("car = 1", "car = 7").replace("[classes]", "unknown = 1\n[classes]")
    )
    for folder in ("images", "labels"):
        (tmp_path / "yard2" / folder).symlink_to(tmp_path / "yard" / folder)
    code, _, err = evaluate("--paste", things, "--open-set", f"folder:{tmp_path}/yard2")
    assert code == 0, err
    found = read_results(tmp_path / "out" / "results.json")["open_set"]
    assert found["threshold_from"] == "yard2"
    assert 0 < found["scores"]["entropy"]["false_alarms"] <= 1
    assert "Open-set mIoU, thresholds at 95% TPR on yard2: entropy" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--repeats", "2"), 2, "expected --paste with them"),
        (("--paste-only", "dog"), 2, "expected --paste with them"),
        (("--paste", "{things}", "--repeats", "0"), 2, "at least 1 pass"),
        (("--paste", "{things}:val"), 2, "PATH:train or PATH:test"),
        (("--paste", "{things}", "--paste-only", "wolf"), 2, "got wolf"),
        (("--paste", "{things}", "--paste-only", "cat"), 1, "none is left"),
        (("--paste", "{things}/nowhere"), 1, "expected a folder with images and outlines"),
        (("--paste", "{things}/images"), 1, "expected the folders images and polygons"),
    ],
)
def test_errors_are_one_sentence(evaluate, things, options, code, message):
    found, _, err = evaluate(*(option.replace("{things}", str(things)) for option in options))
    assert (found, message in err) == (code, True), err
    assert "Traceback" not in err
