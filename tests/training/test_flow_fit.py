"""The flow's own training: which patches it sees, how it goes on, and where it stops."""

import csv
from dataclasses import replace

import pytest
import torch
from tiny_flows import TINY

from doubtmap.datasets import VOID
from doubtmap.datasets.pasting import Part
from doubtmap.errors import DataError, ModelError
from doubtmap.training import flow_training
from doubtmap.training.batches import Batches
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import FlowTraining, parts_of, patches, pretrain, read_flow
from doubtmap.training.labels import Targets


@pytest.fixture
def batches(training_set):
    targets = Targets.of(training_set, ("grass", "stone", "water"))
    return Batches(training_set, targets, 4, (24, 32), seed=1, workers=1)


HOW = FlowTraining(steps=6, batch=16, side=8, shape=TINY)


def test_no_patch_has_a_void_pixel(batches):
    """Mud is held out; its colour never is in a patch."""
    learnt = parts_of(batches)[1]
    found = torch.cat([patch for _, patch in patches(learnt, 8, 16, 0, 0, 10)])
    grass, water = torch.tensor([40, 160, 60]) / 255, torch.tensor([40, 80, 200]) / 255
    assert len(found) > 20 and found.shape[1:] == (3, 8, 8)
    stripe = found.mean((2, 3))
    mud = torch.tensor([120, 80, 40]) / 255
    stone = torch.tensor([130, 130, 130]) / 255
    distance = torch.stack([(stripe - c).norm(dim=1) for c in (grass, water, stone, mud)])
    assert (distance.argmin(0) < 3).all()


@pytest.mark.parametrize(
    ("count", "judged"), [(2, [1]), (8, [7]), (10, [9]), (25, [22, 23, 24]), (40, [36, 37, 38, 39])]
)
def test_the_last_tenth_of_the_images_judges_a_flow_that_never_sees_it(batches, count, judged):
    """One block, as neighbours in a drive look alike."""
    whole = Part(batches.dataset, [index % 8 for index in range(count)], "some")
    parts = parts_of(replace(batches, dataset=whole, size=1))
    assert [list(part.dataset.indices) for part in parts] == [judged, list(range(judged[0]))]


def test_one_image_is_learnt_and_judges_itself(batches):
    whole = Part(batches.dataset, [5], "one")
    for part in parts_of(replace(batches, dataset=whole, size=1)):
        assert part.dataset is whole


@pytest.mark.parametrize(("count", "alone"), [(1, True), (2, False)])
def test_the_file_says_what_a_flow_has_learnt_and_what_judged_it(batches, tmp_path, count, alone):
    some = replace(batches, dataset=Part(batches.dataset, range(count), "some"), size=1)
    path, classes = tmp_path / "flow.safetensors", ("grass", "stone", "water")
    pretrain(some, HOW, path, device=torch.device("cpu"), classes=classes)
    _, about = read_flow(path)
    assert about["judged_on_its_own"] == alone and about["classes"] == list(classes)
    _, test = next(patches(parts_of(some)[0], HOW.side, flow_training.JUDGED, HOW.seed))
    assert 0 < about["patches"] == len(test) <= flow_training.JUDGED


def log_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_flow_learns_and_its_file_and_log_say_how_well(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_training, "TOLD_EVERY", 20)
    path = tmp_path / "flow.safetensors"
    pretrain(batches, FlowTraining(60, 16, 8, 1e-2, 0, TINY), path, device=torch.device("cpu"))
    rows = log_of(tmp_path / "flow.csv")
    bits = [float(row["held_out_bits"]) for row in rows]
    assert [row["step"] for row in rows] == ["20", "40", "60"] and bits[-1] < bits[0] < 8
    flow, about = read_flow(path)
    assert about["bits"] == pytest.approx(bits[-1]) and not path.with_suffix(".pt").exists()
    assert about["data"] == "stripes:train"
    noise = flow.bits(torch.rand(16, 3, 8, 8)).mean().item()
    assert noise > bits[-1] + 1, "what it never saw needs more bits"


