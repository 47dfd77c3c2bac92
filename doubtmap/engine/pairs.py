"""Predictions and their labels, one image after the other: what everything fitted learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.reading import read_ahead
from doubtmap.engine.run import Progress, Run, check_request
from doubtmap.prediction import Prediction, Segmenter


@dataclass(frozen=True)
class Pairs:
    """`(prediction, label)` of every image of a data set, as often as it is gone through.

    Labels are `(1, H, W)` int64 in the model's classes, on the prediction's device, or below 0:
    `doubtmap.datasets.dataset.VOID`, `UNKNOWN` and `KNOWN`.

    Args:
        segmenter: the network.
        dataset: labelled images.
        unknown: label classes that count as unknown objects; others that the model lacks are void.
        indices: which images; default: all.
        stage: what `progress` calls it.
        progress: told after each image.

    Raises:
        UsageError, DataError: for what `evaluate` refuses too.
    """

    segmenter: Segmenter
    dataset: Dataset
    unknown: tuple[str, ...] = ()
    indices: Sequence[int] | None = None
    stage: str = "fit"
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_request(self.segmenter, self.dataset, self.unknown)

    def __len__(self) -> int:
        return len(self.dataset) if self.indices is None else len(self.indices)

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        run = Run(self.segmenter, self.dataset, {}, self.unknown, None)
        indices = range(len(self.dataset)) if self.indices is None else self.indices
        for done, (_, sample) in enumerate(read_ahead(self.dataset, indices), 1):
            prediction, label = run.predict(sample)
            yield prediction, label[None].to(prediction.native_logits.device, torch.int64)
            if self.progress:
                self.progress(self.stage, done, len(self))
