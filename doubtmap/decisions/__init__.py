"""Decisions: thresholds chosen on held-out images, with what they promise, and their files."""

from doubtmap.decisions.file import Threshold, load_threshold, save_threshold
from doubtmap.decisions.threshold import check_threshold, choose_threshold

__all__ = [
    "Threshold",
    "check_threshold",
    "choose_threshold",
    "load_threshold",
    "save_threshold",
]
