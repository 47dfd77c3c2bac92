"""Files of `doubtmap export` run without PyTorch: ONNX Runtime, NumPy and the pass in C alone.

```python
import doubtmap.runtime

network = doubtmap.runtime.load("net.onnx")
found = network(images)  # (B, 3, H, W) uint8: {"classes": ..., "entropy": ..., "flags": ...}
```

`python -m doubtmap.runtime --include` names the folder of `doubtmap_pixels.h`, for C and C++.
"""

from doubtmap.runtime.network import Network, load
from doubtmap.runtime.pixels import DOUBTS, Doubt, doubts_of

__all__ = ["DOUBTS", "Doubt", "Network", "doubts_of", "load"]
