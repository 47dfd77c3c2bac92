"""The engine: the only place with readers, progress, journals and passes over a data set."""

from doubtmap.engine.evaluate import evaluate
from doubtmap.engine.pairs import Pairs
from doubtmap.engine.results import Example, Results
from doubtmap.engine.score import ScoredImage, score_images

__all__ = ["Example", "Pairs", "Results", "ScoredImage", "evaluate", "score_images"]
