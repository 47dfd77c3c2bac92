"""A network and its doubts as one module, which PyTorch's exporters write down."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from doubtmap.calibration import Calibrator
from doubtmap.deploy.any_size import of_any_size
from doubtmap.deploy.doubts import as_bytes
from doubtmap.deploy.suited import scored
from doubtmap.models import NetworkSegmenter
from doubtmap.models.exported import LOGITS
from doubtmap.models.module import ModuleBackend
from doubtmap.prediction import Prediction, Score
from doubtmap.runtime import Doubt
from doubtmap.runtime.network import CLASSES, FLAGS

__all__ = ["CLASSES", "FLAGS", "LOGITS", "Graph", "type_of"]


class Graph(nn.Module):
    """Images in; classes, doubts and, where they are wanted, native logits out.

    Args:
        network: a PyTorch network, which has seen an image.
        scores: by name; each output is called as its score.
        calibrator: applied to predictions before they are scored.
        logits: whether the native logits are an output, too; calibrated where there is a
            calibrator.
        native: whether they are the only one: the rest is computed from them.

    Attributes:
        doubts: how each score is written; by default as numbers.
    """

    def __init__(
        self,
        network: NetworkSegmenter,
        scores: Mapping[str, Score],
        calibrator: Calibrator | None = None,
        logits: bool = False,
        native: bool = False,
    ) -> None:
        super().__init__()
        self._segmenter, self._calibrator = network, calibrator
        self._scores, self._logits, self.native = dict(scores), logits and not native, native
        self.doubts: Mapping[str, Doubt] = dict.fromkeys(scores, Doubt())
        if isinstance(network.source.backend, ModuleBackend):
            self.network = network.source.backend.module  # so that its weights are the graph's

    def predicted(self, images: Tensor) -> Prediction:
        """Predict, and calibrate where that was asked for."""
        prediction = self._segmenter(images)
        return prediction if self._calibrator is None else self._calibrator(prediction)

    def scored(self, prediction: Prediction) -> dict[str, Tensor]:
        """Each score of a prediction, `(B, H, W)` float32."""
        if torch._C._get_tracing_state() is None:
            return scored(prediction, self._scores)
        return scored(prediction, {name: of_any_size(x) for name, x in self._scores.items()})

    def said(self, prediction: Prediction) -> dict[str, Tensor]:
        """What is said of a prediction, by name, in order.

        Returns:
            Classes `(B, H, W)`, uint8, or int32 where there are more than 256; each doubt
            `(B, H, W)` float32 or uint8; `flags` `(B, H, W)` uint8 where there is a threshold;
            native logits `(B, C, h, w)` float32.
        """
        kind = type_of(prediction.native_logits.shape[1])
        found, flags = {CLASSES: prediction.classes.to(kind)}, {}
        for name, values in self.scored(prediction).items():
            how = self.doubts[name]
            found[name] = values if how.step is None else as_bytes(values, how)
            if how.threshold is not None:
                flags = {FLAGS: (values > how.threshold).to(torch.uint8)}
        logits = {LOGITS: prediction.native_logits.float()} if self._logits else {}
        return found | flags | logits

    def outputs(self, prediction: Prediction) -> dict[str, Tensor]:
        """What the graph itself says of it: the same, or native logits alone."""
        if self.native:
            return {LOGITS: prediction.native_logits.float()}
        return self.said(prediction)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score a batch of images.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.
        """
        return self.outputs(self.predicted(images))


def type_of(classes: int) -> torch.dtype:
    """The smallest type that holds so many classes, and that every runtime of ONNX knows."""
    return torch.uint8 if classes <= 256 else torch.int32
