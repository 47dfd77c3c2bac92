import pytest
import torch
import torch.nn.functional as F

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores import distilled
from doubtmap.scores.parsing import parse_scores


def student(said, **placed):
    logits = torch.randn(len(said), 3, *said.shape[-2:])
    placed.setdefault("size", tuple(said.shape[-2:]))
    return Prediction(logits, layers={"distilled": said}, **placed)


def test_it_is_the_sigmoid_of_what_the_head_says():
    said = torch.tensor([[[[0.0, -2.0], [4.0, -30.0]]]])
    expected = 1 / (1 + torch.exp(-said[:, 0]))
    torch.testing.assert_close(distilled(student(said)), expected)
    assert distilled(student(said)).shape == (1, 2, 2)


@pytest.mark.parametrize("align_corners", [True, False])
def test_it_is_resized_as_the_logits_are_and_then_squashed(align_corners):
    said = 5 * torch.randn(2, 1, 4, 6)
    got = distilled(student(said, size=(13, 24), align_corners=align_corners))
    big = F.interpolate(said, (13, 24), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(got, big[:, 0].sigmoid())
    early = F.interpolate(said.sigmoid(), (13, 24), mode="bilinear", align_corners=align_corners)
    assert (got - early[:, 0]).abs().max() > 0.01


def test_padding_is_cut_off_as_it_is_from_the_logits():
    logits = torch.randn(1, 3, 4, 6)
    prediction = Prediction(
        logits, size=(13, 20), covered=(16.0, 24.0), layers={"distilled": logits[:, 1:2]}
    )
    torch.testing.assert_close(distilled(prediction), prediction.logits[:, 1].sigmoid())


def test_half_precision_is_counted_in_full():
    said = torch.randn(1, 1, 4, 6).half()
    got = distilled(student(said, size=(8, 12)))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, distilled(student(said.float(), size=(8, 12))))


def test_a_network_without_a_second_head_is_told_how_to_get_one():
    for layers in ({}, {"distilled": torch.zeros(1, 2, 4, 4)}, {"distilled": torch.zeros(1, 1)}):
        prediction = Prediction(torch.randn(1, 3, 4, 4), size=(4, 4), layers=layers)
        with pytest.raises(ModelError, match=r"Train one with: doubtmap train .* --recipe dudes"):
            distilled(prediction)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_head_that_is_not_finite_is_no_answer(wrong):
    said = torch.zeros(1, 1, 4, 4)
    said[0, 0, 1, 2] = wrong
    with pytest.raises(DataError, match="expected a finite second head"):
        distilled(student(said))


def test_it_has_a_name_and_no_parameters():
    assert parse_scores("distilled") == {"distilled": distilled}
    with pytest.raises(UsageError, match="distilled takes no parameters"):
        parse_scores("distilled(p=1)")
    with pytest.raises(UsageError, match="distilled takes no file"):
        parse_scores("distilled:FILE")
