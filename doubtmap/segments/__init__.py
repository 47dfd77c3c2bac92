"""Segments of a prediction: features, meta classification and regression, images to look at.

A pixel is too small to act on. These are things: connected pixels of one predicted class.
"""

from doubtmap.segments.features import segment_table
from doubtmap.segments.images import image_figures
from doubtmap.segments.judging import CrossJudgement, Judgement, cross_judge, feature_sets, judge
from doubtmap.segments.meta import MetaModel
from doubtmap.segments.partition import Partition
from doubtmap.segments.table import SegmentTable
from doubtmap.segments.targets import adjusted_iou

__all__ = [
    "CrossJudgement",
    "Judgement",
    "MetaModel",
    "Partition",
    "SegmentTable",
    "adjusted_iou",
    "cross_judge",
    "feature_sets",
    "image_figures",
    "judge",
    "segment_table",
]
