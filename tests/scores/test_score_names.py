import functools

import pytest
import torch
from predictions import random_prediction

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.scores.parsing import parse_scores, split_names


def test_every_stateless_score_is_found_by_its_name():
    found = parse_scores(",".join(scores.STATELESS))
    assert tuple(found) == scores.STATELESS
    assert all(score is getattr(scores, name) for name, score in found.items())


def test_names_are_split_at_commas_outside_brackets():
    assert split_names(" a, b(c=1,d=2) ,,e ") == ["a", "b(c=1,d=2)", "e"]


def test_parameters_reach_the_score():
    prediction = random_prediction()
    found = parse_scores(
        "gradient(p=inf, label=uniform,variant=published),divergence(temperature=1)"
    )
    assert list(found) == [
        "gradient(p=inf,label=uniform,variant=published)",
        "divergence(temperature=1)",
    ]
    gradient, divergence = found.values()
    expected = scores.gradient(prediction, float("inf"), "uniform", "published")
    assert torch.equal(gradient(prediction), expected)
    assert torch.equal(divergence(prediction), scores.divergence(prediction, 1))


def test_a_switch_takes_true_and_false():
    prediction = random_prediction()
    (score,) = parse_scores("gradient(full_resolution=True)").values()
    assert torch.equal(score(prediction), scores.gradient(prediction, full_resolution=True))


def test_functions_are_named_after_themselves():
    def mine(prediction):
        return prediction.logits[:, 0]

    tempered = functools.partial(scores.divergence, temperature=1)
    found = parse_scores(["entropy", mine, scores.pixel_gradient_norm, tempered])
    assert list(found) == ["entropy", "mine", "gradient", "divergence(temperature=1)"]
    assert found["mine"] is mine


def test_a_mapping_names_its_own_scores():
    wanted = {"doubt": scores.entropy, "other": scores.margin}
    assert parse_scores(wanted) == wanted


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("entrpy", "Did you mean entropy"),
        ("nonsense", "no score 'nonsense'. Known: doubt"),
        ("entropy,entropy", "asked for twice"),
        (["entropy", scores.entropy], "asked for twice"),
        ("", "at least one"),
        ([], "at least one"),
        ({}, "at least one"),
        ("entropy(p=1)", "takes no parameters"),
        ("gradient(q=1)", "takes p, label, variant, full_resolution"),
        ("gradient(1)", "takes p, label"),
        ("gradient(p=-1)", "p > 0"),
        ("gradient(p=0)", "p > 0"),
        ("gradient(p=nan)", "p > 0"),
        ("gradient(p=small)", "p to be a number, got 'small'"),
        ("gradient(p=1,p=2)", "given twice"),
        ("gradient(p=true)", "p to be a value other than true"),
        ("gradient(full_resolution=no)", "full_resolution to be true or false"),
        ("gradient(label=1)", "label=predicted"),
        ("gradient(variant=repo)", "variant=exact"),
        ("divergence(temperature=0)", "temperature above 0"),
        ("gradient(p=1", "NAME"),
        ("gradient)p=1(", "NAME"),
        ("entropy;margin", "NAME"),
    ],
)
def test_a_bad_request_is_a_usage_error_that_says_what_to_do(wanted, message):
    with pytest.raises(UsageError) as caught:
        parse_scores(wanted)
    assert message in str(caught.value)
