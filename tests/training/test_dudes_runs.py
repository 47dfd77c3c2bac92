"""Runs of `--recipe dudes`: when one goes on, and which are refused."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_school import MUD, NAMES, QUICK, taught

from doubtmap.errors import UsageError
from doubtmap.models.distilled import FILE
from doubtmap.training import Dudes, Reporter, Settings, train
from doubtmap.training.networks import starting_network


def test_a_resumed_student_is_that_of_an_unbroken_run(school, training_set, tmp_path):
    class Stopped(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stopped

    settings = Settings(epochs=4, batch=4, workers=1)
    recipe = Dudes(school[2], cache=tmp_path / "cache")
    options = {"recipe": recipe, "model": school[2][0], "hold_out": MUD, "settings": settings}
    train(training_set, tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        train(training_set, tmp_path / "parts", report=Reporter(epoch=stop), **options)
    train(training_set, tmp_path / "parts", resume=True, **options)
    for name in ("model.safetensors", FILE):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    fewer = options | {"recipe": Dudes(school[2][:2], cache=tmp_path / "cache")}
    with pytest.raises(UsageError, match="expected the settings of the run"):
        train(training_set, tmp_path / "parts", resume=True, **fewer)


def test_a_students_own_folder_is_not_written_over_its_teacher(school, training_set):
    options = {"model": school[2][0], "hold_out": MUD, "settings": QUICK}
    with pytest.raises(UsageError, match="expected no run there, found one"):
        train(training_set, school[0] / "1", recipe=Dudes(school[2]), **options)


def test_frozen_training_needs_a_network_that_knows_its_classes(
    school, training_set, validation_set, tmp_path
):
    recipe = Dudes(school[2], freeze=True)
    options = {"recipe": recipe, "hold_out": MUD, "settings": QUICK}
    with pytest.raises(UsageError, match="--freeze: expected a network that was trained for grass"):
        train(training_set, tmp_path / "b", model="demo", **options)
    options["validation"] = validation_set
    with pytest.raises(UsageError, match=r"mIoU does not change. Leave --validation out"):
        train(training_set, tmp_path / "c", model=school[2][0], **options)
    for useless in ({"freeze": True}, {"hidden": 8}):
        with pytest.raises(UsageError, match="got mean, for which the network itself is trained"):
            Dudes(school[2], target="mean", **useless)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"class_weights": 0.5}, "expected no --class-weights, since nothing is learnt from"),
        ({"dropout": 0.1}, "expected no --dropout-rate, since the network is not in training"),
    ],
)
def test_settings_without_effect_on_a_frozen_network_are_refused(
    school, training_set, setting, sentence, tmp_path
):
    settings = Settings(epochs=1, batch=4, **setting)
    options = {"model": school[2][0], "hold_out": MUD, "settings": settings}
    with pytest.raises(UsageError, match=sentence):
        train(training_set, tmp_path, recipe=Dudes(school[2], freeze=True), **options)


def test_a_frozen_networks_own_rate_is_that_of_a_head(school):
    start = starting_network(school[2][0], NAMES)
    rates = [
        Dudes(school[2], hidden=n, freeze=f).rate(start) for n in (0, 8) for f in (True, False)
    ]
    assert rates == [0.02, 1e-4, 0.006, 1e-4]


def test_a_run_does_not_go_on_with_other_teachers_in_the_same_place(school, training_set, tmp_path):
    for name in "12":
        shutil.copytree(school[0] / name, tmp_path / name)
    names = tuple(taught(school[1], tmp_path, name) for name in "12")
    options = {"recipe": Dudes(names), "model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path / "out", **options)
    train(training_set, tmp_path / "out", resume=True, **options)
    weights = load_file(tmp_path / "2" / "model.safetensors")
    weights["4.bias"] += 1
    save_file(weights, tmp_path / "2" / "model.safetensors")
    with pytest.raises(UsageError, match=r"expected the settings of the run .*but teachers "):
        train(training_set, tmp_path / "out", resume=True, **options)


@pytest.mark.parametrize("changed", ["code", "mean"])
def test_a_run_does_not_go_on_with_teachers_whose_code_or_normalisation_changed(
    changed, school, stripes, training_set, tmp_path
):
    code = tmp_path / "net.py"
    code.write_text(Path(stripes.removeprefix("folder:"), "net.py").read_text())
    for name in "12":
        shutil.copytree(school[0] / name, tmp_path / name)
    names = tuple(taught(f"python:{code}:build", tmp_path, name) for name in "12")
    options = {"recipe": Dudes(names), "model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path / "out", **options)
    train(training_set, tmp_path / "out", resume=True, **options)
    if changed == "code":
        code.write_text(code.read_text() + "\n# another way\n")
    else:
        about = tmp_path / "2" / "doubtmap.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"mean": [0.4, 0.4, 0.4]}))
    with pytest.raises(UsageError, match=r"expected the settings of the run .*but teachers "):
        train(training_set, tmp_path / "out", resume=True, **options)
