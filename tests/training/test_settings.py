import math
from itertools import pairwise

import pytest
import torch

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.training import Settings
from doubtmap.training.folder import Folder
from doubtmap.training.labels import trained_classes
from doubtmap.training.optimizing import check_finite, optimizer_of, precision_of, set_rate
from doubtmap.training.settings import rate_factor


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch", 0),
        ("workers", 0),
        ("validate_every", 0),
        ("rate", 0.0),
        ("rate", math.nan),
        ("rate", math.inf),
        ("weight_decay", -1.0),
        ("clip", math.inf),
        ("class_weights", 1.5),
        ("class_weights", math.nan),
        ("warmup", 1.0),
        ("dropout", 1.0),
        ("crop", (0, 5)),
        ("optimizer", "adm"),
        ("schedule", "linear"),
        ("precision", "half"),
    ],
)
def test_settings_that_make_no_sense_are_refused(option, value):
    with pytest.raises(UsageError, match=f"train: expected {option} to be .*, got "):
        Settings(**{option: value})


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_the_rate_rises_once_and_then_never(schedule):
    factors = [rate_factor(step, 100, schedule, 0.1) for step in range(100)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[0] == pytest.approx(0.1, rel=0.02) and max(factors) > 0.9
    steps = [later - earlier for earlier, later in pairwise(factors)]
    assert all(step > 0 for step in steps[:9]) and all(step <= 0 for step in steps[9:])
    assert rate_factor(0, 100, schedule, 0.0) == 1


def test_rate_known_answers():
    assert rate_factor(50, 100, "poly", 0) == pytest.approx(0.5**0.9)
    assert rate_factor(50, 100, "cosine", 0) == pytest.approx(0.5)
    assert rate_factor(99, 100, "constant", 0) == 1


def test_only_weights_of_two_axes_decay_and_all_follow_the_rate():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        settings = Settings(optimizer=name, weight_decay=0.3, schedule="cosine", warmup=0)
        optimizer = optimizer_of(network, settings, 0.1)
        assert isinstance(optimizer, kind)
        decays = [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups]
        assert decays == [(1, 0.3), (3, 0.0)]
        assert set_rate(optimizer, settings, 0.1, 5, 10) == pytest.approx(0.05)
        assert {group["lr"] for group in optimizer.param_groups} == {
            optimizer.param_groups[0]["lr"]
        }


def test_precision():
    cpu = torch.device("cpu")
    assert precision_of("auto", cpu) is torch.float32
    assert precision_of("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(ModelError, match="expected a GPU for float16"):
        precision_of("float16", cpu)


def test_a_loss_that_is_not_finite_names_the_epoch():
    check_finite(1.0, 3, "loss")
    with pytest.raises(ModelError, match=r"got nan in epoch 4; the checkpoint of epoch 3 is kept"):
        check_finite(math.nan, 3, "loss")
    with pytest.raises(ModelError, match=r"in epoch 1; there is no checkpoint yet. Lower --rate"):
        check_finite(math.inf, 0, "gradient")


def test_held_out_classes(training_set):
    assert trained_classes(training_set, ["Water"]) == ("grass", "stone", "mud")
    with pytest.raises(UsageError, match=r"among grass, .*, got watr. Did you mean water\?"):
        trained_classes(training_set, ["watr"])
    with pytest.raises(UsageError, match="at least two classes to be left, got 1"):
        trained_classes(training_set, ["grass", "stone", "mud"])


def hold(folder, settings, *, resume):
    with folder.held(settings, resume=resume):
        pass


def test_a_folder_is_held_to_its_settings_and_by_one_run(tmp_path, caplog):
    folder = Folder(tmp_path / "run")
    hold(folder, {"rate": 1}, resume=True)  # as of a run that was killed in its first second
    assert "found no run to go on with, and begins one" in caplog.text
    with (
        folder.held({"rate": 1}, resume=False),
        pytest.raises(UsageError, match="another run is using it"),
    ):
        hold(folder, {"rate": 1}, resume=True)
    hold(folder, {"rate": 1}, resume=False)  # nothing was done, so nothing is lost
    (folder.inner / "checkpoint.pt").touch()
    with pytest.raises(UsageError, match=r"no run there, found one\. Pass --resume"):
        hold(folder, {"rate": 1}, resume=False)
    with pytest.raises(UsageError, match="but rate 1 became 2"):
        hold(folder, {"rate": 2}, resume=True)
    hold(folder, {"rate": 1}, resume=True)


def test_a_folder_with_somebodys_network_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="a folder without a network, found one"):
        hold(Folder(tmp_path), {}, resume=False)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = Folder(tmp_path)
    with folder.held({}, resume=False):
        assert folder.checkpoint(torch.device("cpu")) is None
        (folder.inner / "checkpoint.pt").write_bytes(b"half")
        with pytest.raises(DataError, match="expected a checkpoint, but it cannot be read"):
            folder.checkpoint(torch.device("cpu"))


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        hold(Folder(tmp_path / "file" / "run"), {}, resume=False)
