"""All sums of one evaluation, and what one image adds to them.

The sums are fixed in size; only the few numbers per image that the table of images shows grow with
the data set. Measuring an image is kept apart from taking it into the sums, which lets a killed run
go on: observations are journaled first, and replayed exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from doubtmap.datasets.dataset import KNOWN, UNKNOWN
from doubtmap.kernels.counted import curves
from doubtmap.kernels.tables import BinSums, Keys
from doubtmap.metrics import (
    BinaryReliability,
    Confusion,
    Histogram,
    Reliability,
)
from doubtmap.metrics.accumulator import Array, State, join_states, sub_state, to_numpy
from doubtmap.metrics.bootstrap import BootstrapHistogram, BootstrapSums, Weights
from doubtmap.metrics.by_class import ByClass
from doubtmap.metrics.frame import FrameSums
from doubtmap.metrics.histogram import Keyed, keyed, sums_of, value_of
from doubtmap.metrics.patches import PATCH_KINDS, WITH_UNKNOWN, patch_kinds, patch_scores
from doubtmap.metrics.reliability import ONCE, ReliabilitySums
from doubtmap.metrics.removal import Answers, Removal
from doubtmap.prediction import Prediction

VERSION = 8
"""Of the observations and sums as a journal holds them: a run goes on only with its own."""

RIGHT, WRONG, KNOWN_ONLY, IS_UNKNOWN = range(4)
"""Kinds of pixels. `KNOWN_ONLY`: labelled as known without a class, so neither right nor wrong."""

VOID_KIND = 255
"""Of pixels that count for nothing."""


PATCH = 4

EXACT = float(1 << 24)
"""Steps of a Brier score between 0 and 1: float64 sums of half a thousand million are exact."""


@dataclass(frozen=True, eq=False)
class Observation:
    """One image's contribution.

    Args:
        meta: JSON values: `stage` (of the run), `index`, `name`, `void` (pixels), `classes`.
        arrays: `kind` `(N,)` uint8 of the N pixels that are not void, `said`, their predicted
            classes, and `missed`, the labels of the wrong ones; `score/NAME` `(N,)` float32;
            `patch/NAME` and `patches`, `(P,)` mean and kind per patch; `brier`, `doubt`,
            `wrong` per pixel with a class; `confusion` and `reliability/...` sums; of several
            unknown classes `strange`, the label of each unknown pixel. Of the stage of components:
            `NAME/...`, the sums of each score's components.
    """

    meta: dict[str, Any]
    arrays: dict[str, Array]

    def to_bytes(self) -> bytes:
        """For the journal."""
        meta = np.frombuffer(json.dumps(self.meta).encode(), np.uint8)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        return bytes(safetensors.numpy.save(arrays | {"meta": meta}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From the journal."""
        arrays = safetensors.numpy.load(data)
        return cls(json.loads(arrays.pop("meta").tobytes()), arrays)


def observe(
    index: int,
    name: str,
    prediction: Prediction,
    label: Tensor,
    maps: dict[str, Tensor],
    bins: int = 15,
    raw: Tensor | None = None,
) -> Observation:
    """Measure one image.

    Args:
        index: of the image in the data set.
        name: of the image.
        prediction: of this image alone.
        label: `(H, W)` in the model's classes, or `KNOWN`, `UNKNOWN`, `VOID`.
        maps: score maps `(H, W)` by name, finite.
        bins: of the reliability diagram.
        raw: `(H, W)` the data set's own labels, where several of its classes are unknown.
    """
    classes = prediction.classes[0]
    label = label.to(classes.device).long()
    labels = to_numpy(label)
    count, said = prediction.native_logits.shape[1], to_numpy(classes)
    kind = (said != labels).astype(np.uint8)
    kind[labels < 0] = VOID_KIND
    kind[labels == KNOWN], kind[labels == UNKNOWN] = KNOWN_ONLY, IS_UNKNOWN
    counted = kind != VOID_KIND
    index_of = np.uint8 if count <= 256 else np.uint16
    arrays: dict[str, Array] = {"kind": kind[counted], "said": said[counted].astype(index_of)}
    arrays["missed"] = labels[kind == WRONG].astype(index_of)
    for score, values in maps.items():
        arrays[f"score/{score}"] = to_numpy(values)[counted]
    if raw is not None:
        arrays["strange"] = to_numpy(raw)[labels == UNKNOWN].astype(np.int16)
    if (kind <= WRONG).any():
        arrays |= _observe_classes(prediction, label, maps, bins)
    meta = {
        "stage": "pixels",
        "index": index,
        "name": name,
        "void": kind.size - len(arrays["kind"]),
        "classes": count,
    }
    return Observation(meta, arrays)


