"""`doubtmap train --recipe nflowjs`: options reach the run, and bad input is one sentence."""

import json
import math
import re

import pytest
import torch
from apart import two_of_them
from tiny_photographs import photographs

import doubtmap as dm
from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.training import flow_training as flow_fit
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_training import read_flow, write_flow
from doubtmap.training.pictures import loss_chart


@pytest.fixture
def asked(stripes, network, tmp_path):
    quick = ["--hold-out", "mud", "--epochs", 1, "--batch", 4, "--workers", 1]
    return [
        *("train", f"{stripes}:train", "--model", network),
        *(*quick, "--recipe", "nflowjs", "--out", tmp_path / "run"),
    ]


@pytest.fixture
def with_flow(asked):
    """The same, with a flow that is trained in no time."""
    return [*asked, "--flow-steps", 3, "--patch", "8-8"]


def test_a_flow_is_trained_and_told_of_and_every_loss_drawn(run, with_flow, tmp_path):
    code, out, err = run(*with_flow)
    assert code == 0 and dm.load(out.strip()).class_names == ("grass", "stone", "water")
    assert re.search(
        r"note: The flow .* bits per dimension on \d+ held-out patches\.\nepoch 1", err
    )
    assert "epoch 1: loss" in err and ", divergence 0.0" in err and ", bits " in err
    inner = tmp_path / "run" / "training"
    curves = (inner / "log.svg").read_text()
    for name in ("loss", "cross_entropy", "divergence", "bits"):
        assert f'aria-label="{name} by epoch"' in curves
    assert 'aria-label="held_out_bits by step"' in (inner / "flow.svg").read_text()


def test_a_flow_that_diverges_leaves_its_curve_and_learns_from_another_seed(
    run, with_flow, tmp_path, monkeypatch
):
    """As the sentence says, and in the same folder."""
    judged = iter((5.0, 4.0, math.nan))
    monkeypatch.setattr(flow_fit, "TOLD_EVERY", 1)
    monkeypatch.setattr(flow_fit, "judge_flow", lambda flow, images: next(judged))
    code, out, err = run(*with_flow)
    assert (code, out) == (1, "") and "the checkpoint of step 2 is kept. Train anew with" in err
    log = (tmp_path / "run" / "training" / "flow.csv").read_text()
    assert [row.split(",")[-1] for row in log.splitlines()] == ["held_out_bits", "5.0", "4.0"]
    assert (tmp_path / "run" / "training" / "flow.svg").read_text() == loss_chart(log)
    monkeypatch.undo()
    code, _, err = run(*with_flow, "--seed", 1, "--resume")
    assert code == 2 and "seed 0 became 1" in err
    assert run(*with_flow, "--seed", 1)[0] == 0


def test_settings_reach_the_run(run, asked, tmp_path):
    flow = tmp_path / "f.safetensors"
    torch.manual_seed(0)
    write_flow(flow, Flow(FlowShape(3, 1, 4)), bits=4.0, patches=8)
    options = ["--negatives", "flow,noise", "--divergence", "kl", "--divergence-weight", 0.5]
    options += ["--flow", flow, "--freeze-flow", "--patch", "8-16"]
    assert run(*asked, *options)[0] == 0
    settings = json.loads((tmp_path / "run" / "training" / "settings.json").read_text())
    assert settings["negatives"].items() >= {"images": [], "flow": fingerprint_of(flow)}.items()
    assert settings["recipe"] == {
        "name": "nflowjs",
        "negatives": "flow,noise",
        "divergence": "kl",
        "weight": 0.5,
        "negative_class": False,
        "flow": str(flow),
        "freeze_flow": True,
        "patch": [8, 16],
        "flow_steps": 2000,
        "flow_rate": 1e-3,
        "flow_weight": None,
        "flow_trust": 6.0,
        "flow_replay": True,
        "held_out": [],
    }


