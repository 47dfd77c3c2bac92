"""The engine: one pass over a data set, its journal, its settings, and what was seen before."""

from doubtmap.engine.run import Pairs

__all__ = ["Pairs"]
