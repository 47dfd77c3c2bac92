"""Doubt maps of images without labels: in Python, and as the files of `doubtmap score`."""

from doubtmap.images.parts import merge_scores
from doubtmap.images.scoring import ScoredImage, score_images
from doubtmap.images.writing import write_scores

__all__ = ["ScoredImage", "merge_scores", "score_images", "write_scores"]
