"""What was promised on some images, of which other images may be unlike.

A threshold by risk, or by several, and label sets promise that an image loses little; a calibrator,
and `wrong:FILE`, that a probability is one. Each says which score of an image to watch, and what
its probability of being wrong is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from doubtmap.calibration import Calibrated, Calibrator, load_calibrator
from doubtmap.decisions.file import Threshold, load_threshold
from doubtmap.decisions.several import losses_of
from doubtmap.decisions.threshold import pixels_of
from doubtmap.errors import DataError, UsageError
from doubtmap.files import kind_of
from doubtmap.prediction import Fitted, Prediction, Score, Segmenter
from doubtmap.scores.parsing import parse_scores
from doubtmap.scores.sets import LabelSets
from doubtmap.scores.softmax import max_softmax
from doubtmap.scoring import is_probability, prepared

KINDS = ("threshold", "wrong", "calibrator", "label sets")
ONLY = "loss"
"""What the loss is called where there is one."""
GAP = 0.05
"""By how much the share of wrong pixels may exceed the mean probability of wrong, where a
probability was promised: such promises name no number."""


@dataclass(frozen=True, eq=False)
class Promise:
    """A promise and the network that it is of.

    Args:
        path: its file.
        kind: of `KINDS`.
        network: ready for the score; without the calibrator, where that is the promise.
        name: of the score.
        score: whose mean over an image is watched.
        wrong: the probability that a pixel is wrong, which the promise claims.
        fitted: what has seen images, by what it is called.
        digest: of the file, by which another one is told apart.
        threshold: of the score, where it is the promise.
        calibrator: where it is the promise.
        sets: where they are the promise.
    """

    path: str
    kind: str
    network: Segmenter
    name: str
    score: Score
    wrong: Score
    fitted: dict[str, Fitted]
    digest: str
    threshold: Threshold | None = None
    calibrator: Calibrator | None = None
    sets: LabelSets | None = None

    @property
    def segmenter(self) -> Segmenter:
        """The network, calibrated where that is the promise."""
        if self.calibrator is None:
            return self.network
        return Calibrated(self.network, self.calibrator, self.path)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Label classes that are unknown objects to it."""
        return () if self.threshold is None else self.threshold.unknown

    @property
    def limits(self) -> dict[str, float]:
        """What the mean losses of images must not exceed, by name; none for sets by place."""
        if self.threshold is not None:
            return self.threshold.kept or {ONLY: self.threshold.level or 0.0}
        if self.sets is None:
            return {ONLY: GAP}
        if self.sets.per == "class":
            return dict.fromkeys(self._classes(len(self.sets.levels)), self.sets.alpha)
        return {ONLY: self.sets.alpha} if self.sets.per == "image" else {}

    @property
    def lowest(self) -> float:
        """The least that an image can lose."""
        return -1.0 if self.threshold is None and self.sets is None else 0.0

    @property
    def said(self) -> str:
        """What is promised, as a sentence without its end."""
        if self.threshold is not None and self.threshold.kept:
            kept = (f"{name} at most {level:g}" for name, level in self.threshold.kept.items())
            return f"of {self.threshold.of} pixels {', '.join(kept)}"
        if self.threshold is not None:
            return (
                f"the missed share of {self.threshold.of} pixels is at most {self.limits[ONLY]:g}"
            )
        if self.sets is not None:
            whose = {"image": "pixels", "class": "pixels of each class", "place": "each place"}
            return (
                f"the share of {whose[self.sets.per]} whose class is not in their set is at most "
                f"{self.sets.alpha:g}"
            )
        return f"the share of wrong pixels exceeds the mean {self.name} by at most {GAP:g}"

    @property
    def chosen(self) -> dict[str, Fitted]:
        """What was chosen on images, by what it is called: other labels must be held to it."""
        parts = {"the threshold": self.threshold, "the label sets": self.sets}
        return {name: part for name, part in parts.items() if part is not None}

    def losses(self, prediction: Prediction, label: Tensor) -> dict[str, float]:
        """What one image loses, by name; without those of which it has nothing to lose.

        Args:
            prediction: of the image.
            label: `(1, H, W)`, as `Pairs` gives it.

        Returns:
            Of thresholds and sets shares in [0, 1]; else the share of wrong pixels minus the mean
            probability of wrong, in [-1, 1].
        """
        if self.sets is not None:
            return self._uncovered(prediction, label, self.sets)
        if self.threshold is None:
            wrong, counts = pixels_of(prediction, label, "wrong")
            if not counts.any():
                return {}
            gap = wrong.double() - self.wrong(prediction)[0].double()
            return {ONLY: float(gap[counts].mean())}
        positive, counts = pixels_of(prediction, label, self.threshold.of)
        flagged = self.threshold.flag(self.score(prediction)[0])
        found = losses_of(flagged, positive, counts)
        if self.threshold.kept:
            return {name: found[name] for name in self.threshold.kept if name in found}
        if found and self.threshold.empty:
            return {ONLY: found.get("missed", 0.0)}
        return {ONLY: found["missed"]} if "missed" in found else {}

    def loss(self, prediction: Prediction, label: Tensor) -> float | None:
        """The first of `losses`; None where there is nothing to lose."""
        return next(iter(self.losses(prediction, label).values()), None)

    def _uncovered(
        self, prediction: Prediction, label: Tensor, sets: LabelSets
    ) -> dict[str, float]:
        truth = label[0]
        counts = truth >= 0
        if not counts.any() or sets.per == "place":
            return {}
        inside = sets.contains(prediction)[0].gather(0, truth.clamp_min(0)[None].long())[0]
        if sets.per == "image":
            return {ONLY: 1 - float(inside[counts].double().mean())}
        names = self._classes(len(sets.levels))
        return {
            names[number]: 1 - float(inside[truth == number].double().mean())
            for number in np.unique(truth[counts].cpu().numpy()).tolist()
        }

    def _classes(self, count: int) -> list[str]:
        return [*self.network.class_names] or [f"class {number}" for number in range(count)]


