"""Selective scaling finds wrong pixels, smooths them, and keeps what the network said."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn
from worlds import CLASSES, lying_pairs

import doubtmap as dm
from doubtmap.calibration import Meta, Selective, SelectiveSoft, Temperature
from doubtmap.calibration.comparison import compare
from doubtmap.calibration.judge import Judge, _descend, _folded, _layers
from doubtmap.calibration.meta import entropy_of_logits
from doubtmap.calibration.pixels import draw_pixels
from doubtmap.calibration.selective import draw_doubts, fit_selector, log_odds_of_wrong
from doubtmap.metrics import Reliability
from doubtmap.prediction import Prediction


def flag_everything(flag=True):
    """A selector that says the same everywhere."""
    weights = (torch.zeros(1, CLASSES),)
    return Judge("logits", weights, (torch.tensor([1.0 if flag else -1.0]),))


def test_the_selector_finds_what_can_be_found(lying):
    selector = fit_selector(lying, balance=0.0)
    pixels, doubt = draw_doubts(lying_pairs(seed=9), selector, seed=0)
    # doubtful pixels are wrong seven times in ten, the others twice in a hundred
    assert roc_auc_score(pixels.wrong, doubt) > 0.9
    assert doubt[doubt > 0].sigmoid().mean().item() == pytest.approx(0.7, abs=0.06)
    assert (pixels.wrong & (doubt > 0)).sum() / pixels.wrong.sum() > 0.9


def test_balance_counts_wrong_pixels_more_often():
    """A selector without inputs can only learn the share: (1 + m) w / ((1 + m) w + 1 - w)."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(3):
        label = (torch.rand(1, 32, 48, generator=generator) < 0.2).long()
        logits = torch.zeros(1, 2, 32, 48)
        logits[:, 0] = 1.0
        pairs.append((Prediction(logits, (32, 48)), label))
    wrong = torch.cat([label for _, label in pairs]).float().mean().item()
    for balance in (0.0, 1.0, 4.0):
        selector = fit_selector(pairs, balance=balance)
        found = log_odds_of_wrong(selector, pairs[0][0]).sigmoid().mean().item()
        weight = (1 + balance) * wrong
        assert found == pytest.approx(weight / (weight + 1 - wrong), abs=0.03)


def test_folding_gives_the_trained_network():
    torch.manual_seed(0)
    x = 5 + 3 * torch.randn(512, 6)
    mean, spread = x.mean(0), x.std(0)
    network = _layers(6, silent=False)
    _descend(network, (x - mean) / spread, lambda out, at: (out - x[at, 0]).square().mean(), 0)
    judge = Judge("logits", *_folded(network, mean, spread))
    network.eval()
    expected = network((x - mean) / spread)
    for weight, bias in zip(judge.weights, judge.biases):
        last = weight is judge.weights[-1]
        x = F.linear(x, weight, bias)
        x = x if last else x.relu()
    assert torch.allclose(x, expected, atol=1e-4)
    assert isinstance(network[0], nn.Linear)


def test_training_is_settled_by_its_seed(lying):
    a, b, c = (fit_selector(lying, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.weights, b.weights))
    assert not torch.equal(a.weights[1], c.weights[1])


def test_training_leaves_the_random_state_alone(lying):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    fit_selector(lying)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("temperature", [2.0, 1e10])
def test_flagged_pixels_are_divided_and_others_left(quarter, temperature):
    everything = Selective(selector=flag_everything(), temperature=temperature)(quarter)
    nothing = Selective(selector=flag_everything(False), temperature=temperature)(quarter)
    assert torch.allclose(everything.logits, quarter.logits / temperature)
    assert torch.equal(nothing.logits, quarter.logits)
    assert (everything.classes == quarter.classes).all()


def test_labels_stay_at_a_huge_temperature_where_probabilities_tie():
    """The toy of the research notes: taking labels anew makes flagged pixels class 0."""
    torch.manual_seed(0)
    logits = torch.randn(1, 150, 32, 32)
    label = torch.randint(150, (1, 32, 32))
    prediction = Prediction(logits, (32, 32))
    label = torch.where(torch.rand(1, 32, 32) < 0.7, prediction.classes, label)
    after = Selective(selector=_flag_all_150(), temperature=1e10)(prediction)
    assert (after.classes == prediction.classes).all()
    assert (after.probabilities.argmax(1) == 0).float().mean() > 0.9
    kept, anew = Reliability(150), Reliability(150)
    kept.update(after.logits, label, classes=after.classes)
    anew.update(after.probabilities.log(), label)
    right = (prediction.classes == label).float().mean().item()
    assert kept.ece == pytest.approx(right - 1 / 150, abs=1e-3)
    assert anew.ece < 0.05  # looks calibrated, for it is right as often as chance


