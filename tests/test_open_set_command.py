"""`doubtmap evaluate --open-set`: thresholds by town, and what it refuses."""

import numpy as np
import pytest
from PIL import Image

from doubtmap.evaluation.results import read_results

NETWORK = """
import torch
from torch import nn

def build():
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    network[0].weight.data = torch.eye(3)[:2, :, None, None].clone()
    return network
"""
BACKGROUND, OTHER, ROAD, ANOMALY = 1, 4, 8, 14


@pytest.fixture
def evaluate(run, tmp_path):
    """Runs `doubtmap evaluate` on StreetHazards of one image in t5 and two in t6."""
    generator = np.random.default_rng(0)
    for town, frame in (("t5", 1), ("t6", 1), ("t6", 2)):
        label = generator.choice([BACKGROUND, ROAD, ANOMALY, OTHER], (16, 24)).astype(np.uint8)
        image = generator.integers(0, 256, (16, 24, 3)).astype(np.uint8)
        for folder, pixels in (("images", image), ("annotations", label)):
            path = tmp_path / "test" / folder / "test" / town / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "network.py").write_text(NETWORK)

    def call(*options, split="test"):
        given = ("--classes", "unlabeled,road", "--mean", "0,0,0", "--std", "1,1,1")
        model, data = f"python:{tmp_path}/network.py:build", f"streethazards:{tmp_path}:{split}"
        some = ("--scores", "max_logit,entropy", "--replicates", "20", "--out", tmp_path / "out")
        return run("evaluate", model, data, *given, *some, *options)

    return call


def test_both_towns_in_one_command(evaluate, tmp_path):
    code, _, err = evaluate("--open-set", "town")
    assert code == 0, err
    figures = read_results(tmp_path / "out" / "results.json")
    found = figures["open_set"]
    assert [(part["name"], part["images"]) for part in found["parts"]] == [
        ("streethazards:test/t5", 1),
        ("streethazards:test/t6", 2),
    ]
    alone = []
    for town, other in (("t5", "t6"), ("t6", "t5")):
        given = f"streethazards:{tmp_path}:{other}"
        code, _, err = evaluate("--open-set", given, split=town)
        assert code == 0, err
        alone.append(read_results(tmp_path / "out" / "results.json")["open_set"])
    for score in ("max_logit", "entropy"):
        one, two = (each["scores"][score] for each in alone)
        assert found["scores"][score]["miou"] == pytest.approx((one["miou"] + 2 * two["miou"]) / 3)
        for part, expected in zip(found["parts"], (one, two)):
            for key in ("threshold", "miou", "iou", "found", "false_alarms"):
                assert part["scores"][score][key] == expected[key]
    closed = [each["closed_miou"] for each in alone]
    assert found["closed_miou"] == pytest.approx((closed[0] + 2 * closed[1]) / 3)


def test_the_class_other_is_void_to_a_network_without_it(evaluate, tmp_path):
    code, _, err = evaluate("--open-set", "town")
    assert code == 0
    labels = [
        np.asarray(Image.open(path)) for path in (tmp_path / "test" / "annotations").rglob("*.png")
    ]
    counts = {value: sum(int((label == value).sum()) for label in labels) for value in range(15)}
    figures = read_results(tmp_path / "out" / "results.json")
    assert figures["data"]["pixels"] == {
        "known": counts[BACKGROUND] + counts[ROAD],
        "unknown": counts[ANOMALY],
        "void": counts[OTHER],
    }
    assert "other" in err and "which are void" in err


@pytest.mark.parametrize(
    ("open_set", "split", "code", "message"),
    [
        ("towns", "test", 2, "got towns, which is none of their fields. Such are "),
        ("town", "t6", 2, "streethazards:t6 with 2 to 10 values, got town, which has 1."),
        ("camvid", "test", 2, "expected a data set such as LAYOUT:PATH, or a field"),
        ("camvids:x", "test", 2, "Did you mean camvid?"),
        ("streethazards:nowhere", "test", 1, "nowhere"),
    ],
)
def test_errors_are_one_sentence(evaluate, tmp_path, open_set, split, code, message):
    found, _, err = evaluate("--open-set", open_set, split=split)
    assert (found, message in " ".join(err.split())) == (code, True), err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
