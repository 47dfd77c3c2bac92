"""`NFlowJS` after a kill: it ends as an unbroken run, or says what is not the same."""

import json
import math
from shutil import copyfile

import pytest
import torch
from safetensors.torch import load_file
from tiny_flows import TINY, flow_of, recipe_of, tiny_flow
from tiny_photographs import CAT, outlined, photographs

from doubtmap.errors import UsageError
from doubtmap.training import Reporter
from doubtmap.training.flow_training import write_flow


class Stop(Exception):
    pass


def after_one_epoch(row):
    if row["epoch"] == 1:
        raise Stop


def same_weights(one, two):
    one, two = (load_file(folder / "model.safetensors") for folder in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("negatives", ["flow", "flow,noise"])
def test_resumed_it_ends_as_if_it_had_not_been_stopped(learn, tmp_path, negatives):
    recipe = recipe_of(negatives, flow_trust=0.2, flow_replay=True, flow_rate=0.01)
    with pytest.raises(Stop):
        learn(tmp_path / "a", recipe, report=Reporter(epoch=after_one_epoch))
    learn(tmp_path / "a", recipe, resume=True)
    learn(tmp_path / "b", recipe)
    assert same_weights(tmp_path / "a", tmp_path / "b")
    joint = (tmp_path / name / "training" / "flow-joint.safetensors" for name in "ab")
    assert len({path.read_bytes() for path in joint}) == 1
    with pytest.raises(UsageError, match=r"recipe .* became"):
        learn(tmp_path / "a", recipe_of(negatives, weight=0.1), resume=True)


def test_a_run_without_a_region_goes_on_from_settings_that_are_json(learn, tmp_path):
    """JSON has no infinity; earlier versions wrote it, and their runs go on, too."""
    recipe = recipe_of("flow", flow_trust=math.inf)
    with pytest.raises(Stop):
        learn(tmp_path, recipe, report=Reporter(epoch=after_one_epoch))
    path = tmp_path / "training" / "settings.json"
    settings = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert float(settings["recipe"]["flow_trust"]) == math.inf
    path.write_text(path.read_text().replace('"inf"', "Infinity"))
    with pytest.raises(UsageError, match=r"recipe \(flow_trust\) became others"):
        learn(tmp_path, recipe_of("flow", flow_trust=9.0), resume=True)
    learn(tmp_path, recipe, resume=True)
    assert (tmp_path / "model.safetensors").exists()


def test_a_flow_that_another_run_left_is_not_taken(learn, tmp_path):
    """A run that was killed in its flow's training, and another one anew in its folder."""

    def stop(done, steps, bits):
        raise Stop

    with pytest.raises(Stop):
        learn(tmp_path / "a", recipe_of(flow_steps=5), report=Reporter(flow=stop))
    write_flow(tmp_path / "a" / "training" / "flow.safetensors", tiny_flow(), bits=1.0, patches=1)
    trained = [learn(tmp_path / name, recipe_of()) for name in "ab"]
    assert "1.000 bits" not in trained[0].notes[0]
    assert same_weights(tmp_path / "a", tmp_path / "b")


def test_a_run_goes_on_with_the_same_flow_and_photographs_only(learn, tmp_path):
    """And where they are, with the same end."""
    flow, folder = tmp_path / "f.safetensors", tmp_path / "p"
    write_flow(flow, tiny_flow(), bits=4.0, patches=8)
    photographs(folder, [(24, 24)] * 2)
    recipe = recipe_of(f"flow,real:{folder}", flow=flow)
    with pytest.raises(Stop):
        learn(tmp_path / "a", recipe, report=Reporter(epoch=after_one_epoch))
    before = flow.read_bytes()
    write_flow(flow, flow_of(3, TINY, torch.float32, 0.05), bits=4.0, patches=8)
    with pytest.raises(UsageError, match=r"resume: .* but negatives .* became "):
        learn(tmp_path / "a", recipe, resume=True)
    flow.write_bytes(before)
    photographs(tmp_path / "more", [(24, 25)])
    (tmp_path / "more" / "0.png").rename(folder / "2.png")
    with pytest.raises(UsageError, match=r"resume: .* but negatives .* became "):
        learn(tmp_path / "a", recipe, resume=True)
    (folder / "2.png").unlink()
    learn(tmp_path / "a", recipe, resume=True)
    learn(tmp_path / "b", recipe)
    assert same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("change", ["copied", "renamed", "outlined"])
def test_a_run_goes_on_with_the_same_things_in_the_same_order_only(learn, tmp_path, change):
    """All that the draw of a thing depends on."""
    folder = tmp_path / "coco"
    outlined(folder)
    photographs(tmp_path / "p", [(24, 24)] * 2)
    recipe = recipe_of(f"real:{folder},real:{tmp_path / 'p'}")
    with pytest.raises(Stop):
        learn(tmp_path / "a", recipe, report=Reporter(epoch=after_one_epoch))
    if change == "copied":
        copyfile(tmp_path / "p" / "0.png", tmp_path / "p" / "2.png")
    elif change == "renamed":
        (tmp_path / "p" / "0.png").rename(tmp_path / "p" / "2.png")
    else:
        (folder / "polygons" / "1.txt").write_text(CAT)
    with pytest.raises(UsageError, match=r"resume: .* but negatives .* became "):
        learn(tmp_path / "a", recipe, resume=True)
