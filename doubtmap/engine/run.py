"""One pass over a data set: images read ahead, predictions, and labels in the network's classes.

While the network works on an image, the next ones are decoded. `Pairs` gives predictions with their
labels, one image after the other, to everything that is fitted; where they are read more than once,
they are made once and then read from disk.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from doubtmap.datasets.dataset import Dataset, Sample
from doubtmap.datasets.labels import Matching, check_labels, match_labels
from doubtmap.datasets.reading import read_or_skip
from doubtmap.engine.pool import AHEAD, ahead_of
from doubtmap.engine.settings import (
    data_settings,
    model_settings,
    score_settings,
    with_bands_of,
)
from doubtmap.engine.spread import TRIMMED, looked_at
from doubtmap.errors import DataError, UsageError, within_memory
from doubtmap.files import writing_to
from doubtmap.memory import give_back
from doubtmap.prediction import Prediction, Score, Segmenter, showing


@dataclass
class Skipped:
    """The images that could not be used, and why."""

    reasons: dict[str, str] = field(default_factory=dict)


def read_ahead(
    dataset: Dataset, indices: Iterable[int], skipped: Skipped | None = None, batch: int = 1
) -> Iterator[tuple[int, Sample]]:
    """Read samples in order, a few ahead of their use.

    Args:
        dataset: to read from.
        indices: which samples.
        skipped: takes the images that cannot be read; without it the first one ends the run.
        batch: how many of them are used at once.

    Raises:
        DataError: for an image that cannot be read, unless `skipped` takes it.
    """

    def skip(index: int, error: DataError) -> None:
        assert skipped is not None
        skipped.reasons[dataset.sample_name(index)] = str(error)

    ahead, skip_or_end = ahead_of(batch, AHEAD), None if skipped is None else skip
    read = read_or_skip(dataset.__getitem__, indices, AHEAD, skip_or_end, ahead)
    for done, found in enumerate(read, 1):
        yield found
        del found
        if done % TRIMMED == 0:
            give_back()


Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the images done and the images in all."""


@dataclass
class Run:
    """What all passes of one evaluation share."""

    segmenter: Segmenter
    dataset: Dataset
    scores: dict[str, Score]
    unknown: tuple[str, ...]
    progress: Progress | None
    skipped: Skipped | None = None
    matching: Matching | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("forward", "scores", "metrics", "total"), 0.0)
    )

    def __post_init__(self) -> None:
        self.dataset = with_bands_of(self.segmenter, self.dataset)

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        asked = score_settings(self.scores) | {"unknown": list(self.unknown)}
        return model_settings(self.segmenter) | data_settings(self.dataset) | asked

    def attempt(
        self, sample: Sample, network: Segmenter | None = None
    ) -> tuple[Prediction, Tensor] | None:
        """What `predict` gives; None where the network gives nothing that can be used.

        Args:
            sample: the image with its labels.
            network: what is called in place of the run's own, as of `in_batches`.

        Raises:
            DataError: for such an image, by its name, unless `skipped` takes it.
        """
        try:
            prediction = self._predicted(sample, network or self.segmenter)
        except DataError as error:
            self.leave_out(sample, error)
            return None
        return prediction, self._matched(sample, prediction)

    def leave_out(self, sample: Sample, error: DataError) -> None:
        """Count an image that gives nothing that can be used.

        Raises:
            DataError: for the image by its name, unless `skipped` takes it.
        """
        said = str(error)
        reason = said if said.startswith(f"{sample.name}: ") else f"{sample.name}: {said}"
        if self.skipped is None:
            raise DataError(reason) from error
        self.skipped.reasons[sample.name] = reason

    def predict(self, sample: Sample) -> tuple[Prediction, Tensor]:
        """The prediction of one image, and its labels in the model's classes.

        Raises:
            DataError: for an image whose logits are not finite, or labels that cannot be meant.
        """
        prediction = self._predicted(sample, self.segmenter)
        return prediction, self._matched(sample, prediction)

    def _predicted(self, sample: Sample, network: Segmenter) -> Prediction:
        try:
            size = sample.image.shape[-2:]
            with self.timed("forward"), showing(sample.name), within_memory(size):
                return network(sample.image[None])
        except DataError as error:
            raise DataError(f"{sample.name}: {error}") from error

    def _matched(self, sample: Sample, prediction: Prediction) -> Tensor:
        if self.matching is None:
            self.matching = match_labels(
                self.dataset.class_names,
                self.segmenter.class_names,
                self.unknown,
                channels=prediction.native_logits.shape[1],
            )
        check_labels(sample, len(self.dataset.class_names))
        return self.matching.apply(sample.label)

    def tell(self, stage: str, done: int) -> None:
        """Report progress."""
        if self.progress:
            self.progress(stage, done, len(self.dataset))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of a block to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start


