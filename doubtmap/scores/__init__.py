"""Scores: per pixel, higher = more doubt, for every one without exception.

A score is a function of a `Prediction`, `(B, H, W)` float32; those that are plain arithmetic on
logits take a tensor `(B, C, H, W)` too. `STATELESS`, `OF_MEMBERS`, `OF_STUDENTS` and
`OF_QUERIES` list those without fitting.
"""

from doubtmap.scores.density import Density
from doubtmap.scores.gradient_norm import gradient, pixel_gradient_norm
from doubtmap.scores.mahalanobis import Mahalanobis
from doubtmap.scores.members import distilled, member_entropy, member_spread, mutual_information
from doubtmap.scores.rejected import rejected
from doubtmap.scores.softmax import divergence, energy, entropy, margin, max_logit, max_softmax
from doubtmap.scores.wrong import Wrong

STATELESS = ("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence", "gradient")
"""Of one network."""
OF_MEMBERS = ("mutual_information", "member_entropy", "member_spread")
"""Of several networks or passes."""
OF_STUDENTS = ("distilled",)
"""Of a network with a second head, which learnt from several."""
OF_QUERIES = ("rejected",)
"""Of a network that predicts masks by queries."""

__all__ = [
    "Density",
    "Mahalanobis",
    "Wrong",
    "distilled",
    "divergence",
    "energy",
    "entropy",
    "gradient",
    "margin",
    "max_logit",
    "max_softmax",
    "member_entropy",
    "member_spread",
    "mutual_information",
    "pixel_gradient_norm",
    "rejected",
]
