"""Metrics: over a data set, from accumulators of fixed size that can be merged.

Pooled figures put all pixels into one pot; per-image ones are means over images, and their names
say so.
"""

from doubtmap.metrics.accumulator import Accumulator, Figure
from doubtmap.metrics.components import Components
from doubtmap.metrics.confusion import Confusion, OpenSet
from doubtmap.metrics.histogram import Histogram
from doubtmap.metrics.missed import Missed
from doubtmap.metrics.patches import Patches, boundary_band, random_patches
from doubtmap.metrics.ranking import Ranking, RankingCurve
from doubtmap.metrics.reliability import BinaryReliability, Reliability, brier_score
from doubtmap.metrics.risk import Keeping, area_under_sparsification_error, sparsification

__all__ = [
    "Accumulator",
    "BinaryReliability",
    "Components",
    "Confusion",
    "Figure",
    "Histogram",
    "Keeping",
    "Missed",
    "OpenSet",
    "Patches",
    "Ranking",
    "RankingCurve",
    "Reliability",
    "area_under_sparsification_error",
    "boundary_band",
    "brier_score",
    "random_patches",
    "sparsification",
]