def _observe_classes(
    prediction: Prediction, label: Tensor, maps: dict[str, Tensor], bins: int
) -> dict[str, Array]:
    """What needs labels that are classes."""
    classes, logits = prediction.classes[0], prediction.native_logits
    found = FrameSums.of(logits, prediction.placement, classes, label, bins)
    sums = found.reliability.state()
    arrays = {f"reliability/{name}": array for name, array in sums.items()}
    arrays |= {
        "confusion": found.confusion.counts,
        "doubt": found.doubt,
        "wrong": found.wrong.astype(np.uint8),
        # In steps whose sums are exact, whatever their order.
        "brier": (np.rint(found.brier * np.float64(EXACT)) / EXACT).astype(np.float32),
    }
    whole, kinds = patch_kinds(classes[None], label[None], (label == UNKNOWN)[None], PATCH)
    arrays["patches"] = to_numpy(kinds)
    for score, values in maps.items():
        arrays[f"patch/{score}"] = patch_scores(values[None], whole, PATCH)
    return arrays


BRIER = 4
"""Channel that sums the Brier score of the pixels with a class, after the kinds of pixels."""


BINS, IMAGE_BINS, PATCH_BINS = 1 << 21, 1 << 15, 1 << 16
Row = dict[str, Any]

PARTS = (
    *("pixels", "errors", "patches", "replicates", "strange", "removal", "by_predicted"),
    *("patch_replicates", "claim_sums", "claim_replicates"),
)
"""Of a `ScoreTally`, as its state names them."""


class ScoreTally:
    """The sums of one score: pixels by kind, Brier scores, patches, and their replicates.

    Args:
        replicates: of the bootstrap.
        bins: of the reliability diagram of a score that claims to be the probability that a pixel
            is wrong; None for others.
    """

    def __init__(self, replicates: int, bins: int | None = None) -> None:
        self.pixels = Histogram(BINS, shape=(4,))
        self.errors = Histogram(IMAGE_BINS, shape=(5,))
        self.patches = Histogram(PATCH_BINS, shape=(PATCH_KINDS,))
        self.replicates = BootstrapHistogram(replicates, channels=4)
        self.strange = ByClass(replicates, BINS)
        self.removal = Removal()
        self.by_predicted = BootstrapSums(1)
        """Pixels and their summed score, `(C,)` each, by predicted class."""
        self.patch_replicates = BootstrapHistogram(replicates, channels=2)
        self.bins = bins
        self.claim_sums = BootstrapSums(1)
        self.claim_replicates = BootstrapSums(replicates)

    @property
    def claim(self) -> BinaryReliability | None:
        """Of a score that claims to be a probability: how often it came true."""
        if self.bins is None:
            return None
        sums = BinaryReliability.empty(self.bins).state()
        return BinaryReliability(**(sums | next(self.claim_sums.each())))

    def absorb(self, other: ScoreTally) -> None:
        """Add what another has summed."""
        for part in PARTS:
            getattr(self, part).absorb(getattr(other, part))

    def take(
        self, name: str, arrays: dict[str, Array], answers: Answers | None, weights: Array
    ) -> Row:
        """Take an image; returns its own figures. Without labels that are classes no `answers`."""
        kind, values = arrays["kind"], arrays[f"score/{name}"]
        brier = arrays.get("brier")
        own = keyed(values)
        self.pixels.update(own, kind)
        more = None if brier is None else (BRIER, brier)
        image = sums_of(own, IMAGE_BINS, 5, kind, more)
        said, classes = arrays["said"], len(arrays["pixels_of"])
        sums = np.bincount(said, values, classes)
        self.by_predicted.add({"pixels": arrays["pixels_of"], "sum": sums}, ONCE)
        if answers is not None:
            self.removal.take(values, answers, own)
            self._take_patches(arrays[f"patch/{name}"], arrays["patches"], weights)
        if self.bins is not None:
            self._claimed(values, kind, weights)
        if "strange" in arrays:
            self.strange.take(values[arrays["unknown"]], arrays["strange"], weights)
        self.errors.add(image)
        self.replicates.add(image, weights)
        return image_figures(image, own, values, kind)

    def _take_patches(self, values: Array, kinds: Array, weights: Array) -> None:
        """Take an image's patches; only those without unknown pixels have replicates."""
        self.patches.add(sums_of(keyed(values), PATCH_BINS, PATCH_KINDS, kinds))
        known, drawn = kinds < WITH_UNKNOWN, self.patch_replicates
        own = keyed(values[known])
        drawn.add(sums_of(own, drawn.total.bins, 2, kinds[known] % 2), weights)

    def _claimed(self, values: Array, kind: Array, weights: Array) -> None:
        """Take an image's probabilities of wrong, and how often they came true."""
        assert self.bins is not None
        image = BinaryReliability.empty(self.bins)
        image.update(values, kind == WRONG, kind <= WRONG)
        self.claim_sums.add(image.state(), ONCE)
        self.claim_replicates.add(image.state(), weights)

    def state(self) -> State:
        """The sums as named arrays."""
        return join_states(**{part: getattr(self, part).state() for part in PARTS})

    @classmethod
    def from_state(cls, state: State, bins: int | None = None) -> Self:
        """The sums whose `state()` this was, with the bins of a claim."""
        tally = cls(state["replicates/sums"].shape[0], bins)
        tally.pixels = Histogram.from_state(sub_state(state, "pixels"))
        tally.errors = Histogram.from_state(sub_state(state, "errors"))
        tally.patches = Histogram.from_state(sub_state(state, "patches"))
        tally.replicates = BootstrapHistogram.from_state(sub_state(state, "replicates"))
        tally.patch_replicates = BootstrapHistogram.from_state(sub_state(state, "patch_replicates"))
        tally.strange.restore(sub_state(state, "strange"))
        tally.removal = Removal.from_state(sub_state(state, "removal"))
        for part in ("claim_sums", "by_predicted"):
            setattr(tally, part, BootstrapSums.from_state(sub_state(state, part), 1))
        tally.claim_replicates = BootstrapSums.from_state(
            sub_state(state, "claim_replicates"), tally.replicates.replicates
        )
        return tally


