"""Temperature scaling reaches the optimum, and says where there is none."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from worlds import honest_pairs

import doubtmap as dm
from doubtmap.calibration import Temperature, TemperatureMix
from doubtmap.calibration.optimum import minimise
from doubtmap.calibration.pixels import Pixels, draw_pixels
from doubtmap.calibration.temperature import best_inverse
from doubtmap.prediction import Prediction


def exact_loss(pairs, temperature):
    """Mean NLL of all pixels, in float64."""
    losses = [
        F.cross_entropy(p.logits.double() / temperature, label.clamp_min(0), reduction="none")[
            label >= 0
        ]
        for p, label in pairs
    ]
    return torch.cat(losses).mean().item()


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.78, 25.0])
def test_it_is_the_optimum_over_all_pixels(factor):
    pairs = honest_pairs(factor=factor)
    found = Temperature.fit(pairs).temperature
    oracle = minimize_scalar(
        lambda t: exact_loss(pairs, math.exp(t)), bracket=(-2, 3), options={"xtol": 1e-9}
    )
    assert found == pytest.approx(math.exp(oracle.x), rel=1e-4)
    assert found == pytest.approx(factor, rel=0.1)


def test_a_small_sample_is_put_right_by_the_pass_over_all_pixels(monkeypatch):
    pairs = honest_pairs(factor=1.78)
    monkeypatch.setattr("doubtmap.calibration.pixels.FEWEST", 10)
    sample = draw_pixels(pairs, values=1000)
    assert len(sample.labels) < 300
    rough = 1 / best_inverse(sample)
    monkeypatch.setattr("doubtmap.calibration.temperature.draw_pixels", lambda *_, **__: sample)
    exact = Temperature.fit(pairs).temperature
    oracle = minimize_scalar(lambda t: exact_loss(pairs, t), bracket=(1, 2), tol=1e-9).x
    assert abs(exact - oracle) < 1e-4 < abs(rough - oracle)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 50.0))
def test_logits_times_k_need_k_times_the_temperature(k):
    (pair,) = honest_pairs(1)
    pixels = draw_pixels([pair])
    scaled = Pixels(pixels.values * k, pixels.labels, pixels.weights, pixels.classes, 4)
    assert best_inverse(scaled) * k == pytest.approx(best_inverse(pixels), rel=1e-5)


def test_it_commutes_with_the_resize(quarter):
    after = Temperature(temperature=1.7)(quarter)
    assert torch.allclose(after.logits, quarter.logits / 1.7, atol=1e-6)


def test_a_temperature_of_one_changes_nothing(quarter):
    assert torch.equal(Temperature(temperature=1.0)(quarter).logits, quarter.logits)


def test_labels_in_another_order_are_noticed():
    pairs = [(p, torch.where(label >= 0, p.logits.argmin(1), label)) for p, label in honest_pairs()]
    with pytest.raises(dm.DataError, match="infinite"):
        Temperature.fit(pairs)


def test_mistakes_at_the_verge_only_are_noticed():
    """All wrong pixels lie at ties: the likelihood grows with every smaller temperature."""
    logits = torch.tensor([[3.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    with pytest.raises(dm.DataError, match="confident"):
        Temperature.fit([(Prediction(logits, (1, 2)), torch.tensor([[[0, 1]]]))])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_no_temperature(value):
    with pytest.raises(dm.UsageError, match="above 0"):
        Temperature(temperature=value)


def test_an_ensemble_is_at_least_as_likely_as_a_lone_temperature():
    pairs = honest_pairs(factor=2.0)
    pixels = draw_pixels(pairs)
    lone, mixed = Temperature.fit(pairs, exact=False), TemperatureMix.from_pixels(pixels)
    logits = pixels.values.T[None, :, None]
    losses = []
    for calibrator in (lone, mixed):
        prediction = calibrator(Prediction(logits, (1, logits.shape[-1])))
        losses.append(F.cross_entropy(prediction.logits[0, :, 0].T, pixels.labels).item())
    assert losses[1] <= losses[0] + 1e-5
    assert sum(mixed.weights) == pytest.approx(1)


def test_an_ensemble_finds_a_share_of_noise():
    """Labels that are random in a fifth of the pixels: no confidence may exceed .8 + .2 / C."""
    generator = torch.Generator().manual_seed(5)
    pairs = []
    for prediction, label in honest_pairs(12, factor=1.0, void=0.0):
        noise = torch.rand(label.shape, generator=generator) < 0.2
        drawn = torch.randint(4, label.shape, generator=generator)
        pairs.append((prediction, torch.where(noise, drawn, label)))
    found = TemperatureMix.fit(pairs)
    assert found.weights[2] == pytest.approx(0.2, abs=0.03)


def test_a_fit_that_does_not_converge_says_so():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with pytest.raises(dm.DataError, match="converge"):
        minimise(lambda: x.sum(), [x], "slope", rounds=2)
