"""Vector and Dirichlet scaling against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from worlds import CLASSES, honest_pairs

from doubtmap.calibration import Dirichlet, Vector
from doubtmap.calibration.pixels import draw_pixels
from doubtmap.prediction import Prediction


@pytest.fixture(scope="module")
def pixels():
    return draw_pixels(
        [(p, label) for p, label in honest_pairs(4, factor=1.5)], seed=1, values=20_000
    )


def loss_of(calibrator, pixels):
    logits = pixels.values.T[None, :, None]
    after = calibrator(Prediction(logits, (1, logits.shape[-1]))).logits[0, :, 0].T.double()
    return float(pixels.mean(F.cross_entropy(after, pixels.labels, reduction="none")))


def test_dirichlet_without_penalty_is_logistic_regression_on_log_probabilities(pixels):
    log_p = pixels.values.log_softmax(1).numpy()
    oracle = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000)
    oracle.fit(log_p, pixels.labels.numpy(), sample_weight=pixels.weights.numpy())
    found = Dirichlet.from_pixels(pixels, 0.0, 0.0)
    p = oracle.predict_proba(log_p)
    best = -float(
        np.average(
            np.log(p[np.arange(len(p)), pixels.labels.numpy()]), weights=pixels.weights.numpy()
        )
    )
    assert loss_of(found, pixels) == pytest.approx(best, abs=1e-6)
    ours = (pixels.values.log_softmax(1) @ found.weights.T + found.offsets).softmax(1).numpy()
    assert np.abs(ours - p).max() < 2e-3


def test_its_penalties_draw_towards_temperature_scaling(pixels):
    off = 1 - torch.eye(CLASSES)
    sizes = [
        float((Dirichlet.from_pixels(pixels, penalty, penalty).weights * off).abs().max())
        for penalty in (0.0, 0.1, 10.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_vector_is_the_optimum_that_scipy_finds(pixels):
    logits = (pixels.values - pixels.values.mean(1, keepdim=True)).double()

    def value_and_slope(x):
        both = torch.tensor(x, requires_grad=True)
        mapped = both[:CLASSES] * logits + both[CLASSES:]
        loss = pixels.mean(F.cross_entropy(mapped, pixels.labels, reduction="none"))
        loss.backward()
        return loss.item(), both.grad.numpy()

    start = np.r_[np.ones(CLASSES), np.zeros(CLASSES)]
    options = {"ftol": 1e-14, "gtol": 1e-9}
    oracle = minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options)
    found = Vector.from_pixels(pixels)
    assert loss_of(found, pixels) == pytest.approx(oracle.fun, abs=1e-7)
    assert found.factors.numpy() == pytest.approx(oracle.x[:CLASSES], abs=1e-3)


def test_vector_commutes_with_the_resize(quarter):
    found = Vector(
        factors=torch.tensor([1.0, 2.0, 0.5, 1.5]), offsets=torch.tensor([0.1, 0, -1, 2])
    )
    full = Prediction(quarter.logits, quarter.size)
    assert torch.allclose(found(quarter).logits, found(full).logits, atol=1e-5)


def test_dirichlet_does_as_its_formula_says(quarter):
    torch.manual_seed(0)
    weights, offsets = torch.randn(CLASSES, CLASSES), torch.randn(CLASSES)
    found = Dirichlet(weights=weights, offsets=offsets)(quarter).logits
    log_p = quarter.logits.log_softmax(1)
    assert torch.allclose(found[1, :, 5, 7], weights @ log_p[1, :, 5, 7] + offsets, atol=1e-5)
