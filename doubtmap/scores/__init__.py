"""Scores: per pixel, higher = more doubt, for every one without exception.

A score is a function of a `Prediction`, `(B, H, W)` float32; those that are plain arithmetic on
logits take a tensor `(B, C, H, W)` too. `STATELESS` lists the names that need no fitting.
"""

from doubtmap.scores.divergence import divergence
from doubtmap.scores.energy import energy
from doubtmap.scores.entropy import entropy
from doubtmap.scores.gradient import gradient, pixel_gradient_norm
from doubtmap.scores.margin import margin
from doubtmap.scores.max_logit import max_logit
from doubtmap.scores.max_softmax import max_softmax

STATELESS = ("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence", "gradient")

__all__ = [
    "divergence",
    "energy",
    "entropy",
    "gradient",
    "margin",
    "max_logit",
    "max_softmax",
    "pixel_gradient_norm",
]
