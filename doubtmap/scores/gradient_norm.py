"""Pixel-wise gradient norms: how hard a label would pull at the last layer's weights.

The last layer may be a 1x1 convolution, a linear layer on tokens, or a convolution of any odd size.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import Label, Variant, log_feature_norm, log_weight_norm
from doubtmap.prediction import Prediction, Window

Of = Literal["weight", "bias"]
LARGEST_LOG = math.log(1e30)
"""Norms beyond 1e30 go on as the tangent of exp, so that float32 keeps their order."""


def pixel_gradient_norm(
    prediction: Prediction,
    p: float = 0.5,
    label: Label = "predicted",
    variant: Variant = "exact",
    full_resolution: bool = False,
    of: Of = "weight",
) -> Tensor:
    """The p-norm of the gradient of a pixel's loss in the weights of the last layer.

    The loss is the cross entropy of the softmax `S` against a made-up label `y`: the predicted
    class, or the uniform distribution. With the features `f` that the layer saw, the gradient is
    the outer product of `S - y` and `f`, so for every p > 0, quasi-norms included,

        norm = || S - y ||_p * || f ||_p,    || v ||_p = (sum_i |v_i|^p)^(1/p),

    without any backward pass. Of a layer that sees `k x k` features for a pixel, `f` is all of
    them, so that `|| f ||_p^p` is the sum of `|| f ||_p^p` over the window. All is computed in
    logarithms.

    Against the predicted class the norm is small where the network is sure: it is a doubt.
    Against the uniform label it is large where the network is sure (at a uniform softmax it is
    0): it is a confidence, so the exact norm of the uniform label is **negated** here.

    The norm is taken at feature resolution and then resized bilinearly, as the authors do, with
    the network's own corner convention. Only weights count; a bias, where the layer has one,
    is left out. With `of=bias` it is the gradient in the bias alone, `|| S - y ||_p`, which needs
    no features and so serves ensembles and saved predictions too.

    Args:
        prediction: with features, unless `of` is `bias`.
        p: order of the norm, above 0; below 1 a quasi-norm; `inf` is the maximum.
        label: `predicted` or `uniform`.
        variant: `exact` is the gradient. `published` has the weights of the authors' code,
            `S (1 - y)` instead of `|S - y|`, never negated: for the uniform label it is a doubt
            only for p < 1; at p = 1 it is the norm of the features alone, beyond a confidence.
        full_resolution: resize logits and features first and take the norm at every image pixel.
            Where the pass is not compiled, that needs `D x H x W` numbers of memory.
        of: `weight` or `bias`, of the last layer.

    Returns:
        `(B, H, W)` float32, >= 0 (<= 0 for the exact norm of the uniform label). Norms above
        1e30 (small p, many features) are continued as `1e30 (1 + log(norm / 1e30))`, which keeps
        their order and does not overflow.

    Raises:
        ModelError: where the prediction has no features and `of` is `weight`.
        UsageError: for p <= 0, an unknown label, variant or `of`, or full resolution of a layer
            that sees more than one pixel of the features.

    Reference:
        Pixel-wise Gradient Uncertainty for Convolutional Neural Networks applied to
        Out-of-Distribution Segmentation (Maag and Riedlinger, 2023),
        https://arxiv.org/abs/2303.06920

    Example:
        >>> import torch
        >>> from doubtmap.prediction import Prediction, Window
        >>> logits, features = torch.zeros(1, 2, 1, 1), torch.ones(1, 3, 1, 1)
        >>> prediction = Prediction(logits, size=(1, 1), features=features)
        >>> pixel_gradient_norm(prediction, p=1).item()  # |S - y| sums to 1, |f| to 3
        3.0
    """
    _check(p, label, variant, of)
    place = prediction.placement if full_resolution else (None, None, False)
    log_norm = log_weight_norm(prediction.native_logits, p, label, variant, *place)
    if of == "weight":
        log_norm = log_norm + _log_norm_seen(prediction, p, full_resolution)
    norm = log_norm.clamp_max(LARGEST_LOG).exp()
    norm = norm * (1 + (log_norm - LARGEST_LOG).clamp_min(0))
    score = -norm if (label, variant) == ("uniform", "exact") else norm
    return (score if full_resolution else prediction.to_size(score[:, None])[:, 0]).float()


def _log_norm_seen(prediction: Prediction, p: float, full_resolution: bool) -> Tensor:
    """Logarithm of the p-norm of the features that the last layer saw for each pixel."""
    features = prediction.require_features("gradient")
    if full_resolution and not prediction.window.single:
        raise UsageError(
            "gradient: expected a last layer that sees one pixel of its features for "
            "full_resolution, got a larger convolution. Leave full_resolution out."
        )
    place = prediction.placement if full_resolution else (None, None, False)
    return _in_window(log_feature_norm(features, p, *place), p, prediction.window)


def _in_window(log_norm: Tensor, p: float, window: Window) -> Tensor:
    """Logarithm of the p-norm of all features in the window around each pixel.

    Args:
        log_norm: `(B, h, w)`, of each pixel's features.
        p: order of the norm.
        window: what the last layer sees for one pixel.

    Returns:
        `(B, h, w)`.
    """
    if window.single:
        return log_norm
    down, right = window.dilation
    reach = (window.columns // 2 * right, window.rows // 2 * down)
    sides = (reach[0], reach[0], reach[1], reach[1])
    if window.padding == "zeros":
        padded = F.pad(log_norm[:, None], sides, value=-math.inf)[:, 0]
    else:
        padded = F.pad(log_norm[:, None], sides, mode=window.padding)[:, 0]
    height, width = log_norm.shape[-2:]
    shifted = [
        padded[:, row * down : row * down + height, column * right : column * right + width]
        for row in range(window.rows)
        for column in range(window.columns)
    ]
    largest = torch.stack(shifted).amax(0)
    if math.isinf(p):
        return largest
    finite = largest.clamp_min(torch.finfo(largest.dtype).min)
    total = torch.zeros_like(largest)
    for part in shifted:
        total += (p * (part - finite)).exp_()
    return finite + total.log() / p


def _check(p: float, label: str, variant: str, of: str) -> None:
    if not p > 0:
        raise UsageError(f"gradient: expected p > 0, such as 0.5 or 2, got p={p}.")
    if label not in get_args(Label):
        raise UsageError(f"gradient: expected label=predicted or label=uniform, got {label!r}.")
    if variant not in get_args(Variant):
        raise UsageError(f"gradient: expected variant=exact or published, got {variant!r}.")
    if of not in get_args(Of):
        raise UsageError(f"gradient: expected of=weight or of=bias, got {of!r}.")


gradient = pixel_gradient_norm
"""The score's name on the command line and in results."""
