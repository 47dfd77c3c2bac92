"""Comparisons of a pass with the reference in float64, which every pass must stand."""

import math

import torch

from doubtmap import kernels
from doubtmap.kernels import reference

ORDERS = (0.1, 0.3, 0.5, 1, 2, 3, math.inf)
LOWEST = torch.finfo(torch.float32).min
EXTREMES = [
    [1e4, -1e4, 0.0],
    [-1e4, -1e4, -1e4],
    [1e4, 1e4, 1e4],
    [1e4, 1e4 - 1, -1e4],
    [LOWEST, 0.0, 1.0],
    [LOWEST, -LOWEST, 0.0],
    [LOWEST, LOWEST, LOWEST],
    [0.0, 1e-40, -1e-40],
]


def compare_statistics(native, place, temperature=2.0):
    passed = kernels.resized_statistics(native, *place, temperature=temperature)
    found = kernels.PixelStatistics(*(t.cpu() for t in passed))
    logits = kernels.resize_logits(native.cpu().double(), *place)
    expected = kernels.pixel_statistics(logits)
    # Rounding of the resized logits is relative to the largest of those that they lie between.
    around = kernels.resize_logits(native.cpu().double().abs(), *place)
    scale = 2e-6 * around.amax(1).clamp_min(1)
    for name in ("max_logit", "energy"):
        assert ((getattr(found, name) - getattr(expected, name)).abs() <= scale).all(), name
    for name in ("max_softmax", "margin", "entropy"):
        error = (getattr(found, name) - getattr(expected, name)).abs()
        assert (error <= 1e-6 + (1e-5 + 2 * scale) * getattr(expected, name)).all(), name
    divergence = reference.uniform_divergence(logits, temperature)
    assert ((found.divergence - divergence).abs() <= 2e-6 + scale).all()
    first, second = logits.topk(2, 1).values.unbind(1)
    clear = first - second > 2 * scale
    assert torch.equal(found.classes[clear], expected.classes[clear])
    assert all(torch.isfinite(t).all() for t in found)
    alone = kernels.resized_divergence(native, temperature, *place)
    assert torch.equal(alone.cpu(), found.divergence)


def compare_extremes(logits, device="cpu"):
    """Three logits of any size: nothing overflows, with and without a resize."""
    x = torch.tensor(logits).reshape(1, 3, 1, 1).expand(1, 3, 5, 21).clone()
    x[:, :, 2:] = x[:, :, 2:].roll(1, 1)  # neighbours that disagree
    for place in (((5, 21), None, False), ((9, 43), None, True), ((4, 50), (7.5, 60.0), False)):
        passed = kernels.resized_statistics(x.to(device), *place, temperature=2.0)
        found = kernels.PixelStatistics(*(t.cpu() for t in passed))
        expected = kernels.pixel_statistics(kernels.resize_logits(x.double(), *place))
        for name in ("max_softmax", "margin", "entropy"):
            assert (getattr(found, name) - getattr(expected, name)).abs().max() <= 3e-3, name
            assert torch.isfinite(getattr(found, name)).all()
        assert (found.divergence >= 0).all() and (found.divergence <= math.log(2)).all()
        for label in ("predicted", "uniform"):
            norm = kernels.log_weight_norm(x.to(device), 0.5, label, "exact", *place)
            assert not norm.isnan().any() and (norm < math.log(3**2) + 1e-6).all()


def compare_norms(found, expected, p):
    """In units of the norm itself, and of its logarithm where that is large."""
    zero = expected == -torch.inf
    assert torch.equal(found == -torch.inf, zero)
    error = (found - expected)[~zero].abs()
    assert (error <= (2e-6 + 3e-6 / min(p, 1)) * (1 + expected[~zero].abs())).all()


def compare_weights(logits, p, label, variant, place=()):
    """The norm of the gradient in the logits."""
    found = kernels.log_weight_norm(logits, p, label, variant, *place).cpu()
    resized = kernels.resize_logits(logits.cpu().double(), *(place or (logits.shape[2:],)))
    expected = reference.log_weight_norm(resized, p, label, variant)
    if (label, variant) == ("uniform", "exact"):
        # Near a uniform softmax float32 has no logarithm of the difference: compare norms. A small
        # p takes a high power of sums that have lost digits.
        rtol = 1e-4 / min(p, 1)
        close = torch.isclose(found.double().exp(), expected.exp(), rtol=rtol, atol=1e-6)
        assert close.all()
    else:
        compare_norms(found, expected, p)
