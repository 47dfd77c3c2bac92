"""Our metrics as objects of torchmetrics, for loops that have such: several processes, exactly.

Sums of fixed size are sent, not pixels: what comes out is the figure of one process that had seen
what all have seen. PyTorch's `DistributedSampler` gives some images to two processes where their
number does not divide; these count twice, here as anywhere. `doubtmap evaluate --part` has each
once.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import torch
import torchmetrics
from torch import Tensor

from doubtmap.metrics.accumulator import Accumulator


class Merged(torchmetrics.Metric):
    """An accumulator of `doubtmap.metrics` as a metric of torchmetrics.

    Args:
        empty: makes one that has seen nothing, such as `doubtmap.metrics.Ranking`.
        figure: of the accumulator, by the name of its method or property, such as `auroc`; or a
            function of it.
        more: as of `torchmetrics.Metric`.

    Example:
        >>> from doubtmap.metrics import Ranking
        >>> auroc = Merged(Ranking, "auroc")
        >>> auroc.update(torch.tensor([0.1, 0.9, 0.4]), torch.tensor([False, True, False]))
        >>> auroc.compute()
        tensor(1., dtype=torch.float64)
    """

    full_state_update = False

    def __init__(
        self, empty: Callable[[], Any], figure: str | Callable[[Any], float], **more: Any
    ) -> None:
        super().__init__(**more)
        self._empty, self._figure = empty, figure
        self._sums: Any = empty()
        self.add_state("sent", default=[], dist_reduce_fx=None)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take what the accumulator's `update` takes."""
        self._sums.update(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take it, and return the figure of this batch alone."""
        self.update(*args, **kwargs)
        batch = self._empty()
        batch.update(*args, **kwargs)
        return self._of(batch)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Send the sums to all processes."""
        content = torch.frombuffer(bytearray(pickle.dumps(self._sums)), dtype=torch.uint8)
        self.sent = [content.to(self.device)]
        super().sync(*args, **kwargs)
        if not self._is_synced:  # there is one process
            self.sent = []

    def unsync(self, *args: Any, **kwargs: Any) -> None:
        """Forget what the others have sent."""
        super().unsync(*args, **kwargs)
        self.sent = []

    def compute(self) -> Tensor:
        """The figure, a float64 tensor without axes."""
        parts: list[Accumulator] = [
            pickle.loads(each.cpu().numpy().tobytes()) for each in self.sent
        ] or [self._sums]  # what our own processes have sent
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return self._of(total)

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self._sums = self._empty()

    def _of(self, sums: Any) -> Tensor:
        if isinstance(self._figure, str):
            value = getattr(sums, self._figure)
            value = value() if callable(value) else value
        else:
            value = self._figure(sums)
        return torch.tensor(float(value), dtype=torch.float64, device=self.device)
