"""Give doubtmap any semantic-segmentation model and it tells for every pixel how far to trust it.

```python
import doubtmap as dm

segmenter = dm.load("demo")
dataset = dm.open_dataset("synthetic:4")
results = dm.evaluate(segmenter, dataset, scores=["entropy", "gradient"])
```

Names are imported when they are first used: `import doubtmap` itself does not import PyTorch.
"""

from typing import TYPE_CHECKING

from doubtmap.errors import DataError, DoubtmapError, ModelError, UsageError
from doubtmap.lazy import lazily
from doubtmap.version import __version__

if TYPE_CHECKING:
    from doubtmap import calibration, datasets, decisions, metrics, scores
    from doubtmap.datasets import open_dataset
    from doubtmap.evaluation.evaluate import evaluate
    from doubtmap.evaluation.results import Results
    from doubtmap.models import load
    from doubtmap.prediction import Prediction, Segmenter
    from doubtmap.reports import read_map
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "doubtmap.datasets": ["open_dataset"],
            "doubtmap.evaluation.evaluate": ["evaluate"],
            "doubtmap.evaluation.results": ["Results"],
            "doubtmap.models": ["load"],
            "doubtmap.prediction": ["Prediction", "Segmenter"],
            "doubtmap.reports": ["read_map"],
        },
        rooms=["calibration", "datasets", "decisions", "metrics", "scores"],
    )

__all__ = [
    "DataError",
    "DoubtmapError",
    "ModelError",
    "Prediction",
    "Results",
    "Segmenter",
    "UsageError",
    "__version__",
    "calibration",
    "datasets",
    "decisions",
    "evaluate",
    "load",
    "metrics",
    "open_dataset",
    "read_map",
    "scores",
]