def threads_for(scores: Sized) -> ThreadPoolExecutor:
    """As many as PyTorch has and one more, at most one a score: scores share no sums."""
    threads = max(1, min(len(scores), torch.get_num_threads() + 1))
    return ThreadPoolExecutor(threads, thread_name_prefix="doubtmap-scores")


class Tally:
    """All sums over the pixels of a data set.

    Args:
        scores: names.
        replicates: of the bootstrap over images.
        seed: of the bootstrap.
        bins: of the reliability diagrams.
        claims: those of the scores that claim to be the probability that a pixel is wrong.
    """

    def __init__(
        self,
        scores: list[str],
        replicates: int = 300,
        seed: int = 0,
        bins: int = 15,
        claims: Collection[str] = (),
    ) -> None:
        self.weights = Weights(replicates, seed)
        self.bins = bins
        self.scores = {n: ScoreTally(replicates, bins if n in claims else None) for n in scores}
        self.confusion: Confusion | None = None
        self.reliability: Reliability | None = None
        self.brier = Histogram(1 << 16, shape=(2,))
        """Pixels with a class, and their summed Brier score, by Brier score."""
        self.segmentation = BootstrapSums(replicates)
        self.kinds = np.zeros(4, np.int64)
        self.void = 0
        self.images: list[Row] = []

    def take(self, seen: Observation, each: Callable[..., Iterable[Row]] = map) -> None:
        """Take an image into all sums; `each` maps over the scores, which share none."""
        arrays, meta = seen.arrays, seen.meta
        weights = self.weights(meta["index"])
        self.kinds += np.bincount(arrays["kind"], minlength=4)
        self.void += meta["void"]
        row: Row = {"image": meta["name"], "index": meta["index"]}
        if "confusion" in arrays:
            row |= self._take_classes(arrays, weights)
        answers, kind, said = None, arrays["kind"], arrays["said"].astype(np.intp)
        pixels_of = np.bincount(said, minlength=meta["classes"])
        arrays = arrays | {"said": said, "pixels_of": pixels_of.astype(np.float64)}
        if "brier" in arrays:
            brier = np.zeros(len(kind), np.float32)
            brier[kind <= WRONG] = arrays["brier"]
            arrays["brier"] = brier
            wrong, out = np.flatnonzero(kind == WRONG), np.flatnonzero(kind > WRONG)
            answers = Answers.of(said, wrong, arrays["missed"], out, meta["classes"])
        if "strange" in arrays:
            arrays = arrays | {"unknown": np.flatnonzero(kind == IS_UNKNOWN)}
        names = list(self.scores)
        rows = each(lambda name: self.scores[name].take(name, arrays, answers, weights), names)
        row["scores"] = dict(zip(names, rows))
        self.images.append(row)

    def absorb(self, other: Tally) -> None:
        """Add what another has summed over other images: the same as to have taken these."""
        self.kinds += other.kinds
        self.void += other.void
        self.images.extend(other.images)
        self.brier.absorb(other.brier)
        self.segmentation.absorb(other.segmentation)
        for name, score in self.scores.items():
            score.absorb(other.scores[name])
        if other.confusion is not None and other.reliability is not None:
            confusion, reliability = self._of_classes(len(other.confusion.counts))
            self.confusion = confusion + other.confusion
            reliability.absorb(other.reliability)

    def _take_classes(self, arrays: dict[str, Array], weights: Array) -> Row:
        confusion = Confusion(arrays["confusion"])
        sums = ReliabilitySums(**sub_state(arrays, "reliability"))
        before, reliability = self._of_classes(len(confusion.counts))
        self.confusion = before + confusion
        reliability.add(sums, arrays["doubt"], arrays["wrong"])
        self.brier.update(arrays["brier"], more=(1, arrays["brier"]))
        self.segmentation.add({"counts": confusion.counts} | sums.state(), weights)
        iou = [None if np.isnan(each) else round(float(each), 4) for each in confusion.iou]
        found = {"miou": confusion.miou, "accuracy": confusion.accuracy, "ece": sums.ece}
        return found | {"iou": iou}

    def _of_classes(self, count: int) -> tuple[Confusion, Reliability]:
        """The sums that need labels that are classes, made where there are none yet."""
        if self.confusion is None or self.reliability is None:
            self.confusion = Confusion.empty(count)
            self.reliability = Reliability(count, self.bins)
        return self.confusion, self.reliability

    def state(self) -> State:
        """The sums as named arrays."""
        state = join_states(
            segmentation=self.segmentation.state(),
            brier=self.brier.state(),
            **{f"score/{name}": score.state() for name, score in self.scores.items()},
        )
        if self.confusion is not None and self.reliability is not None:
            state |= join_states(
                confusion=self.confusion.state(), reliability=self.reliability.state()
            )
        settings = {
            "replicates": self.weights.replicates,
            "seed": self.weights.seed,
            "bins": self.bins,
            "scores": list(self.scores),
            "claims": [name for name, score in self.scores.items() if score.bins is not None],
            "void": self.void,
            "images": self.images,
        }
        state["kinds"] = self.kinds
        state["settings"] = np.frombuffer(json.dumps(settings).encode(), np.uint8)
        return state

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The sums whose `state()` this was."""
        settings = json.loads(state["settings"].tobytes())
        own = ("scores", "replicates", "seed", "bins", "claims")
        tally = cls(*(settings[key] for key in own))
        tally.void, tally.images = settings["void"], settings["images"]
        tally.kinds = state["kinds"].copy()
        tally.brier = Histogram.from_state(sub_state(state, "brier"))
        tally.segmentation = BootstrapSums.from_state(
            sub_state(state, "segmentation"), settings["replicates"]
        )
        for name in tally.scores:
            bins = tally.scores[name].bins
            tally.scores[name] = ScoreTally.from_state(sub_state(state, f"score/{name}"), bins)
        if "confusion/counts" in state:
            tally.confusion = Confusion(state["confusion/counts"].copy())
            tally.reliability = Reliability.from_state(sub_state(state, "reliability"))
        return tally


def image_figures(bins: BinSums, sorted_values: Keyed, values: Array, kind: Array) -> Row:
    """An image's own figures: mean doubt, ranking figures, and the share of pixels missed.

    Missed are the unknown and wrong pixels outside the image's most doubtful fifth.
    """
    row: Row = {"mean": float(values.mean(dtype=np.float64)) if values.size else None}
    right, wrong, known_only, unknown = np.ascontiguousarray(bins.counts[:, : IS_UNKNOWN + 1].T)
    pairs = {"unknown": (unknown, right + wrong + known_only), "wrong": (wrong, right)}
    for name, (positives, negatives) in pairs.items():
        figures = curves(positives[None], negatives[None])[0]
        if not np.isnan(figures[0]):
            row[name] = dict(zip(("auprc", "auroc", "fpr95"), figures.tolist()))
    bad = wrong + unknown
    if bad.any():
        every = right + known_only + bad
        row["missed"] = _missed(bins, np.cumsum(every), np.cumsum(bad), sorted_values.keys, kind)
    return row


def _missed(bins: BinSums, ends: Array, bad: Array, keys: Keys, kind: Array) -> float:
    """Share of the pixels that are wrong or unknown, and below the quantile .8 of the values.

    The bins, of which all pixels and the bad ones are counted up, say between which values the
    quantile lies; only the pixels there are looked at.
    """
    pixels = len(kind)
    place = 0.8 * (pixels - 1)
    ranks = np.minimum([int(place), int(place) + 1], pixels - 1)
    first, last = np.searchsorted(ends, ranks, side="right")
    below, lowest = (int(ends[first - 1]), bad[first - 1]) if first else (0, 0)
    near = keys.between(*(int(key) for key in bins.edges[[first, last + 1]]))
    own = value_of((near >> np.uint64(32)).astype(np.uint32))
    quantile = np.quantile(own[ranks - below], place - int(place))
    kinds = kind[near.astype(np.uint32)]
    missed = np.count_nonzero((own < quantile) & ((kinds == WRONG) | (kinds == IS_UNKNOWN)))
    return float((lowest + missed) / pixels)
