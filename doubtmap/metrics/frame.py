"""What one image adds to the sums of classes: confusion, reliability, Brier scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import resize_logits
from doubtmap.kernels.observed import observed, serves
from doubtmap.metrics.accumulator import Array, to_numpy
from doubtmap.metrics.confusion import Confusion
from doubtmap.metrics.reliability import Reliability, ReliabilitySums, brier_score

Placement = tuple[tuple[int, int], tuple[float, float] | None, bool]
"""`size`, `covered` and `align_corners`, as in `doubtmap.kernels.resize`."""


@dataclass(frozen=True, eq=False)
class FrameSums:
    """One image's contribution.

    Args:
        confusion: of its pixels with a label.
        reliability: likewise.
        doubt: `(n,)` float32 of each of these pixels: 1 - probability of the predicted class.
        wrong: `(n,)` bool.
        brier: `(n,)` float32, in [0, 2].
    """

    confusion: Confusion
    reliability: ReliabilitySums
    doubt: Array
    wrong: Array
    brier: Array

    @classmethod
    def of(
        cls, native_logits: Tensor, placement: Placement, classes: Tensor, label: Tensor, bins: int
    ) -> Self:
        """Measure an image.

        In C, in one pass that never makes the full-size logits, where it takes them; in PyTorch
        elsewhere, whose softmax is off by up to 2e-6 of a probability, ten times as much.

        Args:
            native_logits: `(1, C, h, w)`, finite.
            placement: of the native grid on the image.
            classes: `(H, W)` int64, predicted.
            label: `(H, W)` int64, below 0 for none.
            bins: of the reliability diagram.

        Raises:
            UsageError: for labels that are no class.
        """
        some = to_numpy(label) >= 0
        count = native_logits.shape[1]
        if int(label.max()) >= count:
            raise UsageError(
                f"Reliability: expected labels below {count}, got {int(label.max())}. Pass void "
                f"pixels as a label below 0."
            )
        if not serves(native_logits):
            return cls._of_logits(resize_logits(native_logits, *placement), classes, label, bins)
        found = observed(native_logits, placement, classes, label, bins)
        return cls(
            Confusion(found.confusion),
            ReliabilitySums(found.confidence, found.classwise, found.losses),
            *(to_numpy(each)[some] for each in (found.doubt, classes != label, found.brier)),
        )

    @classmethod
    def _of_logits(cls, logits: Tensor, classes: Tensor, label: Tensor, bins: int) -> Self:
        """The same in PyTorch, from full-size logits."""
        valid, count = label >= 0, logits.shape[1]
        confusion = Confusion.empty(count)
        confusion.update(classes, label, valid)
        measured = Reliability(count, bins).measure(logits, label[None], valid[None], classes[None])
        brier = brier_score(logits, label.clamp_min(0)[None])[0][valid]
        return cls(confusion, *measured, to_numpy(brier.float()))
