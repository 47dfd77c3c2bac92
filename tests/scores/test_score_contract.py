"""What every score promises, whatever its formula."""

import pytest
import torch
from predictions import pixels, random_prediction, with_features

from doubtmap import scores
from doubtmap.errors import DataError, UsageError
from doubtmap.prediction import Prediction

ALL = [pytest.param(getattr(scores, name), id=name) for name in scores.STATELESS]
FROM_LOGITS = [
    pytest.param(getattr(scores, name), id=name) for name in scores.STATELESS if name != "gradient"
]
ALONE = [p for p in ALL if p.id not in scores.AROUND]
"""Scores that look at one pixel by itself."""
every_score = pytest.mark.parametrize("score", ALL)


def test_the_catalogue_lists_every_score():
    fitted = {"Density", "Doubt", "LabelSets", "Mahalanobis", "Sum", "Wrong"}
    fitted |= {"pixel_gradient_norm"}
    unfitted = {
        *scores.STATELESS,
        *scores.OF_MEMBERS,
        *scores.OF_HEADS,
        *scores.OF_QUERIES,
    }
    assert unfitted | fitted == set(scores.__all__)
    assert sorted(scores.__all__) == scores.__all__


@every_score
def test_a_score_is_one_float32_map_per_image(score):
    result = score(random_prediction())
    assert result.shape == (2, 5, 7)
    assert result.dtype == torch.float32


@every_score
def test_a_score_has_the_size_of_the_image(score):
    native = random_prediction()
    assert score(with_features(native.logits, native.features, size=(23, 18))).shape == (2, 23, 18)
    padded = with_features(native.logits, native.features, size=(23, 18), covered=(32, 32))
    assert score(padded).shape == (2, 23, 18)


@every_score
def test_extreme_logits_give_finite_scores(score):
    logits = 1e4 * torch.randint(-1, 2, (2, 6, 5, 7)).float()
    assert score(with_features(logits)).isfinite().all()
    assert score(with_features(logits, size=(13, 11))).isfinite().all()


@every_score
def test_a_class_masked_with_the_lowest_float_does_no_harm(score):
    logits = torch.randn(1, 6, 7, 9)
    logits[:, 2] = torch.finfo(torch.float32).min
    for settings in ({}, {"size": (29, 41)}, {"size": (29, 41), "covered": (33.3, 44.1)}):
        assert score(with_features(logits, **settings)).isfinite().all()


@every_score
def test_a_score_follows_the_order_of_the_batch(score):
    prediction = random_prediction(batch=3)
    order = torch.tensor([2, 0, 1])
    shuffled = with_features(prediction.logits[order], prediction.features[order])
    torch.testing.assert_close(score(shuffled), score(prediction)[order])
    alone = with_features(prediction.logits[1:2], prediction.features[1:2])
    torch.testing.assert_close(score(alone), score(prediction)[1:2])


@every_score
def test_a_score_does_not_care_which_class_is_which(score):
    prediction = random_prediction()
    order = torch.randperm(6)
    permuted = with_features(prediction.logits[:, order], prediction.features)
    torch.testing.assert_close(score(permuted), score(prediction), rtol=1e-5, atol=1e-6)


@every_score
def test_a_score_does_not_change_its_input(score):
    prediction = random_prediction()
    before = prediction.native_logits.clone(), prediction.features.clone()
    score(prediction)
    assert torch.equal(prediction.native_logits, before[0])
    assert torch.equal(prediction.features, before[1])


@every_score
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_scored_in_at_least_float32(score, dtype):
    given = random_prediction(dtype=dtype)
    exact = with_features(given.native_logits.double(), given.features.double())
    result = score(given)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, score(exact), rtol=1e-4, atol=1e-6)
    bigger = with_features(given.native_logits, given.features, size=(9, 13))
    exact = with_features(given.native_logits.double(), given.features.double(), size=(9, 13))
    torch.testing.assert_close(score(bigger), score(exact), rtol=1e-4, atol=1e-5)


@every_score
@pytest.mark.parametrize("layout", ["channels last", "every other row", "transposed"])
def test_the_layout_in_memory_does_not_matter(score, layout):
    change = {
        "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "every other row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
        "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    }[layout]
    plain = random_prediction()
    other = with_features(change(plain.logits), change(plain.features))
    torch.testing.assert_close(score(other), score(plain))


@pytest.mark.parametrize("score", ALONE)
@pytest.mark.parametrize("classes", [2, 6, 150])
def test_uniform_logits_are_more_doubtful_than_a_confident_pixel(score, classes):
    confident = [8.0] + [0.0] * (classes - 1)
    uniform, sure = score(with_features(pixels([0.0] * classes, confident))).flatten()
    assert uniform > sure


@pytest.mark.parametrize("score", ALONE)
def test_doubt_falls_as_the_largest_logit_grows(score):
    rows = [[gap, 0.0, -1.0, -2.0] for gap in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)]
    result = score(with_features(pixels(*rows))).flatten()
    assert (result.diff() < 0).all()


@pytest.mark.parametrize("score", ALONE)
def test_order_is_kept_where_the_softmax_rounds_to_one(score):
    rows = [[gap, 0.0, -1.0, -2.0] for gap in (20.0, 40.0, 80.0)]
    assert pixels(*rows).softmax(1).amax(1).eq(1).sum() >= 2
    steps = score(with_features(pixels(*rows))).flatten().diff()
    if score is scores.divergence:  # saturates at a value far from 0: float32 cannot tell
        assert (steps <= 0).all() and steps[0] < 0
    else:
        assert (steps < 0).all()


@pytest.mark.parametrize("score", FROM_LOGITS)
def test_arithmetic_on_logits_takes_a_plain_tensor(score):
    logits = random_prediction().logits
    torch.testing.assert_close(score(logits), score(with_features(logits)))


@pytest.mark.parametrize("score", FROM_LOGITS)
@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(6),
        torch.zeros(6, 5, 7),
        torch.zeros(2, 1, 5, 7),
        torch.zeros(0, 6, 5, 7),
        torch.zeros(2, 6, 5, 7, dtype=torch.int64),
    ],
    ids=["one axis", "no batch", "one class", "no image", "integers"],
)
def test_a_tensor_that_cannot_be_logits_is_a_usage_error(score, logits):
    with pytest.raises(UsageError):
        score(logits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_a_data_error(bad):
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 1] = bad
    with pytest.raises(DataError, match="finite"):
        scores.entropy(logits)


def test_all_scores_of_one_prediction_share_one_resize(monkeypatch):
    prediction = Prediction(torch.randn(1, 4, 3, 3), size=(9, 9), features=torch.rand(1, 5, 3, 3))
    assert prediction.logits is prediction.logits
    assert prediction.statistics is prediction.statistics
