"""Histogram binning, isotonic regression, and setting a pixel's confidence."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from worlds import honest_pairs

from doubtmap.calibration import HistogramBinning, Isotonic
from doubtmap.calibration.binned import _of_every_class, log_odds_of_confidence, with_confidence
from doubtmap.prediction import Prediction
from doubtmap.scores.odds import cells_of


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6), st.floats(0, 1))
def test_a_pixel_gets_its_confidence_and_keeps_its_order(logits, wanted):
    x = torch.tensor(logits, dtype=torch.float64)[None, :, None, None]
    classes = x.argmax(1)
    log_p = with_confidence(x, classes, torch.full((1, 1, 1), wanted, dtype=torch.float64))
    p = log_p.exp()[0, :, 0, 0]
    most = 1 - torch.finfo(torch.float64).eps
    assert p.sum().item() == pytest.approx(1)
    assert p[classes.item()].item() == pytest.approx(min(max(wanted, 1 / len(logits)), most))
    values = x[0, :, 0, 0]
    above = values[:, None] > values
    assert (p[:, None] - p)[above].ge(-1e-12).all()


def test_the_rest_keeps_its_proportions_as_far_as_order_allows():
    p = torch.tensor([0.7, 0.2, 0.1]).log()[None, :, None, None]
    found = with_confidence(p, p.argmax(1), torch.full((1, 1, 1), 0.4)).exp()[0, :, 0, 0]
    assert found.tolist() == pytest.approx([0.4, 0.4, 0.2])
    found = with_confidence(p, p.argmax(1), torch.full((1, 1, 1), 1 / 3)).exp()[0, :, 0, 0]
    assert found.tolist() == pytest.approx([1 / 3] * 3)


def test_log_odds_are_exact_where_the_probability_rounds_to_one():
    logits = torch.tensor([60.0, 0.0, 0.0])[None, :, None, None]
    found = log_odds_of_confidence(logits, logits.argmax(1)).item()
    assert found == pytest.approx(60 - np.log(2))


@pytest.mark.parametrize("method", [HistogramBinning, Isotonic])
def test_dishonest_confidence_becomes_honest(method):
    # of 10 images, 3 draws of 12 give isotonic gaps of .03 and more; of 40, the largest is .024
    fitted = method.fit(honest_pairs(40, factor=3.0))
    predictions = [(fitted(p), label) for p, label in honest_pairs(40, factor=3.0, seed=1)]
    confidence = torch.cat([p.probabilities.amax(1)[label >= 0] for p, label in predictions])
    right = torch.cat([(p.classes == label)[label >= 0] for p, label in predictions])
    edges = torch.quantile(confidence, torch.linspace(0, 1, 6))
    for low, high in itertools.pairwise(edges):
        inside = (confidence >= low) & (confidence <= high)
        gap = confidence[inside].mean() - right[inside].float().mean()
        assert abs(gap) < 0.03


def test_bins_hold_the_accuracy_of_their_pixels():
    """Two confidences, two bins: each becomes the share that is right there, to the digit."""
    odds = torch.tensor([0.5, 0.5, 0.5, 0.5, 3.0, 3.0, 3.0, 3.0])
    logits = torch.stack([odds, torch.zeros(8)])[None, :, None]
    label = torch.tensor([[[0, 1, 1, 1, 0, 0, 0, 1]]])
    fitted = HistogramBinning.fit([(Prediction(logits, (1, 8)), label)], bins=2)
    assert fitted.accuracy.tolist() == pytest.approx([0.25, 0.75])
    found = fitted(Prediction(logits, (1, 8))).probabilities[0, 0, 0]
    assert found.tolist() == pytest.approx([0.5] * 4 + [0.75] * 4)  # not below 1 / C


def test_isotonic_regression_is_that_of_scikit_learn():
    """Over the counts of all cells: each is a pixel and a class, hit or not."""
    pairs = honest_pairs()
    levels = Isotonic.fit(pairs).levels
    cells, hits = [], []
    for prediction, label in pairs:
        odds = _of_every_class(prediction).movedim(1, -1)[label >= 0]
        truth = torch.nn.functional.one_hot(label[label >= 0], odds.shape[1])
        cells.append(cells_of(odds).reshape(-1))
        hits.append(truth.reshape(-1))
    at, hit = torch.cat(cells).numpy(), torch.cat(hits).numpy()
    found = IsotonicRegression(y_min=0, y_max=1).fit(at, hit).predict(np.unique(at))
    inside = (found > 1e-4) & (found < 1 - 1e-4)
    own = levels[np.unique(at)].exp().numpy()
    assert inside.sum() > 20
    assert own[inside] == pytest.approx(found[inside], rel=1e-5)


def test_isotonic_levels_rise():
    levels = Isotonic.fit(honest_pairs(3, factor=2.0)).levels
    assert (levels.diff() >= 0).all()
    assert torch.isfinite(levels).all()
