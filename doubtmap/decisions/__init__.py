"""Decisions made on held-out images, with what they promise: thresholds and label sets."""

from doubtmap.decisions.file import Threshold, load_threshold, save_threshold
from doubtmap.decisions.sets import check_sets, fit_sets
from doubtmap.decisions.threshold import check_threshold, choose_threshold

__all__ = [
    "Threshold",
    "check_sets",
    "check_threshold",
    "choose_threshold",
    "fit_sets",
    "load_threshold",
    "save_threshold",
]
