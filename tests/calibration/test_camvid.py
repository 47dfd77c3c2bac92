"""Calibration of real networks, and what the benchmark's results must show."""

import functools

import pytest
import torch
import torch.nn.functional as F
from stages import read

import doubtmap as dm
from doubtmap.calibration import Identity, Remembered, Temperature, parse_method
from doubtmap.calibration.calibrate import choose
from doubtmap.calibration.comparison import compare
from doubtmap.engine import Pairs


@pytest.fixture
def camvid(shared):
    @functools.cache
    def load(network):
        return dm.load(shared / "models" / network)

    def open_pairs(network, split, indices):
        dataset = dm.open_dataset(f"camvid:{shared / 'data' / 'camvid'}:{split}")
        return Remembered(Pairs(load(network), dataset, indices=indices), features=False)

    return open_pairs


@pytest.mark.real_data
def test_the_temperature_is_the_optimum_over_all_pixels(camvid):
    pairs = camvid("camvid9-overconfident", "test", range(70, 230, 80))
    found = Temperature.fit(pairs).temperature
    inverse = torch.tensor(1 / found, dtype=torch.float64, requires_grad=True)
    losses, count = [], 0
    for prediction, label in pairs:
        keep = label >= 0
        logits = prediction.logits.movedim(1, -1)[keep].double() * inverse
        losses.append(F.cross_entropy(logits, label[keep], reduction="sum"))
        count += int(keep.sum())
    loss = torch.stack(losses).sum() / count
    (slope,) = torch.autograd.grad(loss, inverse)
    # the loss is convex in 1 / T, with a curvature of about 1 here: no slope, no better T
    assert abs(slope.item()) < 1e-4
    assert found > 1.3


@pytest.mark.real_data
def test_a_calibrated_network_is_left_alone(camvid):
    fit, other = range(0, 100, 33), range(16, 100, 33)
    raw = {"identity": Identity()}
    calm = camvid("camvid9", "val", other)
    harm = parse_method("selective(temperature=10,balance=4)")(camvid("camvid9", "val", fit))
    comparison = compare(calm, {**raw, "selective": harm}, block=1)
    assert comparison.ece("selective") > comparison.ece("identity") + 0.02
    assert choose(comparison)[0] == "identity"


@pytest.fixture(scope="module")
def rows():
    found = [row for row in read("calibration")["rows"] if "fitted_on" in row]
    return {(r["network"], r["fitted_on"], r["set"], r["name"]): r for r in found}


def test_the_benchmark_keeps_classes_where_methods_promise_it(rows):
    for (network, fitted_on, test, name), row in rows.items():
        alone = "deep ensemble" if name.startswith("deep ensemble") else "identity"
        raw = rows[network, fitted_on, test, alone]
        if not any(changes in name for changes in ("vector", "dirichlet")):
            assert row["accuracy"] == raw["accuracy"], (network, test, name)


def test_the_benchmark_leaves_the_calibrated_network_alone():
    content = read("calibration")
    for fitted_on in ("two day drives", "one day drive"):
        assert content["conditions"]["camvid9"][fitted_on]["auto"]["taken"] == "identity"


def test_the_benchmark_improves_the_overconfident_network(rows):
    at = ("camvid9-overconfident", "two day drives", "same drives")
    raw, best = rows[*at, "identity"], rows[*at, "temperature"]
    assert best["ece"] < 0.2 * raw["ece"]
    selective = rows[*at, "selective_confidence"]
    assert selective["ece_interval"][1] < raw["ece_interval"][0]
    assert selective["brier"] < best["brier"]


def test_calibration_costs_little_where_it_acts_on_native_logits():
    costs = read("calibration")["conditions"]["camvid9"]["cost"]
    assert costs["temperature"]["over_forward"] < 0.05
    assert costs["vector"]["over_forward"] < 0.05
    assert torch.tensor([row["seconds"] for row in costs.values()]).isfinite().all()