def test_settings_of_a_flow_that_is_trained_reach_the_run(run, with_flow, tmp_path):
    photographs(tmp_path / "p", [(24, 24)])
    options = ["--negatives", f"flow,real:{tmp_path / 'p'}", "--flow-rate", 0.01]
    assert run(*with_flow, *options)[0] == 0
    settings = json.loads((tmp_path / "run" / "training" / "settings.json").read_text())
    assert (settings["recipe"]["flow_steps"], settings["recipe"]["flow_rate"]) == (3, 0.01)
    assert settings["negatives"]["images"] == [fingerprint_of(tmp_path / "p" / "0.png")]
    assert settings["negatives"]["flow"] is None
    log = (tmp_path / "run" / "training" / "flow.csv").read_text()
    assert log.splitlines()[-1].startswith("3,")


def test_a_note_is_told_once_and_as_it_is(run, asked, tmp_path):
    """Names that look like markup or emoji, which the terminal would draw."""
    folder = tmp_path / "[red]:car:"
    photographs(folder, [(24, 24)])
    code, _, err = run(*asked, "--negatives", f"real:{folder}")
    assert code == 0 and err.count("note: ") == 1
    assert f"\nnote: {folder}: 1 photographs without outlines" in f"\n{err}"
    assert err.index("note: ") < err.index("epoch 1: ")


@pytest.mark.parametrize("negatives", ["noise", "shuffled", "none"])
def test_negatives_without_a_flow(run, asked, tmp_path, negatives):
    code, _, err = run(*asked, "--negatives", negatives)
    assert code == 0 and "note:" not in err
    assert not (tmp_path / "run" / "training" / "flow.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--patch", "16-32"], 2, "fit into the crop of 24x32 pixels, got sides of 16 to 32."),
        (["--patch", "16"], 2, "--patch: expected MIN-MAX such as 16-80, got 16."),
        (["--patch", "12-20"], 2, "both multiples of 8 such as 16-80, got 12-20."),
        (["--negatives", "real:nowhere"], 1, "nowhere: expected an image file or a folder"),
        (["--negatives", "real:EMPTY"], 1, "expected images in this folder, found no file ending"),
        (["--negatives", "noise", "--flow-steps", 3], 2, "--flow-steps: has no effect where no"),
        (["--flow", "LATER", "--flow-steps", 3], 2, "--flow-steps: has no effect with --flow"),
        (["--flow", "SEEN"], 2, "expected a flow that has not seen the held-out mud, but"),
        (["--negatives", "gan"], 2, "expected some of flow, real:FOLDER, noise, shuffled, none"),
        (["--divergence", "js"], 2, "--divergence: expected one of jsd, kl, reverse-kl, got js."),
        (["--flow", "LATER"], 1, "expected a flow that doubtmap train wrote, but it"),
        (["--flow", "nowhere"], 1, "Leave --flow out to train one."),
        (["--optimizer", "sgd"], 2, "expected adamw, with which a flow learns, got sgd."),
        (
            ["--recipe", "plain", "--negatives", "none"],
            2,
            "expected nflowjs, the only one with --negatives",
        ),
    ],
)
def test_bad_input_is_one_sentence(run, asked, tmp_path, monkeypatch, options, code, sentence):
    (tmp_path / "empty").mkdir()
    flow = Flow(FlowShape(3, 1, 4))
    write_flow(tmp_path / "seen.safetensors", flow, classes=["grass", "mud"])
    monkeypatch.setattr("doubtmap.files.fitted.FORMAT", 3)
    write_flow(tmp_path / "later.safetensors", flow)
    monkeypatch.undo()
    places = {"real:EMPTY": f"real:{tmp_path / 'empty'}"}
    places |= {name: tmp_path / f"{name.lower()}.safetensors" for name in ("LATER", "SEEN")}
    result, out, err = run(*asked, *(places.get(option, option) for option in options))
    assert (result, out) == (code, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("doubtmap: ") and sentence in last
    assert not (tmp_path / "run").exists()


def test_two_processes_share_a_batch_and_a_flow(with_flow, network, tmp_path):
    trust = ("--flow-trust", "1e-4", "--flow-replay")
    words = [*with_flow, "--negatives", "flow,noise", *trust]
    words[words.index("--model") + 1] = network.replace("build", "without_norm")
    said = two_of_them(tmp_path, *words)
    assert [code for code, _, _ in said] == [0, 0], said
    _, about = read_flow(tmp_path / "run" / "training" / "flow-joint.safetensors")
    assert about["steps_back"] > 0
