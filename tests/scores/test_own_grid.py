"""Densities and distances on a layer's own grid, of predicted classes, and smoothed."""

import pytest
import torch

from doubtmap.errors import UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores import Density, Mahalanobis
from doubtmap.scores.smoothing import smoothed


def coarse(seed):
    """Native grid 8 x 16, an inner layer on 4 x 8 whose features follow the class."""
    torch.manual_seed(seed)
    logits = torch.zeros(1, 2, 8, 16)
    logits[:, 0, :4] = logits[:, 1, 4:] = 8
    deep = torch.randn(1, 3, 4, 8)
    deep[:, 0, 2:] += 5
    return Prediction(logits, (16, 32), layers={"deep": deep})


PAIRS = [(coarse(seed), torch.full((1, 16, 32), -2)) for seed in range(4)]
OPTIONS = {"layer": "deep", "scale": "none", "labels": "predicted"}
FITTED = Density.fit(PAIRS, **OPTIONS)


def test_predicted_labels_need_no_others():
    rows = (torch.arange(16) >= 8).long()[None, :, None].expand(1, 16, 32)
    given = Density.fit([(p, rows) for p, _ in PAIRS], **(OPTIONS | {"labels": "given"}))
    torch.testing.assert_close(FITTED.gaussians.mean, given.gaussians.mean)
    assert FITTED.gaussians.pixels.tolist() == [64, 64]


@pytest.mark.parametrize("score", [FITTED, Mahalanobis(FITTED)], ids=["density", "mahalanobis"])
def test_the_map_is_made_on_the_layers_grid_and_then_resized(score):
    prediction = coarse(9)
    assert score.features(prediction).shape == (1, 3, 4, 8)
    alone = Prediction(
        torch.nn.functional.avg_pool2d(prediction.native_logits, 2), (4, 8),
        layers=prediction.layers,
    )  # fmt: skip
    torch.testing.assert_close(score(prediction), prediction.to_size(score(alone)[None])[:, 0])


def test_smoothing_is_that_of_the_map():
    smooth = Density.fit(PAIRS, **OPTIONS, smooth=0.7)
    native = Prediction(torch.zeros(1, 2, 4, 8), (4, 8), layers=coarse(5).layers)
    torch.testing.assert_close(smooth(native), smoothed(FITTED(native), 0.7))
    with pytest.raises(UsageError, match="smooth of at least 0"):
        Density.fit(PAIRS, **OPTIONS, smooth=-1)
