"""Anybody's network behind one call: `load` takes a module, a folder, an ONNX file and more."""

from doubtmap.models.ensemble import Ensemble
from doubtmap.models.loading import load
from doubtmap.models.network import NetworkSegmenter
from doubtmap.models.passes import MonteCarloDropout, Views

__all__ = ["Ensemble", "MonteCarloDropout", "NetworkSegmenter", "Views", "load"]
