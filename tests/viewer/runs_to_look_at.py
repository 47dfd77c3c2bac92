"""Runs to look at: small drawn streets, two tiny networks, and photographs with hostile names."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import doubtmap as dm
from doubtmap.evaluation.evaluate import Options, evaluate
from doubtmap.evaluation.report import write_evaluation
from doubtmap.images import write_scores
from doubtmap.objects import ObjectRule
from doubtmap.objects.writing import write_objects
from doubtmap.scores import entropy, margin
from doubtmap.streets.synthetic import SyntheticStreets

HOSTILE = "<img src=x onerror=document.title='owned'>"
FORMULA = "=cmd()"
CLASSES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")


def network(seed, turned=0):
    """Eight classes; `turned` has them in another order, and says the same of every pixel."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 1))
    for values in body[-1].parameters():
        values.data = values.data.roll(turned, 0)
    up = nn.Upsample(scale_factor=4, mode="bilinear")
    return dm.load(nn.Sequential(body, up), classes=[*CLASSES[-turned:], *CLASSES[:-turned]])


def evaluated(seed, out, resume=False, turned=0):
    streets = SyntheticStreets(4, seed=3, size=(64, 96))
    options = Options(maps=out, save=lambda results: write_evaluation(results, out), examples=1)
    scores = {"entropy": entropy, "margin": margin}
    more = {"out": out, "resume": resume, "options": options}
    evaluate(network(seed, turned), streets, scores, unknown="rest", replicates=20, **more)
    return out


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders: two evaluations of the same streets, a run of `score` and two of `objects`."""
    place = tmp_path_factory.mktemp("runs")
    streets = SyntheticStreets(3, seed=5, size=(64, 96))
    paths = [place / f"{name}.png" for name in (HOSTILE, FORMULA, "plain")]
    for at, path in enumerate(paths):
        Image.fromarray(streets[at].image.permute(1, 2, 0).numpy()).save(path)
    score = {"entropy": entropy}
    write_scores(network(0), paths, score, place / "scored")
    for name, limit in (("objects", 1.9), ("more", 1.8)):
        rule = ObjectRule(threshold=limit)
        write_objects(network(0), paths, ("entropy", entropy), rule, place / name)
    return SimpleNamespace(
        first=evaluated(0, place / "first"),
        second=evaluated(1, place / "second"),
        turned=evaluated(0, place / "turned", turned=3),
        scored=place / "scored",
        objects=place / "objects",
        more=place / "more",
        photographs=paths,
    )
