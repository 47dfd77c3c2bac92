"""The pass over the logits that all stateless scores share."""

from doubtmap.kernels.reference import PixelStatistics, pixel_statistics

__all__ = ["PixelStatistics", "pixel_statistics"]
