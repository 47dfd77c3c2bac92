"""Calibration: fitted on held-out images, then `Prediction -> Prediction`.

```python
calibrator = dm.calibration.Temperature.fit(pairs)  # pairs: doubtmap.engine.Pairs
calibrated = calibrator(prediction)
```

The predicted class stays, but for `Vector` and `Dirichlet`, whose papers change it.
"""

from doubtmap.calibration.binned import HistogramBinning, Isotonic
from doubtmap.calibration.calibrator import Calibrator, Identity
from doubtmap.calibration.files import Calibrated, load_calibrator, save_calibrator
from doubtmap.calibration.linear import Dirichlet, Vector
from doubtmap.calibration.local import Local
from doubtmap.calibration.meta import Meta
from doubtmap.calibration.methods import METHODS, parse_method
from doubtmap.calibration.preserving import (
    ArgmaxPreserving,
    ClassTemperature,
    DirichletKept,
    OrderPreserving,
    VectorKept,
)
from doubtmap.calibration.selective import Selective, SelectiveConfidence, SelectiveSoft
from doubtmap.calibration.temperature import Temperature, TemperatureMix
from doubtmap.engine.run import Remembered
from doubtmap.files import Origin

__all__ = [
    "METHODS",
    "ArgmaxPreserving",
    "Calibrated",
    "Calibrator",
    "ClassTemperature",
    "Dirichlet",
    "DirichletKept",
    "HistogramBinning",
    "Identity",
    "Isotonic",
    "Local",
    "Meta",
    "OrderPreserving",
    "Origin",
    "Remembered",
    "Selective",
    "SelectiveConfidence",
    "SelectiveSoft",
    "Temperature",
    "TemperatureMix",
    "Vector",
    "VectorKept",
    "load_calibrator",
    "parse_method",
    "save_calibrator",
]
