"""The score `negative`: one more class, and how unsure the others are."""

import pytest
import torch
from torch.nn.functional import interpolate

from doubtmap.calibration import Temperature
from doubtmap.errors import DataError, ModelError
from doubtmap.prediction import Prediction
from doubtmap.scores import negative
from doubtmap.scores.parsing import parse_scores, possible_scores


def taught(logits, said, **placed):
    placed.setdefault("size", tuple(logits.shape[-2:]))
    return Prediction(logits, layers={"head.negative": said}, **placed)


@pytest.mark.parametrize("size", [(4, 6), (13, 23)])
def test_it_is_that_of_a_softmax_with_one_more_class(size):
    torch.manual_seed(0)
    joint = 4 * torch.randn(2, 6, 4, 6)
    got = negative(taught(joint[:, :5], joint[:, 5:], size=size))
    p = interpolate(joint, size, mode="bilinear").double().softmax(1)
    torch.testing.assert_close(got.double(), p[:, 5] - p[:, :5].amax(1), rtol=0, atol=2e-6)
    assert got.shape == (2, *size) and got.dtype == torch.float32


def test_known_answers():
    """Sure of a class, sure of a negative, and all K + 1 alike."""
    logits = torch.tensor([[40.0, 0, 0], [0, 0, 0], [0, 0, 0]]).T[None, :, None]
    said = torch.tensor([[[[0.0, 40.0, 0.0]]]])
    expected = torch.tensor([[[-1.0, 1.0, 0.0]]])
    torch.testing.assert_close(negative(taught(logits, said)), expected)


def test_it_grows_with_the_negative_class_and_with_doubt_about_the_others():
    logits = torch.tensor([3.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 1, 9)
    rising = negative(taught(logits, torch.linspace(-4, 9, 9)[None, None, None]))
    assert bool((rising.diff() > 0).all())
    flatter = logits * torch.linspace(2, 0, 9)
    assert bool((negative(taught(flatter, -9 * torch.ones(1, 1, 1, 9))).diff() > 0).all())


def test_extreme_logits_give_finite_scores():
    logits, said = 1e4 * torch.randn(1, 3, 4, 4), 1e4 * torch.randn(1, 1, 4, 4)
    got = negative(taught(logits, said))
    assert got.isfinite().all() and got.abs().max() <= 1


def test_who_has_no_such_head_is_told_how_to_get_one():
    prediction = Prediction(torch.randn(1, 3, 4, 4), size=(4, 4), layers={})
    with pytest.raises(ModelError, match=r"doubtmap train DATA --recipe nflowjs --negative-class"):
        negative(prediction)
    assert "negative" not in possible_scores(prediction)[0]
    student = Prediction(
        torch.randn(1, 3, 4, 4), size=(4, 4), layers={"a.distilled": torch.zeros(1, 1, 4, 4)}
    )
    assert (
        "distilled" in possible_scores(student)[0] and "negative" not in possible_scores(student)[0]
    )


def test_calibrated_logits_are_refused():
    prediction = taught(torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    calibrated = Temperature(temperature=2.0)(prediction)
    assert "negative" in possible_scores(prediction)[0]
    assert "negative" not in possible_scores(calibrated)[0]
    with pytest.raises(ModelError, match="but these are calibrated"):
        negative(calibrated)


def test_a_head_that_is_not_finite_is_no_answer():
    said = torch.zeros(1, 1, 4, 4)
    said[0, 0, 1, 2] = float("nan")
    with pytest.raises(DataError, match="negative: expected a finite second head"):
        negative(taught(torch.zeros(1, 3, 4, 4), said))


def test_the_command_line_knows_it():
    assert parse_scores("negative") == {"negative": negative}
