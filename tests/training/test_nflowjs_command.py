"""`doubtmap train --recipe nflowjs`: options reach the run, and bad input is one sentence."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

import doubtmap as dm
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_file import write_flow


@pytest.fixture
def asked(stripes, network, tmp_path):
    quick = ["--hold-out", "mud", "--epochs", 1, "--batch", 4, "--workers", 1]
    recipe = ["--recipe", "nflowjs", "--flow-steps", 3, "--patch", "8-8"]
    return [
        *("train", f"{stripes}:train", "--model", network),
        *(*quick, *recipe, "--out", tmp_path / "run"),
    ]


def test_a_flow_is_trained_and_told_of_and_every_loss_drawn(run, asked, tmp_path):
    code, out, err = run(*asked)
    assert code == 0 and dm.load(out.strip()).class_names == ("grass", "stone", "water")
    assert "note: The flow" in err and "bits per dimension on held-out patches." in err
    assert "epoch 1: loss" in err and ", divergence 0.0" in err and ", bits " in err
    inner = tmp_path / "run" / "training"
    curves = (inner / "log.svg").read_text()
    for name in ("loss", "cross_entropy", "divergence", "bits"):
        assert f'aria-label="{name} by epoch"' in curves
    assert 'aria-label="held_out_bits by step"' in (inner / "flow.svg").read_text()


def test_settings_reach_the_run(run, asked, tmp_path):
    flow = tmp_path / "f.safetensors"
    torch.manual_seed(0)
    write_flow(flow, Flow(FlowShape(3, 1, 4)), bits=4.0)
    options = ["--negatives", "flow,noise", "--divergence", "kl", "--divergence-weight", 0.5]
    options += ["--flow", flow, "--freeze-flow", "--patch", "8-16"]
    assert run(*asked, *options)[0] == 0
    about = json.loads((tmp_path / "run" / "training" / "settings.json").read_text())["recipe"]
    assert about == {
        "name": "nflowjs",
        "negatives": "flow,noise",
        "divergence": "kl",
        "weight": 0.5,
        "flow": str(flow),
        "freeze_flow": True,
        "patch": [8, 16],
        "flow_steps": 3,
        "flow_rate": 1e-4,
    }


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
        (["--negatives", "gan"], 2, "expected some of flow, real:FOLDER, noise, shuffled, none"),
        (["--divergence", "js"], 2, "--divergence: expected one of jsd, kl, reverse-kl, got js."),
        (["--flow", "LATER"], 1, "expected a flow of format 1 that doubtmap train wrote, but it"),
        (["--flow", "nowhere"], 1, "Leave --flow out to train one."),
        (["--optimizer", "sgd"], 2, "expected adamw, with which a flow learns, got sgd."),
        (["--recipe", "plain"], 2, "expected nflowjs, the only one with --negatives"),
    ],
)
def test_bad_input_is_one_sentence(run, asked, tmp_path, monkeypatch, options, code, sentence):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("doubtmap.training.flow_file.FORMAT", 2)
    write_flow(tmp_path / "later.safetensors", Flow(FlowShape(3, 1, 4)))
    monkeypatch.undo()
    places = {"EMPTY": f"real:{tmp_path / 'empty'}", "LATER": tmp_path / "later.safetensors"}
    options = [places.get(str(o).removeprefix("real:"), o) for o in options]
    result, out, err = run(*asked, *options)
    assert (result, out) == (code, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("doubtmap: ") and sentence in last
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_two_processes_share_a_batch_and_a_flow(stripes, asked, network, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    arguments = [str(a) for a in asked]
    arguments[arguments.index("--model") + 1] = network.replace("build", "without_norm")
    code = "import torch; torch.set_num_threads(1); from doubtmap.cli import main; main()"
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--negatives", "flow,noise"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **where, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert (tmp_path / "run" / "training" / "flow-joint.safetensors").exists()