def open_promise(segmenter: Segmenter, path: str | Path) -> Promise:
    """Open a promise for the network that it was made for.

    Args:
        segmenter: the network, without the calibrator where that is the promise.
        path: a file of `doubtmap threshold` by `risk`, `risks` or `sets`, of `doubtmap fit wrong`
            or `doubtmap calibrate`.

    Raises:
        DataError: for a file that is none of these.
        UsageError: for a threshold that promises nothing, or a network with a calibrator where
            another one is the promise.
        ModelError: for another network.
    """
    kind = kind_of(path)
    if kind not in KINDS:
        raise DataError(
            f"{path}: expected a promise, the file of a threshold by risk or risks, of label sets, "
            f"a calibrator or a fitted wrong, got "
            f"{f'one of {kind}' if kind else 'something else'}. Make one with: "
            f"doubtmap threshold MODEL DATA --scores NAME --of wrong --by risk --out FILE."
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if kind == "threshold":
        return _of_threshold(segmenter, path, digest)
    if kind == "label sets":
        sets = LabelSets.load(path)
        network = prepared(segmenter, {sets.name: sets})
        return Promise(
            str(path), kind, network, sets.name, sets, max_softmax, {}, digest, sets=sets
        )
    if kind == "wrong":
        ((name, score),) = parse_scores([f"wrong:{path}"]).items()
        network = prepared(segmenter, {name: score})
        fitted = _fitted({f"the fit of {name}": score})
        return Promise(str(path), kind, network, name, score, score, fitted, digest)
    if segmenter.description.get("calibrator"):
        raise UsageError(
            f"watch: expected the network as it is, since the promise {path} is a calibrator, got "
            f"one with a calibrator. Leave --calibrator out."
        )
    calibrator = load_calibrator(path)
    Calibrated(segmenter, calibrator, str(path))  # which refuses other classes
    return Promise(
        str(path),
        kind,
        segmenter,
        "max_softmax",
        max_softmax,
        max_softmax,
        {"the calibrator": calibrator},
        digest,
        calibrator=calibrator,
    )


def _of_threshold(segmenter: Segmenter, path: str | Path, digest: str) -> Promise:
    chosen = load_threshold(path)
    if chosen.by not in ("risk", "risks"):
        raise UsageError(
            f"{path}: expected a threshold by risk or risks, got one by {chosen.by}, which "
            f"promises nothing. Choose one with: doubtmap threshold MODEL DATA --by risk."
        )
    if chosen.by == "risks" and not chosen.kept:
        raise DataError(
            f"{path}: expected the levels that its risks are kept at, found none. Choose it again "
            f"with: doubtmap threshold MODEL DATA --by risks --keep missed=0.1."
        )
    chosen.check_network(segmenter)
    name, score = chosen.opened()
    network = prepared(segmenter, {name: score})
    wrong = score if is_probability(score) else max_softmax
    fitted = _fitted({f"the fit of {name}": score})
    return Promise(str(path), "threshold", network, name, score, wrong, fitted, digest, chosen)


def _fitted(parts: dict[str, object]) -> dict[str, Fitted]:
    return {name: part for name, part in parts.items() if isinstance(part, Fitted)}
