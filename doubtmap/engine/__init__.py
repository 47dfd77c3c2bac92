"""The engine: the only place with readers, progress, journals and passes over a data set."""

from doubtmap.engine.calibrate import Calibration, calibrate
from doubtmap.engine.comparison import Comparison, compare
from doubtmap.engine.evaluate import evaluate
from doubtmap.engine.fit import fit_score
from doubtmap.engine.locations import locate
from doubtmap.engine.open_set import open_set_figures
from doubtmap.engine.pairs import Pairs
from doubtmap.engine.passes import evaluate_passes
from doubtmap.engine.results import Example, Results
from doubtmap.engine.review import Review, review
from doubtmap.engine.score import ScoredImage, score_images
from doubtmap.engine.segments import fit_segments
from doubtmap.engine.threshold import check_threshold, choose_threshold
from doubtmap.engine.threshold_file import Threshold, load_threshold, save_threshold

__all__ = [
    "Calibration",
    "Comparison",
    "Example",
    "Pairs",
    "Results",
    "Review",
    "ScoredImage",
    "Threshold",
    "calibrate",
    "check_threshold",
    "choose_threshold",
    "compare",
    "evaluate",
    "evaluate_passes",
    "fit_score",
    "fit_segments",
    "load_threshold",
    "locate",
    "open_set_figures",
    "review",
    "save_threshold",
    "score_images",
]