def test_a_flow_that_was_stopped_goes_on_to_the_same_end(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_training, "TOLD_EVERY", 2)

    def stop(done, steps, bits):
        if done == 5:
            raise KeyboardInterrupt

    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    with pytest.raises(KeyboardInterrupt):
        pretrain(batches, HOW, one, device=torch.device("cpu"), told=stop)
    assert one.with_suffix(".pt").exists() and not one.exists()
    told = []
    for path in (one, two):
        pretrain(batches, HOW, path, device=torch.device("cpu"), told=lambda *x: told.append(x[0]))
    assert told == [5, 6, 1, 2, 3, 4, 5, 6]
    assert one.read_bytes() == two.read_bytes()
    assert log_of(one.with_suffix(".csv")) == log_of(two.with_suffix(".csv"))
    pretrain(batches, HOW, one, device=torch.device("cpu"), told=pytest.fail)


def test_a_last_step_without_a_patch_is_logged_all_the_same(batches, tmp_path, monkeypatch):
    """Four views start the flow, sixteen judge it, and each of six steps has four."""
    calls, drawing = [], flow_training.patch_corners

    def places(labels, size, drawn):
        corners, clean = drawing(labels, size, drawn)
        calls.append(size)
        return corners, clean & (not 40 < len(calls) <= 44)

    monkeypatch.setattr(flow_training, "patch_corners", places)
    path = tmp_path / "flow.safetensors"
    pretrain(batches, HOW, path, device=torch.device("cpu"))
    assert len(calls) >= 44
    last = float(log_of(path.with_suffix(".csv"))[-1]["held_out_bits"])
    assert last == pytest.approx(read_flow(path)[1]["bits"])


def test_a_damaged_checkpoint_of_a_flow_is_said(batches, tmp_path):
    (tmp_path / "flow.pt").write_text("no")
    with pytest.raises(DataError, match="Remove it to train the flow anew"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))


def with_a_gradient_that_is_none(bits):
    """The same number, whose derivative is not finite."""
    return bits + 0 * (bits - bits.detach()).sqrt()


@pytest.mark.parametrize(
    ("call", "broken", "what"),
    [
        (5, lambda bits: bits * float("nan"), "likelihood, got nan"),
        (5, with_a_gradient_that_is_none, "gradient, got nan"),
        (6, lambda bits: bits * float("inf"), "likelihood of held-out patches, got inf"),
    ],
    ids=["likelihood", "gradient", "held out"],
)
def test_a_flow_that_diverges_stops_with_the_last_good_checkpoint(
    batches, tmp_path, monkeypatch, call, broken, what
):
    """Two steps, the held-out patches, two steps, the held-out patches."""
    monkeypatch.setattr(flow_training, "TOLD_EVERY", 2)
    whole, calls = Flow.bits, []

    def bits(flow, images, generator=None):
        calls.append(images)
        found = whole(flow, images, generator)
        return broken(found) if len(calls) >= call else found

    monkeypatch.setattr(Flow, "bits", bits)
    words = rf"finite {what} in step 4 of its own training; the checkpoint of step 2 is kept\. "
    with pytest.raises(ModelError, match=words + "Train anew with another --seed"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))
    state = torch.load(tmp_path / "flow.pt", weights_only=True)
    assert state["rows"][-1]["step"] == 2
    assert all(part.isfinite().all() for part in state["flow"].values())
    assert len(log_of(tmp_path / "flow.csv")) == 1 and not (tmp_path / "flow.safetensors").exists()


def test_a_flow_that_diverges_before_its_first_checkpoint_says_so(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(Flow, "bits", lambda flow, images, generator: images.mean() / 0)
    with pytest.raises(ModelError, match=r"got inf in step 1 .*; no checkpoint is kept\."):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))
    assert not list(tmp_path.iterdir())


def test_data_without_a_patch_of_known_content_are_refused(batches, monkeypatch, tmp_path):
    monkeypatch.setattr(flow_training, "PATIENCE", 3)
    monkeypatch.setattr(Targets, "__call__", lambda self, sample: torch.full((24, 32), VOID))
    with pytest.raises(DataError, match="8x8 pixels without void, found none in 12 views"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))
