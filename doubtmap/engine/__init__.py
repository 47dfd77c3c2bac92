"""The engine: the only place with readers, progress, journals and passes over a data set."""

from doubtmap.engine.calibrate import Calibration, calibrate
from doubtmap.engine.comparison import Comparison, compare
from doubtmap.engine.evaluate import evaluate
from doubtmap.engine.fit import fit_score
from doubtmap.engine.locations import locate
from doubtmap.engine.pairs import Pairs
from doubtmap.engine.results import Example, Results
from doubtmap.engine.score import ScoredImage, score_images

__all__ = [
    "Calibration",
    "Comparison",
    "Example",
    "Pairs",
    "Results",
    "ScoredImage",
    "calibrate",
    "compare",
    "evaluate",
    "fit_score",
    "locate",
    "score_images",
]
