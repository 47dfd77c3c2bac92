"""The pass over the logits that all stateless scores share.

`operators` is the door, for compiled code too: `fused` behind it takes native logits and chooses
between C, Triton and PyTorch. `reference` is the same in plain PyTorch, from full-size logits, on
any device.
"""

from doubtmap.kernels.fused import available
from doubtmap.kernels.labelled import edges_of, moments, segments_of, summed_probabilities
from doubtmap.kernels.operators import (
    log_feature_norm,
    log_weight_norm,
    resized_divergence,
    resized_statistics,
)
from doubtmap.kernels.recording import recording
from doubtmap.kernels.reference import Label, PixelStatistics, Variant, pixel_statistics
from doubtmap.kernels.resizing import at_least_float32, resize, resize_logits

__all__ = [
    "Label",
    "PixelStatistics",
    "Variant",
    "at_least_float32",
    "available",
    "edges_of",
    "log_feature_norm",
    "log_weight_norm",
    "moments",
    "pixel_statistics",
    "recording",
    "resize",
    "resize_logits",
    "resized_divergence",
    "resized_statistics",
    "segments_of",
    "summed_probabilities",
]
