"""Segments of a prediction: features, meta classification and regression, images to look at.

A pixel is too small to act on. These are things: connected pixels of one predicted class.
"""

from doubtmap.segments.judging import CrossJudgement, Judgement, cross_judge, feature_sets, judge
from doubtmap.segments.meta import MetaModel
from doubtmap.segments.partition import Partition, adjusted_iou, right_share
from doubtmap.segments.table import SegmentTable, expected_figures, segment_table

__all__ = [
    "CrossJudgement",
    "Judgement",
    "MetaModel",
    "Partition",
    "SegmentTable",
    "adjusted_iou",
    "cross_judge",
    "expected_figures",
    "feature_sets",
    "judge",
    "right_share",
    "segment_table",
]
