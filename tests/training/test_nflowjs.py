"""`NFlowJS` from a data set to a folder: what is written, told of and learnt."""

import copy
import csv
import re

import pytest
import torch
from safetensors.torch import load_file
from tiny_flows import recipe_of, tiny_flow
from tiny_photographs import CAR, CAT, of_class, outlined, photographs
from tiny_school import NAMES

import doubtmap as dm
from doubtmap.datasets import Outlines
from doubtmap.datasets.pasting import Part
from doubtmap.errors import ModelError
from doubtmap.models.folders import photographs_learnt
from doubtmap.training import Plain, Reporter, Settings
from doubtmap.training.flow_training import read_flow, write_flow


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_training_writes_the_network_the_flow_and_every_loss(learn, training_set, tmp_path):
    trained, plain = learn(tmp_path / "n", recipe_of()), learn(tmp_path / "p", recipe_of("none"))
    assert weights(tmp_path / "n").keys() == weights(tmp_path / "p").keys()
    inner = tmp_path / "n" / "training"
    rows = list(csv.DictReader((inner / "log.csv").read_text().splitlines()))
    assert {"cross_entropy", "divergence", "bits", "loss"} <= rows[0].keys()
    for row in rows:
        terms = sum(float(row[name]) for name in ("cross_entropy", "divergence", "bits"))
        assert float(row["loss"]) == pytest.approx(terms)
    flows = [read_flow(inner / f"{name}.safetensors") for name in ("flow", "flow-joint")]
    assert not same(*(flow.state_dict() for flow, _ in flows))
    assert [about["classes"] for _, about in flows] == [list(NAMES)] * 2
    (note,) = trained.notes
    assert re.search(r" bits per dimension on \d+ held-out patches\.$", note) and plain.notes == ()
    prediction = dm.load(trained.model)(training_set[0].image[None])
    assert prediction.native_logits.shape[1] == 3


def test_notes_are_told_before_the_first_step(learn, tmp_path):
    photographs(tmp_path / "p", [(24, 24)])
    told = []
    report = Reporter(
        flow=lambda *_: told.append("flow"),
        step=lambda *_: told.append("step"),
        note=told.append,
    )
    trained = learn(tmp_path / "n", recipe_of(f"flow,real:{tmp_path / 'p'}"), report=report)
    assert len(trained.notes) == 2 and "1 photographs without outlines" in trained.notes[1]
    assert "Where they show grass, stone, water, mud, the network" in trained.notes[1]
    assert told == ["flow"] * 4 + list(trained.notes) + ["step"] * 4


def test_a_flow_that_had_one_image_says_that_it_judged_itself(
    learn, network, training_set, tmp_path
):
    options = {"model": network.replace("build", "without_norm")}
    options |= {"settings": Settings(epochs=1, batch=1, workers=1)}
    trained = learn(tmp_path / "n", recipe_of(), Part(training_set, (0,), "one"), **options)
    (note,) = trained.notes
    assert note.endswith(" bits per dimension on the image that it learnt from.")


def test_things_of_held_out_classes_are_never_pasted(learn, tmp_path, monkeypatch):
    taken, drawn = Outlines.__getitem__, set()

    def getitem(outlines, index):
        found = taken(outlines, index)
        drawn.add(found.class_name)
        return found

    monkeypatch.setattr(Outlines, "__getitem__", getitem)
    lines = of_class(CAT, 0), of_class(CAR, 1)
    folder = outlined(tmp_path / "coco", *lines, classes=("mud", "ball"))
    trained = learn(tmp_path / "n", recipe_of(f"real:{folder}"))
    (note,) = trained.notes
    assert "1 objects were left out" in note and note.endswith("held-out classes: mud.")
    assert drawn == {"ball"}


def test_a_network_learns_to_doubt_what_was_pasted(learn, training_set, tmp_path):
    """Noise as negative: afterwards its divergence is far above that of known content."""
    settings = Settings(epochs=20, batch=4, rate=0.01, workers=1, augment=False)
    doubts = {}
    for negatives in ("none", "noise"):
        trained = learn(tmp_path / negatives, recipe_of(negatives), settings=settings)
        segmenter = dm.load(trained.model)
        noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
        known = training_set[0].image[None]
        doubts[negatives] = [
            dm.scores.divergence(segmenter(x)).mean().item() for x in (noise, known)
        ]
    before, after = (noise / known for noise, known in doubts.values())
    assert after < 0.3 and after < 0.6 * before


def test_a_given_flow_is_taken_and_a_frozen_one_not_written(learn, tmp_path):
    write_flow(tmp_path / "f.safetensors", copy.deepcopy(tiny_flow()), bits=4.25, patches=32)
    recipe = recipe_of(flow=tmp_path / "f.safetensors", freeze_flow=True)
    trained = learn(tmp_path / "n", recipe)
    assert trained.notes[0].endswith("needs 4.250 bits per dimension on 32 held-out patches.")
    assert not list((tmp_path / "n" / "training").glob("flow*"))


def test_the_file_of_a_flow_that_learnt_twice_says_all_that_it_has_learnt(learn, tmp_path):
    write_flow(tmp_path / "f.safetensors", tiny_flow(), classes=["grass", "lava"])
    learn(tmp_path / "n", recipe_of(flow=tmp_path / "f.safetensors"))
    _, about = read_flow(tmp_path / "n" / "training" / "flow-joint.safetensors")
    assert sorted(about["classes"]) == sorted({*NAMES, "lava"})


def test_a_loss_that_is_not_finite_stops_it(learn, network, tmp_path):
    with pytest.raises(ModelError, match="finite loss, got nan in epoch 1"):
        learn(tmp_path / "n", recipe_of("noise"), model=network.replace("build", "wild"))


def test_what_another_run_left_of_its_flows_is_removed_but_not_the_flow_given(learn, tmp_path):
    inner = tmp_path / "n" / "training"
    inner.mkdir(parents=True)
    given = inner / "flow.safetensors"
    write_flow(given, tiny_flow())
    left = [inner / name for name in ("flow.csv", "flow-joint.safetensors", "flow-joint.png")]
    for path in left:
        path.write_text("of another run")
    learn(tmp_path / "n", recipe_of(flow=given, freeze_flow=True))
    assert given.exists() and not any(path.exists() for path in left)


def test_a_network_that_learns_on_remembers_what_was_negative(learn, network, tmp_path):
    photographs(tmp_path / "p", [(8, 8), (9, 9)])
    learn(tmp_path / "one", recipe_of(f"real:{tmp_path / 'p'}"))
    learn(tmp_path / "two", Plain(), model=f"{network}@{tmp_path / 'one'}")
    first, second = (photographs_learnt(str(tmp_path / name)) for name in ("one", "two"))
    assert len(first) == 2 and second == first
    assert photographs_learnt(f"python:net.py:build@{tmp_path / 'two'}") == first
    assert photographs_learnt("demo") == []