def _flag_all_150():
    return Judge("logits", (torch.zeros(1, 150),), (torch.ones(1),))


def test_evaluate_counts_the_labels_that_stay():
    prediction = Prediction(torch.randn(1, 150, 8, 8), (8, 8))
    after = Selective(selector=_flag_all_150(), temperature=1e10)(prediction)
    found = compare([(after, prediction.classes)], {"x": dm.calibration.Identity()})
    assert found.accuracy("x") == 1


def test_the_accuracy_rule_makes_mean_confidence_the_accuracy(fitted, lying):
    found = fitted["selective(temperature=accuracy)"]
    pixels, doubt = draw_doubts(lying, found.selector, 0)
    flagged = pixels.where(doubt > 0)
    confidence = (flagged.values / found.temperature).softmax(1).amax(1).mean().item()
    assert confidence == pytest.approx((~flagged.wrong).float().mean().item(), abs=1e-3)


def test_the_likelihood_rule_is_stationary(fitted, lying):
    found = fitted["selective"]
    pixels, doubt = draw_doubts(lying, found.selector, 0)
    flagged = pixels.where(doubt > 0)
    t = torch.tensor(found.temperature, dtype=torch.float64, requires_grad=True)
    flagged.mean(
        F.cross_entropy(flagged.values.double() / t, flagged.labels, reduction="none")
    ).backward()
    assert abs(t.grad.item()) < 1e-6


def test_others_are_fitted_on_what_is_not_flagged(fitted, lying):
    found = fitted["selective(temperature=2,others=temperature)"]
    unflagged = []
    for prediction, label in lying:
        flagged = log_odds_of_wrong(found.selector, prediction)[:, 0] > 0
        unflagged.append((prediction, label.masked_fill(flagged, -2)))
    assert found.others.temperature == pytest.approx(Temperature.fit(unflagged).temperature)


def test_where_mistakes_show_selective_scaling_beats_a_lone_temperature(fitted):
    names = ("identity", "temperature", "selective", "selective_soft", "selective_confidence")
    found = compare(lying_pairs(4, seed=11), {name: fitted[name] for name in names})
    assert found.ece("selective_confidence") < 0.5 * found.ece("temperature")
    for name in names[2:]:
        assert found.nll(name) < found.nll("temperature") < found.nll("identity")
        assert found.brier(name) < found.brier("temperature")


def test_no_flag_is_said(lying, monkeypatch):
    monkeypatch.setattr(
        "doubtmap.calibration.selective.fit_selector", lambda *_, **__: flag_everything(False)
    )
    with pytest.raises(dm.DataError, match="Raise balance"):
        Selective.fit(lying)


def test_the_soft_gate_does_as_its_formula_says(quarter):
    soft = SelectiveSoft(selector=flag_everything(), offset=0.3, slope=-1.0)
    factor = (0.3 - torch.tensor(1.0).sigmoid()).exp()
    assert torch.allclose(soft(quarter).logits, quarter.logits * factor)


def test_meta_is_uniform_above_its_threshold(fitted, lying):
    meta = fitted["meta"]
    pixels = draw_pixels(lying)
    right = pixels.where(~pixels.wrong)
    above = (entropy_of_logits(right.values) > meta.threshold).float().mean().item()
    assert above == pytest.approx(0.05, abs=0.005)
    sure, unsure = torch.tensor([20.0, 0, 0, 0]), torch.tensor([0.1, 0, 0, 0])
    logits = torch.stack([sure, unsure], 1)[None, :, None]
    p = Meta(threshold=1.0, temperature=2.0)(Prediction(logits, (1, 2))).probabilities[0, :, 0]
    assert torch.allclose(p[:, 0], (sure / 2).softmax(0))
    assert torch.allclose(p[:, 1], torch.full((4,), 0.25))


def test_classes_of_another_shape_are_refused():
    logits, label = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)
    with pytest.raises(dm.UsageError, match="classes and labels"):
        Reliability(2).update(logits, label, classes=label[:, :2])
    with pytest.raises(dm.UsageError, match="keep the classes"):
        Prediction(logits, (3, 3), classes_of=Prediction(logits, (6, 6)))


def test_classes_stay_through_two_calibrators(quarter):
    hot = Temperature(temperature=1e10)
    after = hot(Selective(selector=flag_everything(), temperature=1e10)(quarter))
    assert after.classes_of is quarter
    assert (after.classes == quarter.classes).all()
