"""Every score against the lines one would write from its definition, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from predictions import pixels, random_prediction
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp, softmax

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.kernels import pixel_statistics
from doubtmap.prediction import Prediction


def entropy_of(x):
    p = softmax(x)
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def margin_of(x):
    second, first = np.sort(softmax(x))[-2:]
    return 1 - (first - second)


TEXTBOOK = {
    "max_softmax": lambda x: 1 - softmax(x).max(),
    "margin": margin_of,
    "entropy": entropy_of,
    "max_logit": lambda x: -x.max(),
    "energy": lambda x: -logsumexp(x),
    "divergence": lambda x: -(jensenshannon(softmax(x / 2), np.full(len(x), 1 / len(x))) ** 2),
}


def textbook(name, logits):
    return np.apply_along_axis(TEXTBOOK[name], 1, logits.double().numpy())


@pytest.mark.parametrize("name", TEXTBOOK)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_equals_its_textbook_formula(name, dtype):
    logits = random_prediction(classes=11, dtype=dtype).logits
    result = getattr(scores, name)(logits).double().numpy()
    tolerance = 1e-7 if dtype == torch.float64 else 5e-7
    np.testing.assert_allclose(result, textbook(name, logits), rtol=2e-5, atol=tolerance)


@pytest.mark.parametrize("name", TEXTBOOK)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=1, min_side=2, max_side=12),
        elements=st.floats(-30, 30, width=32),
    )
)
def test_the_formula_holds_with_ties_and_wide_logits(name, x):
    logits = torch.tensor(x)[None, :, None, None]
    result = getattr(scores, name)(logits).item()
    assert result == pytest.approx(TEXTBOOK[name](x), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_uniform_logits_have_the_known_extreme_values(classes):
    uniform = torch.full((1, classes, 1, 1), 3.0)
    assert scores.entropy(uniform).item() == pytest.approx(math.log(classes), rel=1e-6)
    assert scores.max_softmax(uniform).item() == pytest.approx(1 - 1 / classes, rel=1e-6)
    assert scores.margin(uniform).item() == 1
    assert scores.energy(uniform).item() == pytest.approx(-3 - math.log(classes), rel=1e-6)
    assert scores.divergence(uniform).item() == pytest.approx(0, abs=1e-6)


def test_small_doubts_keep_their_relative_precision():
    rows = [[gap, 0.0, -1.0] for gap in (20.0, 40.0, 80.0)]
    x = np.array(rows)
    rest = np.exp(x[:, 1:] - x[:, :1])
    log_p = -np.log1p(rest.sum(1))
    entropies = -log_p - (rest * (x[:, 1:] - x[:, :1])).sum(1) / (1 + rest.sum(1))
    logits = pixels(*rows)
    np.testing.assert_allclose(
        scores.max_softmax(logits).flatten(), -np.expm1(log_p), rtol=1e-5, atol=0
    )
    np.testing.assert_allclose(scores.entropy(logits).flatten(), entropies, rtol=1e-5, atol=0)
    p_second = rest[:, 0] / (1 + rest.sum(1))
    np.testing.assert_allclose(
        scores.margin(logits).flatten(), -np.expm1(log_p) + p_second, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_divergence_takes_a_temperature(temperature):
    x = torch.randn(1, 5, 1, 1, dtype=torch.float64)
    expected = TEXTBOOK["divergence"](x.flatten().numpy() * 2 / temperature)
    assert scores.divergence(x, temperature).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_divergence_refuses_an_impossible_temperature(temperature):
    with pytest.raises(UsageError, match="temperature"):
        scores.divergence(torch.zeros(1, 2, 1, 1), temperature)


def test_statistics_are_what_their_names_say():
    logits = random_prediction(classes=9, dtype=torch.float64).logits
    found = pixel_statistics(logits)
    first, second = logits.topk(2, 1).values.unbind(1)
    p = logits.softmax(1)
    assert torch.equal(found.classes, logits.argmax(1))
    assert torch.equal(found.max_logit, -first)
    torch.testing.assert_close(found.max_softmax, 1 - p.amax(1))
    torch.testing.assert_close(found.margin, 1 - p.amax(1) + (second - logits.logsumexp(1)).exp())
    torch.testing.assert_close(found.entropy, -(p * p.log()).sum(1))
    torch.testing.assert_close(found.energy, -logits.logsumexp(1))


def test_tied_logits_predict_the_first_class():
    found = pixel_statistics(pixels([1.0, 5.0, 5.0, 5.0], [2.0, 2.0, 2.0, 2.0]))
    assert found.classes.flatten().tolist() == [1, 0]
    assert found.margin.flatten().tolist() == [1, 1]


def test_the_scores_of_a_small_prediction_are_those_of_its_resized_logits():
    native = torch.randn(2, 5, 4, 6)
    small = Prediction(native, size=(15, 21))
    for name in TEXTBOOK:
        score = getattr(scores, name)
        torch.testing.assert_close(score(small), score(small.logits))
