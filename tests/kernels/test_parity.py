"""The compiled pass against the reference in float64."""

import math

import pytest
import torch
from held_to_reference import (
    EXTREMES,
    ORDERS,
    compare_extremes,
    compare_norms,
    compare_statistics,
    compare_weights,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubtmap import kernels
from doubtmap.kernels import reference

SETTINGS = settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def contiguous(x):
    return x


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def cropped(x):
    return torch.nn.functional.pad(x, (3, 2, 1, 4))[:, :, 1 : 1 + x.shape[2], 3 : 3 + x.shape[3]]


def transposed(x):
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def every_other(x):
    return x.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, ::2]


LAYOUTS = [contiguous, channels_last, cropped, transposed, every_other]

cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(
            st.integers(1, 3), st.integers(2, 40), st.integers(1, 20), st.integers(1, 40)
        ),
        "size": st.tuples(st.integers(1, 60), st.integers(1, 90)) | st.none(),
        "padding": st.tuples(st.floats(0, 20), st.floats(0, 20)) | st.none(),
        "align_corners": st.booleans(),
        "layout": st.sampled_from(LAYOUTS),
        "spread": st.sampled_from([0.1, 1.0, 5.0, 30.0]),
        "seed": st.integers(0, 1000),
    }
)


def made(case):
    torch.manual_seed(case["seed"])
    native = case["layout"](torch.randn(case["shape"]) * case["spread"])
    size = case["size"] or tuple(native.shape[2:])
    padding = case["padding"]
    covered = None if padding is None else (size[0] + padding[0], size[1] + padding[1])
    return native, (size, covered, case["align_corners"])


@SETTINGS
@given(case=cases, temperature=st.sampled_from([0.5, 1.0, 2.0, 10.0]))
def test_statistics(built, case, temperature):
    compare_statistics(*made(case), temperature)


@pytest.mark.parametrize("classes", [2, 3, 19, 64, 200])
@pytest.mark.parametrize("size", [(40, 33), (160, 132), (13, 11)])
def test_every_set_of_instructions(instructions, classes, size):
    for align_corners in (False, True):
        compare_statistics(torch.randn(2, classes, 40, 33) * 4, (size, None, align_corners))


@pytest.mark.usefixtures("built")
def test_more_classes_than_a_tile_is_wide():
    compare_statistics(torch.randn(1, 1200, 3, 90) * 3, ((5, 150), None, False))


@pytest.mark.usefixtures("built")
def test_the_first_class_among_equals():
    x = torch.randn(1, 2, 30, 40).repeat(1, 5, 1, 1)
    for size in ((30, 40), (64, 90)):
        assert kernels.resized_statistics(x, size).classes.max() <= 1
        assert (kernels.resized_statistics(x, size).margin == 1).all()
    assert (kernels.resized_statistics(torch.zeros(1, 7, 3, 3), (6, 6)).classes == 0).all()


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("logits", EXTREMES)
def test_extreme_logits(logits):
    compare_extremes(logits)


@SETTINGS
@given(case=cases, p=st.sampled_from(ORDERS), full=st.booleans())
def test_norms_of_features(built, case, p, full):
    features, place = made(case)
    # A small p tells 0 from 1e-17: zeros only where nothing is interpolated.
    features = features.abs() + 0.1 if full else torch.relu(features)
    place = place if full else (None, None, False)
    found = kernels.log_feature_norm(features, p, *place)
    resized = kernels.resize(features.double(), *place) if full else features.double()
    compare_norms(found, reference.log_feature_norm(resized, p), p)


@SETTINGS
@given(
    case=cases,
    p=st.sampled_from(ORDERS),
    label=st.sampled_from(["predicted", "uniform"]),
    variant=st.sampled_from(["exact", "published"]),
)
def test_norms_of_weights(built, case, p, label, variant):
    logits, _ = made(case)
    compare_weights(logits, p, label, variant)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("p", ORDERS)
def test_features_of_any_size_have_a_norm(p):
    features = torch.tensor([1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e30, 3e38])
    x = (features[:, None] * torch.tensor([1.0, -0.5, 0.25])).T.reshape(1, 3, 1, 7)
    found = kernels.log_feature_norm(x, p)
    compare_norms(found, reference.log_feature_norm(x.double(), p), p)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("p", ORDERS)
def test_zeros_infinities_and_nan_in_features_are_told(p):
    x = torch.tensor([[0.0, torch.inf, torch.nan, 2.0], [0.0, 1.0, 1.0, 0.0]]).reshape(1, 2, 1, 4)
    found = kernels.log_feature_norm(x, p).flatten()
    assert found[0] == -torch.inf and found[1] == torch.inf and found[2].isnan()
    assert found[3].item() == pytest.approx(math.log(2))


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("p", ORDERS)
def test_confident_pixels_keep_their_order(p):
    gaps = torch.arange(1.0, 5000.0, 7.0)
    x = torch.stack([gaps, torch.zeros_like(gaps)]).reshape(1, 2, 1, -1)
    norm = kernels.log_weight_norm(x, p, "predicted", "exact").flatten()
    assert (norm.diff() < 0).all()


@pytest.mark.usefixtures("built")
def test_a_uniform_softmax_has_no_gradient_against_the_uniform_label():
    for classes in (2, 3, 7, 19):
        x = torch.full((1, classes, 2, 3), 0.3)
        assert (kernels.log_weight_norm(x, 0.5, "uniform", "exact") == -torch.inf).all()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("size", [(150, 170), (600, 680), (71, 70)])
def test_results_do_not_depend_on_the_number_of_threads(size):
    x = torch.randn(2, 11, 150, 170) * 5
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        norm = kernels.log_weight_norm(x, 0.3, "predicted", "exact", size)
        results.append([*kernels.resized_statistics(x, size, temperature=2.0), norm])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("built")
def test_half_precision_is_widened_before_the_pass():
    x = torch.randn(1, 6, 9, 9).half()
    half, single = (kernels.resized_statistics(t, (20, 20)) for t in (x, x.float()))
    assert half.entropy.dtype == torch.float32
    assert torch.equal(half.entropy, single.entropy)


@pytest.mark.parametrize("classes", [2, 3, 19, 59])
def test_no_divergence_is_below_zero_by_rounding(classes):
    torch.manual_seed(classes)
    logits = 1e-4 * torch.randn(1, classes, 16, 16)
    assert (reference.uniform_divergence(logits, 2.0) >= 0).all()
    found = kernels.resized_statistics(logits, (16, 16), temperature=2.0)
    assert (found.divergence >= 0).all()
