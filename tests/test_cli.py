"""The command line, run in this process: outputs, exit codes, and errors of one sentence."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.cli.app import VERBS
from doubtmap.cli.options import NetworkOptions, WorkerOptions
from doubtmap.evaluation.results import read_results
from doubtmap.files.naming import unique_names
from doubtmap.reports import read_map

NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 3, 1))

def no_network():
    return 3
"""


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return f"python:{path}:build"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = generator.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def yard(tmp_path, photographs):
    """A labelled folder of the user's own."""
    labels = tmp_path / "labels"
    labels.mkdir()
    generator = np.random.default_rng(1)
    for name in ("a", "b", "c"):
        values = generator.choice([0, 1, 2, 9, 255], (24, 32)).astype(np.uint8)
        Image.fromarray(values).save(labels / f"{name}.png")
    (tmp_path / "doubtmap.toml").write_text(
        'images = "photographs/{frame}.png"\nlabels = "labels/{frame}.png"\n'
        "void = 255\nunknown = 9\n[classes]\nlawn = 0\npath = 1\nshed = 2\n"
    )
    return f"folder:{tmp_path}"


def test_evaluate_writes_results_and_a_report(run, network, yard, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = run(
        *("evaluate", network, yard, "--classes", "lawn,path,shed", "--out", out),
        *("--scores", "entropy,gradient(p=1)", "--replicates", "20"),
    )
    assert code == 0
    figures = read_results(out / "results.json")
    assert set(figures["scores"]) == {"entropy", "gradient(p=1)"}
    assert figures["command"].startswith("doubtmap evaluate")
    assert 0 < figures["scores"]["entropy"]["unknown"]["auprc"] < 1
    assert "gradient(p=1)" in printed
    assert "<svg" in (out / "report.html").read_text()


@pytest.mark.parametrize(("flag", "parse"), [("--json", json.loads), ("--csv", str.splitlines)])
def test_evaluate_prints_what_other_tools_can_read(run, network, yard, tmp_path, flag, parse):
    code, printed, _ = run(
        *("evaluate", network, yard, "--classes", "lawn,path,shed", flag),
        *("--scores", "entropy", "--replicates", "20", "--out", tmp_path / "out"),
    )
    assert code == 0
    assert parse(printed)


@pytest.mark.parametrize("format", ["png", "npy", "tiff", "safetensors"])
def test_score_writes_classes_maps_and_overlays(run, network, photographs, tmp_path, format):
    out = tmp_path / "out"
    scores = "entropy,gradient(p=1,label=uniform)"
    code, printed, _ = run(
        *("score", network, photographs, "--scores", scores, "--out", out, "--format", format)
    )
    assert code == 0
    assert "3 of 3 images scored" in printed
    doubt = read_map(out / "entropy" / f"a.{format}")
    assert doubt.shape == (24, 32)
    assert 0 <= doubt.min() < doubt.max() <= np.log(3) + 1e-6
    folder = json.loads((out / "score.json").read_text())["folders"][scores.split(",", 1)[1]]
    assert (read_map(out / folder / f"b.{format}") <= 0).all()
    with Image.open(out / "classes" / "c.png") as classes:
        assert set(np.unique(classes)) <= {0, 1, 2}
    assert (out / "overlay" / "a.jpg").exists()


def test_score_goes_on_where_it_stopped(run, network, photographs, tmp_path):
    out = tmp_path / "out"
    run("score", network, photographs, "--out", out)
    kept = out / "overlay" / "a.jpg"
    before = kept.stat().st_mtime_ns
    (out / "overlay" / "b.jpg").unlink()
    os.utime(out / "doubt" / "b.png", (0, 0))
    code, printed, _ = run("score", network, photographs, "--out", out, "--resume")
    assert code == 0
    assert "3 of 3 images scored" in printed
    assert kept.stat().st_mtime_ns == before
    assert (out / "doubt" / "b.png").stat().st_mtime > 0


def test_score_does_not_go_on_with_other_settings(run, network, photographs, tmp_path):
    out = tmp_path / "out"
    run("score", network, photographs, "--out", out)
    code, _, error = run(
        "score", network, photographs, "--out", out, "--resume", "--scores", "margin"
    )
    assert code == 2
    assert "scores differ" in error
    code, _, _ = run("score", network, photographs, "--out", out, "--scores", "margin")
    assert code == 0


def test_score_does_not_score_what_it_wrote(run, network, photographs):
    out = photographs / "doubt"
    for _ in range(2):
        code, printed, _ = run("score", network, photographs, "--out", out)
        assert code == 0
        assert "3 of 3 images scored" in printed


def test_names_that_differ_in_case_or_marks_only_stay_apart(tmp_path):
    paths = [tmp_path / name for name in ("a-b/f.png", "a_b/f.png", "a_b/F.jpg", "x/a_b_f.png")]
    names = unique_names(paths)
    assert len({name.casefold() for name in names.values()}) == 4


def test_no_readable_image_is_a_failure(run, network, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, _, error = run(
        *("score", network, tmp_path / "bad.png", "--skip-bad", "--out", tmp_path / "out")
    )
    assert code == 1
    assert "none of the 1 images" in error


def test_results_that_cannot_be_written_do_not_lose_the_run(run, network, yard, tmp_path):
    out = tmp_path / "out"
    (out / "results.json").mkdir(parents=True)
    asked = ("evaluate", network, yard, "--classes", "lawn,path,shed", "--out", out)
    code, _, error = run(*asked, "--replicates", "20")
    assert code == 1
    assert "Traceback" not in error
    (out / "results.json").rmdir()
    code, _, error = run(*asked, "--replicates", "20")
    assert code == 2
    assert "not finished" in error
    code, _, _ = run(*asked, "--replicates", "20", "--resume")
    assert code == 0
    assert read_results(out / "results.json")["model"]["features"] == 6


def test_notes_are_told(run, network, yard, tmp_path):
    out = tmp_path / "out"
    _, _, error = run("evaluate", network, yard, "--classes", "lawm,path,shed", "--out", out)
    assert "note: " in error
    assert "lawn" in error


def test_images_of_one_name_in_two_folders_do_not_overwrite_each_other(
    run, network, photographs, tmp_path
):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((photographs / "a.png").read_bytes())
    out = tmp_path / "out"
    run("score", network, photographs, other, "--out", out)
    assert len(list((out / "doubt").iterdir())) == 4


def test_a_truncated_image_is_named_or_counted(run, network, photographs, tmp_path):
    path = photographs / "b.png"
    path.write_bytes(path.read_bytes()[:200])
    out = tmp_path / "out"
    code, _, error = run("score", network, photographs, "--out", out)
    assert code == 1
    assert "b.png" in error
    assert "Traceback" not in error
    code, printed, _ = run("score", network, photographs, "--out", out, "--skip-bad")
    assert code == 0
    assert "2 of 3 images scored, 1 could not be used" in printed


MISUSE = [
    (["evaluate", "NETWORK", "YARD", "--scores", "entropi"], "Did you mean entropy"),
    (["evaluate", "NETWORK", "YARD", "--scores", "gradient(p=0)"], "expected p > 0"),
    (["evaluate", "NETWORK", "YARD", "--mean", "1,x"], "expected numbers such as"),
    (["evaluate", "NETWORK", "YARD", "--input-size", "12"], "HxW"),
    (["evaluate", "NETWORK", "YARD", "--component-sizes", "x"], "two numbers"),
    (["evaluate", "NETWORK", "YARD", "--unknown", "dragon"], "dragon"),
    (["evaluate", "NETWORK", "cityscape:x"], "cityscapes"),
    (["evaluate", "NETWORK"], "Missing argument"),
    (["score", "NETWORK", "PHOTOS", "--format", "bmp"], "png"),
    (["score", "python:gone.py:build", "PHOTOS"], "gone.py"),
    (["score", "NETWORK", "PHOTOS", "--scores", ""], "expected at least one"),
    (["no-such-verb"], "No such command"),
]
FAILURES = [
    (["evaluate", "NETWORK", "camvid:nowhere"], "nowhere"),
    (["score", "gone.onnx", "PHOTOS"], "gone.onnx"),
    (["score", "NETWORK", "nothing/*.jpg"], "nothing"),
]


def filled_in(arguments, network, yard, photographs):
    places = {"NETWORK": network, "YARD": yard, "PHOTOS": str(photographs)}
    return [places.get(argument, argument) for argument in arguments]


@pytest.mark.parametrize(("arguments", "says"), MISUSE)
def test_misuse_exits_with_2_and_says_what_to_do(run, network, yard, photographs, arguments, says):
    out = ["--out", photographs / "out"] if arguments[0] in ("score", "evaluate") else []
    code, _, error = run(*filled_in(arguments, network, yard, photographs), *out)
    assert code == 2
    assert says in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("arguments", "says"), FAILURES)
def test_failure_exits_with_1_and_says_what_to_do(run, network, yard, photographs, arguments, says):
    out = ["--out", photographs / "out"] if arguments[0] in ("score", "evaluate") else []
    code, _, error = run(*filled_in(arguments, network, yard, photographs), *out)
    assert code == 1
    assert says in error
    assert "Traceback" not in error


def test_a_label_of_no_class_is_named_with_its_file(run, network, yard, tmp_path):
    labels = np.zeros((24, 32), np.uint8)
    labels[3, 4] = 77
    Image.fromarray(labels).save(tmp_path / "labels" / "b.png")
    out = tmp_path / "out"
    code, _, error = run("evaluate", network, yard, "--classes", "lawn,path,shed", "--out", out)
    assert code == 1
    assert "b.png" in error
    assert "77" in error


def test_info_says_what_is_here(run):
    code, printed, _ = run("info")
    assert code == 0
    assert "torch" in printed


def test_the_verbs_are_those_of_the_contract():
    contract = {"demo", "score", "evaluate", "fit", "calibrate", "train"}
    more = {"analyse", "check", "export", "info", "locations", "objects", "review", "serve"}
    more |= {"labels", "merge", "table", "threshold", "view", "watch"}
    assert contract | more == set(VERBS)


def test_every_command_has_help(run):
    for command in VERBS:
        code, printed, _ = run(command, "--help")
        assert code == 0
        assert len(printed) > 100


def test_the_readme_names_commands_that_exist():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for line in readme.splitlines():
        words = line.split()
        if words[:1] == ["doubtmap"] and len(words) > 1:
            assert words[1] in VERBS, line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(run, network, photographs, tmp_path, monkeypatch, number):
    def stop(*_, **__):
        signal.raise_signal(number)

    monkeypatch.setattr("doubtmap.images.writing.passing", stop)
    code, _, error = run("score", network, photographs, "--out", tmp_path / "out")
    assert code == 1
    assert "--resume" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("workers", "begun", "threads"), [(1, 0, 3), (3, 0, 1), (3, 3, 3)])
def test_workers_of_other_threads_are_told(tmp_path, monkeypatch, caplog, workers, begun, threads):
    (tmp_path / "settings.json").write_text(json.dumps({"threads": begun}))
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    try:
        options = WorkerOptions(workers=workers)
        place = options.place(NetworkOptions(), "demo", 0, dm.load("demo"), tmp_path)
    finally:
        torch.set_num_threads(before)
    says = "PyTorch has 1 thread in each worker, and 3 in one process"
    assert place.threads == threads and (says in caplog.text) == (threads == 1)