def check_request(segmenter: object, dataset: object, unknown: tuple[str, ...]) -> None:
    """Refuse what cannot work before anything is run or removed."""
    if not isinstance(segmenter, Segmenter) or isinstance(segmenter, type):
        raise UsageError(
            f"evaluate: expected a segmenter, got {type(segmenter).__name__}. Make one with "
            f"doubtmap.load(...)."
        )
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"evaluate: expected a data set, got {type(dataset).__name__}. Open one with "
            f"doubtmap.open_dataset(...)."
        )
    if not len(dataset):
        raise DataError(f"{dataset.name}: expected images, found none.")
    match_labels(dataset.class_names, dataset.class_names, unknown)


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
        object.__setattr__(self, "dataset", with_bands_of(self.segmenter, self.dataset))

    def __len__(self) -> int:
        return len(self.dataset) if self.indices is None else len(self.indices)

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        indices = range(len(self.dataset)) if self.indices is None else self.indices
        look = _Pair(self.dataset, self.unknown)
        pairs = looked_at(self.segmenter, indices, self.dataset.__getitem__, look)
        for done, (prediction, label) in enumerate(pairs, 1):
            yield prediction, label[None].to(prediction.native_logits.device, torch.int64)
            if self.progress:
                self.progress(self.stage, done, len(self))


@dataclass(eq=False)
class _Pair:
    """What a pass of pairs makes of an image: its prediction, and labels in the model's classes."""

    dataset: Dataset
    unknown: tuple[str, ...]
    matching: Matching | None = None

    def __call__(
        self, segmenter: Segmenter, index: int, sample: Sample
    ) -> tuple[Prediction, Tensor]:
        run = Run(segmenter, self.dataset, {}, self.unknown, None, matching=self.matching)
        found = run.predict(sample)
        self.matching = run.matching
        return found


@dataclass(eq=False)
class Remembered:
    """The same pairs, gone through as often as asked for one run of the network.

    The first complete pass keeps native logits, labels and, if asked, features in a temporary
    folder, one file for each image; memory holds one image at a time. The folder goes with the
    object.

    Args:
        pairs: to remember.
        features: whether to keep the features too, which are many times larger.
    """

    pairs: Iterable[tuple[Prediction, Tensor]]
    features: bool = True
    _folder: Path | None = field(default=None, init=False)
    _places: list[dict[str, object]] = field(default_factory=list, init=False)

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]:
        if self._folder is None:
            yield from self._first_pass()
            return
        for index, place in enumerate(self._places):
            tensors = safetensors.torch.load_file(self._folder / f"{index}.safetensors")
            yield _prediction(tensors, place), tensors["label"].long()

    def _first_pass(self) -> Iterator[tuple[Prediction, Tensor]]:
        with writing_to(Path(tempfile.gettempdir()), "temporary folder with TMPDIR"):
            folder = Path(tempfile.mkdtemp(prefix="doubtmap-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        places = []
        for index, (prediction, label) in enumerate(self.pairs):
            tensors, place = _kept(prediction, label, self.features)
            with writing_to(folder, "temporary folder with TMPDIR"):
                (folder / f"{index}.safetensors").write_bytes(safetensors.torch.save(tensors))
            places.append(place)
            yield prediction, label
        self._folder, self._places = folder, places


def _kept(
    prediction: Prediction, label: Tensor, features: bool
) -> tuple[dict[str, Tensor], dict[str, object]]:
    tensors = {"logits": prediction.native_logits, "label": label.to(torch.int16)}
    if features and prediction.features is not None:
        tensors["features"] = prediction.features
    place: dict[str, object] = {
        "size": prediction.size,
        "covered": prediction.covered,
        "align_corners": prediction.align_corners,
        "features_missing": prediction.features_missing,
        "energy_missing": prediction.energy_missing,
        "window": prediction.window,
        "class_names": prediction.class_names,
    }
    return {name: x.detach().cpu().contiguous() for name, x in tensors.items()}, place


def _prediction(tensors: dict[str, Tensor], place: dict[str, object]) -> Prediction:
    return Prediction(
        native_logits=tensors["logits"],
        features=tensors.get("features"),
        **place,  # type: ignore[arg-type]
    )
