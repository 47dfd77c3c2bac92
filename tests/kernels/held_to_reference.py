"""Comparisons of a pass with the reference in float64, which every pass must stand."""

import math

import numpy as np
import torch

from doubtmap import kernels
from doubtmap.kernels import reference
from doubtmap.kernels.observed import observed

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


def compare_observed(x, place, bins=15, seed=0):
    """What the labels say of an image's softmax, against NumPy in float64; returns what C says."""
    x, (height, width), rng = x[:1], place[0], np.random.default_rng(seed)
    classes = kernels.resized_statistics(x, *place).classes[0]
    labels = torch.from_numpy(rng.integers(-2, x.shape[1], (height, width)))
    found = observed(x, place, classes, labels, bins)
    logits = kernels.resize_logits(x.double(), *place)[0].flatten(1)
    p, log_p = logits.softmax(0).numpy(), logits.log_softmax(0).numpy()
    truth, chosen = labels.flatten().numpy(), classes.flatten().numpy()
    some = np.flatnonzero(truth >= 0)
    # Rounding of the resized logits, of which p changes by its share.
    off = 1e-5 + 4e-6 * float(x.abs().max())
    doubt = 1 - p[chosen, np.arange(truth.size)]
    np.testing.assert_allclose(found.doubt.flatten().numpy(), doubt, rtol=off, atol=1e-6)
    p, truth, chosen, doubt = p[:, some], truth[some], chosen[some], doubt[some]
    own = np.arange(len(some))
    brier = np.square(p).sum(0) - 2 * p[truth, own] + 1
    np.testing.assert_allclose(found.brier.flatten().numpy()[some], brier, rtol=2 * off, atol=1e-6)
    losses = np.array([len(some), brier.sum(), -log_p[truth, some].sum()])
    np.testing.assert_allclose(found.losses, losses, rtol=2 * off, atol=off * max(1, len(some)))
    confusion = np.zeros((x.shape[1],) * 2, int)
    np.add.at(confusion, (truth, chosen), 1)
    np.testing.assert_array_equal(found.confusion, confusion)
    _compare_bins(found.confidence, 1 - doubt, chosen == truth, bins, off)
    for k, sums in enumerate(found.classwise):
        _compare_bins(sums, p[k], truth == k, bins, off)
    return found


def _compare_bins(sums, p, hit, bins, off):
    """Pixels, hits and summed p by bin, but for those that rounding may put into the next bin."""
    at = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    sure = np.abs(p * bins - np.rint(p * bins)) > bins * off
    sure |= (p < off) | (p > 1 - off)
    for column, weight in enumerate((np.ones_like(p), hit, p)):
        rounding = off * weight.sum() + 1e-6 if column == 2 else 0
        least = np.bincount(at[sure], weight[sure], bins)
        spare = weight[~sure].sum() + rounding
        assert (sums[:, column] >= least - rounding).all()
        assert (sums[:, column] <= least + spare).all()
        assert abs(sums[:, column].sum() - weight.sum()) <= rounding
