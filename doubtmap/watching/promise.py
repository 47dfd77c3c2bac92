"""What was promised on some images, of which other images may be unlike.

A threshold by risk promises that an image loses little; a calibrator, and `wrong:FILE`, that a
probability is one. Each says which score of an image to watch, and what its probability of being
wrong is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from doubtmap.calibration import Calibrated, Calibrator, load_calibrator
from doubtmap.decisions.file import Threshold, load_threshold
from doubtmap.decisions.threshold import pixels_of
from doubtmap.errors import DataError, UsageError
from doubtmap.files import kind_of
from doubtmap.prediction import Fitted, Prediction, Score, Segmenter
from doubtmap.scores.parsing import parse_scores
from doubtmap.scores.softmax import max_softmax
from doubtmap.scoring import is_probability, prepared

KINDS = ("threshold", "wrong", "calibrator")
GAP = 0.05
"""By how much the share of wrong pixels may exceed the mean probability of wrong, where a
probability was promised: such promises name no number."""


@dataclass(frozen=True, eq=False)
class Promise:
    """A promise and the network that it is of.

    Args:
        path: its file.
        kind: `threshold`, `wrong` or `calibrator`.
        network: ready for the score; without the calibrator, where that is the promise.
        name: of the score.
        score: whose mean over an image is watched.
        wrong: the probability that a pixel is wrong, which the promise claims.
        fitted: what has seen images, by what it is called.
        digest: of the file, by which another one is told apart.
        threshold: of the score, where it is the promise.
        calibrator: where it is the promise.
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
    def limit(self) -> float:
        """What the mean loss of an image must not exceed."""
        return GAP if self.threshold is None else self.threshold.level or 0.0

    @property
    def lowest(self) -> float:
        """The least that an image can lose."""
        return 0.0 if self.threshold is not None else -1.0

    @property
    def said(self) -> str:
        """What is promised, for a sentence."""
        if self.threshold is None:
            return f"the share of wrong pixels exceeds the mean {self.name} by at most"
        return f"the missed share of {self.threshold.of} pixels is at most"

    def loss(self, prediction: Prediction, label: Tensor) -> float | None:
        """What one image loses; None where there is nothing to lose.

        Args:
            prediction: of the image.
            label: `(1, H, W)`, as `Pairs` gives it.

        Returns:
            Of a threshold the missed share in [0, 1]; else the share of wrong pixels minus the
            mean probability of wrong, in [-1, 1].
        """
        if self.threshold is None:
            wrong, counts = pixels_of(prediction, label, "wrong")
            if not counts.any():
                return None
            gap = wrong.double() - self.wrong(prediction)[0].double()
            return float(gap[counts].mean())
        positive, counts = pixels_of(prediction, label, self.threshold.of)
        positive = positive & counts
        if not positive.any():
            return 0.0 if self.threshold.empty and counts.any() else None
        missed = positive & ~self.threshold.flag(self.score(prediction)[0])
        return float(missed.sum() / positive.sum())


def open_promise(segmenter: Segmenter, path: str | Path) -> Promise:
    """Open a promise for the network that it was made for.

    Args:
        segmenter: the network, without the calibrator where that is the promise.
        path: a file of `doubtmap threshold --by risk`, `doubtmap fit wrong` or
            `doubtmap calibrate`.

    Raises:
        DataError: for a file that is none of these.
        UsageError: for a threshold that promises nothing, or a network with a calibrator where
            another one is the promise.
        ModelError: for another network.
    """
    kind = kind_of(path)
    if kind not in KINDS:
        raise DataError(
            f"{path}: expected a promise, the file of a threshold by risk, a calibrator or a "
            f"fitted wrong, got {f'one of {kind}' if kind else 'something else'}. Make one with: "
            f"doubtmap threshold MODEL DATA --score NAME --of wrong --by risk --out FILE."
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if kind == "threshold":
        return _of_threshold(segmenter, path, digest)
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
    if chosen.by != "risk":
        raise UsageError(
            f"{path}: expected a threshold by risk, got one by {chosen.by}, which promises "
            f"nothing. Choose one with: doubtmap threshold MODEL DATA --by risk."
        )
    chosen.check_network(segmenter)
    name, score = chosen.opened()
    network = prepared(segmenter, {name: score})
    wrong = score if is_probability(score) else max_softmax
    fitted = _fitted({f"the fit of {name}": score})
    return Promise(str(path), "threshold", network, name, score, wrong, fitted, digest, chosen)


def _fitted(parts: dict[str, object]) -> dict[str, Fitted]:
    return {name: part for name, part in parts.items() if isinstance(part, Fitted)}
