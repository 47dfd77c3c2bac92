"""Calibrators of many parameters that keep labels or the order: known answers, laws, peers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import doubtmap as dm
from doubtmap.calibration import (
    ArgmaxPreserving,
    ClassTemperature,
    DirichletKept,
    OrderPreserving,
    Temperature,
    VectorKept,
    load_calibrator,
    parse_method,
    save_calibrator,
)
from doubtmap.calibration.calibrate import CANDIDATES
from doubtmap.calibration.pixels import Pixels
from doubtmap.calibration.preserving import _least
from doubtmap.prediction import Prediction

KEEPING = (ArgmaxPreserving, ClassTemperature, DirichletKept, OrderPreserving, VectorKept)


def world(seed=0, count=4000, classes=4, sharp=(3.0, 1.0, 2.0, 0.5)):
    """Logits of a network that is too sure, by another factor for each predicted class."""
    generator = torch.Generator().manual_seed(seed)
    honest = 2 * torch.randn(count, classes, generator=generator)
    labels = honest.softmax(1).multinomial(1, generator=generator)[:, 0]
    predicted = honest.argmax(1)
    logits = honest * torch.tensor(sharp)[predicted][:, None]
    weights = torch.ones(count, dtype=torch.float64)
    return Pixels(logits, labels, weights, predicted, classes)


def shown(pixels):
    return Prediction(pixels.values.T[None, :, :, None], (len(pixels.values), 1))


def likelihood(calibrator, pixels):
    logits = calibrator(shown(pixels)).logits[0, :, :, 0].T
    return float(torch.nn.functional.cross_entropy(logits, pixels.labels))


@pytest.fixture(scope="module")
def pixels():
    return world()


@pytest.fixture(scope="module")
def fitted(pixels):
    return {kind: kind.from_pixels(pixels) for kind in KEEPING}


def test_a_temperature_for_each_class_is_found(fitted):
    found = fitted[ClassTemperature].temperatures
    np.testing.assert_allclose(found, [3.0, 1.0, 2.0, 0.5], rtol=0.12)


def test_they_do_better_than_one_temperature_where_it_takes_more(fitted):
    other = world(1)
    one = likelihood(Temperature(temperature=1.7), other)
    for kind in (ArgmaxPreserving, ClassTemperature, OrderPreserving):
        assert likelihood(fitted[kind], other) < one - 0.01, kind


@pytest.mark.parametrize("kind", KEEPING)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 30.0]), st.booleans())
def test_labels_and_order_stay(fitted, kind, seed, scale, ties):
    logits = scale * torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    logits = logits.round() if ties else logits
    before = Prediction(logits, (9, 11))
    after = fitted[kind](before)
    assert torch.equal(after.classes, before.classes)
    # the pass that tells classes and the logits at full size may differ in a last bit
    slack = 1e-5 * after.logits.abs().amax()
    own = after.logits.gather(1, before.classes[:, None])
    assert bool((after.logits <= own + slack).all())
    if kind in (ClassTemperature, OrderPreserving):
        log_p = before.logits.log_softmax(1).scatter(1, before.classes[:, None], torch.inf)
        order = log_p.argsort(dim=1, descending=True, stable=True)
        assert bool((after.logits.gather(1, order).diff(dim=1) <= slack).all())


@pytest.mark.parametrize("kind", KEEPING)
def test_a_constant_on_all_logits_changes_nothing(fitted, kind):
    logits = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    a, b = (fitted[kind](Prediction(x, (5, 6))).probabilities for x in (logits, logits + 11))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_identity_is_identity():
    logits = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    before = Prediction(logits, (5, 6))
    eye, none = torch.eye(3).expand(4, 3, 3).contiguous(), torch.zeros(4, 3)
    for calibrator in (
        ClassTemperature(temperatures=torch.ones(4)),
        ArgmaxPreserving(matrices=eye, offsets=none),
        OrderPreserving(matrices=eye, offsets=none),
        VectorKept(factors=torch.ones(4), offsets=torch.zeros(4), temperature=1.0),
        DirichletKept(weights=torch.eye(4), offsets=torch.zeros(4), temperature=1.0),
    ):
        torch.testing.assert_close(
            calibrator(before).probabilities, before.probabilities, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", [ArgmaxPreserving, OrderPreserving])
def test_the_map_is_the_formula(fitted, kind):
    calibrator = fitted[kind]
    logits = 2 * torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(3))
    after = calibrator(Prediction(logits, (3, 5))).logits.softmax(1)[0]
    for row, column in np.ndindex(3, 5):
        log_p = logits[0, :, row, column].double().log_softmax(0)
        y = int(log_p.argmax())
        b, m = calibrator.matrices[y].double(), calibrator.offsets[y].double()
        if kind is ArgmaxPreserving:
            order = [y, *(c for c in range(4) if c != y)]
            mapped = -(b @ (log_p[y] - log_p[order[1:]]) + m)
        else:
            order = log_p.argsort(descending=True).tolist()
            mapped = -(b @ -log_p[order].diff() + m).cumsum(0)
        expected = torch.cat([torch.zeros(1).double(), mapped]).softmax(0)
        torch.testing.assert_close(
            after[order, row, column].double(), expected, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("summed", [False, True])
def test_the_optimum_is_that_of_another_solver(summed):
    """Projected gradient by autograd, from the same place, finds nothing better."""
    generator = np.random.default_rng(0)
    inputs = np.hstack([generator.exponential(1, (600, 2)), np.ones((600, 1))])
    odds = np.cumsum(np.exp(-0.4 * np.hstack([np.zeros((600, 1)), inputs[:, :2]])), 1)
    place = (generator.random((600, 1)) * odds[:, -1:] > odds).sum(1)
    weights = np.full(600, 1 / 600)
    first = np.hstack([np.eye(2), np.zeros((2, 1))])
    found = _least("test", inputs, place, weights, first, summed, 1e-3)

    def loss(table):
        below = torch.from_numpy(inputs) @ table.T
        below = below.cumsum(1) if summed else below
        logits = torch.cat([torch.zeros(600, 1).double(), -below], 1)
        penalty = 1e-3 / 3 * (table - torch.from_numpy(first)).square().mean()
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(place)) + penalty

    table = torch.tensor(found, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(table), table)
    at_bound = torch.from_numpy(found) <= 0
    assert float(slope[~at_bound].abs().max()) < 2e-4 < 0.1 < float(torch.tensor(found).max())
    assert bool((slope[at_bound] > -2e-4).all())
    assert not bool(at_bound.all())


def test_a_class_that_is_never_predicted_gets_what_is_best_for_all(pixels):
    few = pixels.where(pixels.classes != 2)
    one = Temperature(temperature=1.0)
    for kind in (ClassTemperature, ArgmaxPreserving, OrderPreserving):
        found = kind.from_pixels(few)
        assert found.keeps_classes and one.keeps_classes
        prediction = Prediction(torch.tensor([0.0, 1, 5, 2])[None, :, None, None], (1, 1))
        assert bool(torch.isfinite(found(prediction).logits).all())
    assert torch.equal(found.matrices[2], found.matrices[2].diag().diag())


def test_too_many_classes_for_a_matrix_each():
    many = Pixels(torch.randn(9, 65), torch.zeros(9).long(), torch.ones(9).double(),
                  torch.ones(9).long(), 65)  # fmt: skip
    with pytest.raises(dm.DataError, match=r"at most 64 classes.*class_temperature"):
        ArgmaxPreserving.from_pixels(many)


def test_a_former_name_is_told_and_its_files_are_read(tmp_path):
    with pytest.raises(dm.UsageError, match="ensemble is called temperature_mix now"):
        parse_method("ensemble")
    assert "ensemble" not in CANDIDATES
    mix = dm.calibration.TemperatureMix(temperature=2.0, weights=(0.5, 0.3, 0.2))
    file = tmp_path / "c"
    save_calibrator(mix, file)
    former = file.read_bytes().replace(b"temperature_mix", b"ensemble")
    assert former != file.read_bytes()
    from doubtmap.calibration.files import _decode

    fields = {"temperature": 2.0, "weights": {"tuple": [0.5, 0.3, 0.2]}, "channels": None}
    again = _decode({"kind": "ensemble", "fields": fields}, {})
    assert type(again) is type(load_calibrator(file))
