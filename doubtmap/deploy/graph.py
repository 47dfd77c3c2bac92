"""A network and its doubts as one module, which PyTorch's exporters write down."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from doubtmap.deploy.suited import Calibrate, scored
from doubtmap.models import NetworkSegmenter
from doubtmap.models.exported import LOGITS
from doubtmap.models.module import ModuleBackend
from doubtmap.prediction import Prediction, Score

CLASSES = "classes"
"""Name of an output; each doubt is called as its score."""


class Graph(nn.Module):
    """Images in; classes, doubts and, where they are wanted, native logits out.

    Args:
        network: a PyTorch network, which has seen an image.
        scores: by name.
        calibrator: applied to predictions before they are scored.
        logits: whether the native logits are an output, too; calibrated where there is a
            calibrator.
    """

    def __init__(
        self,
        network: NetworkSegmenter,
        scores: Mapping[str, Score],
        calibrator: Calibrate | None = None,
        logits: bool = False,
    ) -> None:
        super().__init__()
        self._segmenter, self._calibrator = network, calibrator
        self._scores, self._logits = dict(scores), logits
        if isinstance(network.source.backend, ModuleBackend):
            self.network = network.source.backend.module  # so that its weights are the graph's

    def predicted(self, images: Tensor) -> Prediction:
        """Predict, and calibrate where that was asked for."""
        prediction = self._segmenter(images)
        return prediction if self._calibrator is None else self._calibrator(prediction)

    def said(self, prediction: Prediction) -> dict[str, Tensor]:
        """The outputs that a prediction gives, by name, in order.

        Returns:
            Classes `(B, H, W)`, uint8, or int32 where there are more than 256; each doubt
            `(B, H, W)` float32; native logits `(B, C, h, w)` float32.
        """
        kind = type_of(prediction.native_logits.shape[1])
        found = {CLASSES: prediction.classes.to(kind), **scored(prediction, self._scores)}
        return found | ({LOGITS: prediction.native_logits.float()} if self._logits else {})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score a batch of images.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.
        """
        return self.said(self.predicted(images))


def type_of(classes: int) -> torch.dtype:
    """The smallest type that holds so many classes, and that every runtime of ONNX knows."""
    return torch.uint8 if classes <= 256 else torch.int32
