"""Scores: per pixel, higher = more doubt, for every one without exception.

A score is a function of a `Prediction`, `(B, H, W)` float32; those that are plain arithmetic on
logits take a tensor `(B, C, H, W)` too. `STATELESS`, `OF_MEMBERS`, `OF_HEADS` and
`OF_QUERIES` list those without fitting.
"""

from typing import TYPE_CHECKING

from doubtmap.lazy import lazily

if TYPE_CHECKING:
    from doubtmap.scores.default import Doubt, doubt
    from doubtmap.scores.density import Density
    from doubtmap.scores.gradient_norm import gradient, pixel_gradient_norm
    from doubtmap.scores.islands import island
    from doubtmap.scores.mahalanobis import Mahalanobis
    from doubtmap.scores.members import (
        distilled,
        member_entropy,
        member_spread,
        mutual_information,
        negative,
    )
    from doubtmap.scores.rejection import rejected
    from doubtmap.scores.sets import LabelSets
    from doubtmap.scores.softmax import divergence, energy, entropy, margin, max_logit, max_softmax
    from doubtmap.scores.sums import Sum
    from doubtmap.scores.wrong import Wrong
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "doubtmap.scores.default": ["Doubt", "doubt"],
            "doubtmap.scores.density": ["Density"],
            "doubtmap.scores.gradient_norm": ["gradient", "pixel_gradient_norm"],
            "doubtmap.scores.islands": ["island"],
            "doubtmap.scores.mahalanobis": ["Mahalanobis"],
            "doubtmap.scores.members": [
                "distilled",
                "member_entropy",
                "member_spread",
                "mutual_information",
                "negative",
            ],
            "doubtmap.scores.rejection": ["rejected"],
            "doubtmap.scores.softmax": [
                "divergence",
                "energy",
                "entropy",
                "margin",
                "max_logit",
                "max_softmax",
            ],
            "doubtmap.scores.sets": ["LabelSets"],
            "doubtmap.scores.sums": ["Sum"],
            "doubtmap.scores.wrong": ["Wrong"],
        },
    )

DEFAULT = "doubt"
"""What commands take where no score is named."""
STATELESS = (
    "doubt",
    "max_softmax",
    "margin",
    "entropy",
    "max_logit",
    "energy",
    "divergence",
    "gradient",
    "island",
)
"""Of one network."""
AROUND = ("doubt", "island")
"""Of these, those that look at what lies around a pixel; the others look at the pixel alone."""
OF_MEMBERS = ("mutual_information", "member_entropy", "member_spread")
"""Of several networks or passes."""
OF_HEADS = ("distilled", "negative")
"""Of a network with a second head, which learnt from several networks, or from negatives."""
OF_QUERIES = ("rejected",)
"""Of a network that predicts masks by queries."""

__all__ = [
    "Density",
    "Doubt",
    "LabelSets",
    "Mahalanobis",
    "Sum",
    "Wrong",
    "distilled",
    "divergence",
    "doubt",
    "energy",
    "entropy",
    "gradient",
    "island",
    "margin",
    "max_logit",
    "max_softmax",
    "member_entropy",
    "member_spread",
    "mutual_information",
    "negative",
    "pixel_gradient_norm",
    "rejected",
]
