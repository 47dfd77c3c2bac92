"""A network and its doubts as one module, which PyTorch's exporters write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from doubtmap.models.module import ModuleBackend
from doubtmap.prediction import Prediction, Score, Segmenter

CLASSES, LOGITS = "classes", "native_logits"
"""Names of outputs; each doubt is called as its score."""


class Graph(nn.Module):
    """Images in; classes, doubts and, where they are wanted, native logits out.

    Args:
        segmenter: one PyTorch network, which has seen an image.
        scores: by name.
        calibrator: applied to predictions before they are scored.
        logits: whether the native logits are an output, too; calibrated where there is a
            calibrator.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        scores: Mapping[str, Score],
        calibrator: Callable[[Prediction], Prediction] | None = None,
        logits: bool = False,
    ) -> None:
        super().__init__()
        self._segmenter, self._calibrator = segmenter, calibrator
        self._scores, self._logits = dict(scores), logits
        backend = getattr(getattr(segmenter, "source", None), "backend", None)
        if isinstance(backend, ModuleBackend):
            self.network = backend.module  # so that its weights are the graph's

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names, in order."""
        return (CLASSES, *self._scores, *((LOGITS,) if self._logits else ()))

    def predicted(self, images: Tensor) -> Prediction:
        """Predict, and calibrate where that was asked for."""
        prediction = self._segmenter(images)
        return prediction if self._calibrator is None else self._calibrator(prediction)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score a batch of images.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.

        Returns:
            Classes `(B, H, W)`, uint8 or more where there are more than 256; each doubt
            `(B, H, W)` float32; native logits `(B, C, h, w)`.
        """
        prediction = self.predicted(images)
        classes = prediction.classes.to(type_of(prediction.native_logits.shape[1]))
        doubts = [score(prediction) for score in self._scores.values()]
        extra = (prediction.native_logits.float(),) if self._logits else ()
        return (classes, *doubts, *extra)


def type_of(classes: int) -> torch.dtype:
    """The smallest type that holds so many classes, and that every runtime of ONNX knows."""
    return torch.uint8 if classes <= 256 else torch.int32
