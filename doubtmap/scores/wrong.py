"""The probability that a pixel is wrong, from any scores: a rising, calibrated fusion of them.

A score ranks pixels; 0.8 nats of entropy do not say how often such a pixel is wrong. Here each
score gets a rising curve, the curves add up to a log-odds, and that is calibrated on images that
the curves have not seen.

The pixels that a fusion of scores learns from: a sample for its curves, all for calibration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.afar import path_of
from doubtmap.files.tables import TEXTS
from doubtmap.kernels import recording
from doubtmap.prediction import FittedScore, Prediction, Score, digest_of
from doubtmap.scores.odds import CELLS, counted, middles
from doubtmap.scores.rising import Additive, Curve, Numbers, fit_additive, rescaled
from doubtmap.shown import ShownFit

SAMPLE = 1 << 18
"""Pixels in all, but for the least that each image gives."""


LEAST = 32


class Pairs(Protocol):
    """Predictions with their labels `(1, H, W)`: a class of the model, or below 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Prediction, Tensor]]: ...


def sample_pixels(
    pairs: Pairs, scores: Mapping[str, Score], seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Equally many pixels of each image, blind to their labels, with what each stands for.

    Args:
        pairs: gone through once.
        scores: by name.
        seed: of the sample.

    Returns:
        Scores `(N, S)` float32, wrong or not `(N,)` bool, and weights `(N,)`: labelled pixels of
        the image for each one taken.

    Raises:
        DataError: for a score that is not finite, or a label that is no class.
    """
    generator = torch.Generator().manual_seed(seed)
    share = max(LEAST, SAMPLE // max(len(pairs), 1))
    rows, kinds, weights = [torch.zeros(0, len(scores))], [torch.zeros(0, dtype=torch.bool)], []
    for prediction, label in pairs:
        labelled = labelled_pixels(prediction, label)
        order = torch.randperm(len(labelled), generator=generator)[:share]
        taken = labelled[order.to(labelled.device)]
        maps = (finite(score(prediction), name) for name, score in scores.items())
        rows.append(torch.stack([values.flatten()[taken] for values in maps], 1).cpu())
        kinds.append((prediction.classes != label).flatten()[taken].cpu())
        weights.append(torch.full((len(taken),), len(labelled) / max(len(taken), 1)))
    return torch.cat(rows), torch.cat(kinds), torch.cat([torch.zeros(0), *weights])


def count_odds(pairs: Pairs, log_odds: Callable[[Prediction], Tensor]) -> tuple[Numbers, Numbers]:
    """Count every right and wrong pixel by its log-odds.

    Returns:
        Counts `(2, M)` of right and wrong pixels, and the cells' log-odds `(M,)`.

    Raises:
        DataError: for a score that is not finite, or a label that is no class.
    """
    counts = np.zeros((2, CELLS))
    for prediction, label in pairs:
        labelled = labelled_pixels(prediction, label)
        wrong = (prediction.classes != label).flatten()[labelled]
        counts += counted(log_odds(prediction).flatten()[labelled], wrong)
    return counts, middles()


def labelled_pixels(prediction: Prediction, label: Tensor) -> Tensor:
    """`(N,)`: where the flattened label is a class.

    Raises:
        DataError: for a label that is no class of the model.
    """
    classes = prediction.native_logits.shape[1]
    if label.numel() and int(label.max()) >= classes:
        raise DataError(
            f"wrong: expected labels below the model's {classes} classes, got {int(label.max())}. "
            f"Match labels and classes by name, as doubtmap.engine.Pairs does."
        )
    return torch.nonzero((label >= 0).flatten())[:, 0]


def check_kinds(wrong: float, right: float, purpose: str) -> None:
    """Refuse pixels of one kind only.

    Raises:
        DataError: where there are no wrong ones or no right ones.
    """
    if wrong and right:
        return
    found = "only wrong ones" if wrong else "only right ones" if right else "none with a label"
    raise DataError(
        f"wrong: expected right and wrong pixels {purpose}, found {found}. Fit on more labelled "
        f"images, whose class names are the model's and on which it makes some mistakes."
    )


def finite(values: Tensor, name: str) -> Tensor:
    """The map in float32, seen to be finite.

    Raises:
        DataError: for NaN or infinities.
    """
    values = values.float()
    if recording(values):
        return values
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise DataError(
            f"wrong: expected finite values of {name}, got NaN or infinity in "
            f"{int((~torch.isfinite(values)).sum())} pixels. Mend the score, or leave it out."
        )
    return values


FILE = FileKind(
    "wrong",
    "a fitted wrong",
    "Fit it with: doubtmap fit wrong MODEL DATA --scores a,b --out FILE.",
    {"texts": TEXTS, "digests": TEXTS, "notes": TEXTS},
    {
        "knots": Part("K", torch.int32),
        "levels": Part("K", torch.float64, -1e9, 1e9),
        "sizes": Part("S", torch.int64, low=1),
        "bias": Part("1", torch.float64, -1e9, 1e9),
    },
)
Opener = Callable[[Sequence[str], Path], Mapping[str, Score]]
"""Gives the scores of texts, as on the command line, and of files beside a folder."""


@dataclass(frozen=True, eq=False)
class Wrong(ShownFit):
    """The probability that a pixel's predicted class is not its label, if it is of a known class.

        log p / (1 - p) = bias + sum_s curve_s(score_s)

    No curve ever falls, so more doubt in any score never means a lower probability. About
    unknown objects it says nothing: they have no place in the fit.

    Args:
        texts: the scores as they are named on the command line, files included.
        scores: the same, opened.
        fitted: their curves and the bias.
        origin: where it comes from; its fingerprint is of logits, so that another calibrator is
            recognised too.
        notes: sentences for the user.

    Reference:
        Additive curves: Generalized Additive Models (Hastie and Tibshirani, 1986),
        https://doi.org/10.1214/ss/1177013604; calibration: Probabilistic outputs for support
        vector machines (Platt, 1999).
    """

    texts: tuple[str, ...]
    scores: tuple[Score, ...]
    fitted: Additive
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()

    name: ClassVar[str] = "wrong"
    made_by: ClassVar[str] = "doubtmap fit wrong MODEL DATA --scores a,b --out FILE"
    probability_of_wrong: ClassVar[bool] = True
    """What it claims to be: `evaluate` checks it."""
    FIT_OPTIONS: ClassVar[dict[str, Any]] = {}
    READ_OPTIONS: ClassVar[dict[str, Any]] = {}

    @property
    def digest(self) -> str:
        """By which another fit is told apart."""
        digest = hashlib.sha256(repr((self.texts, self._digests, self.fitted.bias)).encode())
        for curve in self.fitted.curves:
            digest.update(curve.knots.numpy().tobytes())
            digest.update(curve.levels.numpy().tobytes())
        return digest.hexdigest()

    @property
    def _digests(self) -> list[str]:
        """Of those among the scores that learnt from data."""
        return [digest_of(score) for score in self.scores]

    @property
    def used(self) -> list[tuple[str, Score, Curve]]:
        """Text, score and curve of those that have a say."""
        every = zip(self.texts, self.scores, self.fitted.curves)
        return [(text, score, curve) for text, score, curve in every if curve.rise > 0]

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry: those of the scores."""
        return layers_of(score for _, score, _ in self.used)

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, C, h, w)`, by whose mean over a probe image the network is recognised.

        Raises:
            ModelError: for another number of classes than in the fit.
        """
        return logits_of(prediction, self.origin, self.name)

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction.

        Returns:
            `(B, H, W)` float32 in [0, 1].

        Raises:
            ModelError: for a prediction that one of the scores cannot read.
            DataError: where one of the scores is not finite.
        """
        return self.log_odds(prediction).sigmoid_()

    def log_odds(self, prediction: Prediction) -> Tensor:
        """`(B, H, W)` float32, log p / (1 - p); rises exactly with every score."""
        logits = prediction.native_logits
        shape = (logits.shape[0], *prediction.size)
        total = torch.zeros(shape, dtype=torch.float32, device=logits.device)
        for text, score, curve in self.used:
            total += curve(finite(score(prediction), text))
        return total + self.fitted.bias

    @classmethod
    def fit(
        cls, pairs: Pairs, others: Pairs, scores: Mapping[str, Score], *, seed: int = 0
    ) -> Self:
        """Fit curves on some images, then factor and offset of their sum on others.

        The curves learn from a sample of pixels that is blind to labels, equally many of each
        image, weighted so that it stands for all pixels; the calibration counts every pixel.
        Memory does not grow with the images.

        Args:
            pairs: predictions with labels for the curves; labels below 0 count for nothing.
            others: of other images, for the calibration.
            scores: to fuse, by what they are on the command line, such as `density:FILE`.
            seed: of the sample.

        Raises:
            UsageError: for no score.
            DataError: where there is no wrong or no right pixel, a score is not finite, or all
                are the same everywhere.
        """
        if not scores:
            raise UsageError("wrong: expected scores to fuse. Give --scores entropy,margin, say.")
        texts, opened = tuple(scores), tuple(scores.values())
        values, wrong, weights = sample_pixels(pairs, dict(scores), seed)
        check_kinds(int(wrong.sum()), int((~wrong).sum()), "to fit on")
        fitted = fit_additive(values, wrong, weights)
        raw = cls(texts, opened, fitted)
        if not raw.used:
            raise DataError(
                f"wrong: expected a score that rises where pixels are wrong, but none of "
                f"{', '.join(texts)} does. Choose other scores."
            )
        counts, odds = count_odds(others, raw.log_odds)
        check_kinds(counts[1].sum(), counts[0].sum(), "to calibrate on")
        facts = {"images": len(pairs) + len(others), "images for the curves": len(pairs)}
        done = replace(raw, fitted=rescaled(fitted, counts, odds), origin=Origin(facts=facts))
        return replace(done, notes=done._remarks(values))

    def _remarks(self, values: Tensor) -> tuple[str, ...]:
        """Scores that have no say, and why."""
        notes = []
        same = (values == values[:1]).all(0).tolist()
        for text, curve, constant in zip(self.texts, self.fitted.curves, same):
            if constant:
                notes.append(f"{text}: has no say, since it is the same everywhere.")
            elif curve.rise == 0:
                notes.append(f"{text}: has no say, since the other scores tell all that it tells.")
        if not self.used:
            notes.append(
                "wrong: the images kept apart do not confirm what was learnt from the others, so "
                "the probability is the same everywhere."
            )
        return tuple(notes)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file; scores that learnt from data keep files of their own.

        Raises:
            DataError: where it cannot be written.
        """
        curves = self.fitted.curves
        tensors = {
            "knots": torch.cat([curve.knots for curve in curves]),
            "levels": torch.cat([curve.levels for curve in curves]),
            "sizes": torch.tensor([len(curve.knots) for curve in curves]),
            "bias": torch.tensor([self.fitted.bias], dtype=torch.float64),
        }
        entries = {"texts": self.texts, "digests": self._digests, "notes": self.notes}
        write(path, FILE, Content(entries, tensors, self.origin))

    @classmethod
    def load(cls, path: str | Path, open_scores: Opener, **_: Any) -> Self:
        """Read a file that `save` wrote, and the files of the scores that it is made of.

        Args:
            path: of the file.
            open_scores: gives the scores of texts, such as `doubtmap.scores.parsing.open_scores`;
                a file that is not where it was is looked for beside this one.

        Raises:
            DataError: for a file that is no fitted `wrong`, or whose scores are not those that
                were fused.
        """
        texts, digests, fitted, origin, notes = read(path, FILE, _parts)
        opened = tuple(open_scores(texts, path_of(path).parent).values())
        result = cls(texts, opened, fitted, origin, notes)
        for text, then, now in zip(texts, digests, result._digests):
            if then != now:
                raise DataError(
                    f"{path}: expected {text} to be the fit that was fused, but the file holds "
                    f"another. Put the old file back, or fit wrong again."
                )
        return result


def _parts(
    content: Content,
) -> tuple[tuple[str, ...], tuple[str, ...], Additive, Origin, tuple[str, ...]]:
    """Texts, digests, curves, origin and notes of a file."""
    texts, digests, notes = (tuple(content.entries[key]) for key in ("texts", "digests", "notes"))
    sizes = content.tensors["sizes"].tolist()
    knots, levels = (torch.split(content.tensors[name], sizes) for name in ("knots", "levels"))
    curves = tuple(Curve(*pair) for pair in zip(knots, levels, strict=True))
    if not len(texts) == len(digests) == len(curves):
        raise ValueError(f"{len(texts)} scores and {len(curves)} curves")
    return texts, digests, Additive(curves, content.tensors["bias"].item()), content.origin, notes


def layers_of(scores: Iterable[Score]) -> tuple[str, ...]:
    """Inner layers that predictions must carry for any of the scores."""
    fitted = (score for score in scores if isinstance(score, FittedScore))
    return tuple(dict.fromkeys(layer for score in fitted for layer in score.layers))


def logits_of(prediction: Prediction, origin: Origin, name: str) -> Tensor:
    """Native logits of a network with as many classes as something was fitted to.

    Raises:
        ModelError: for another number of classes.
    """
    expected, found = len(origin.fingerprint), prediction.native_logits.shape[1]
    if expected not in (0, found):
        raise ModelError(
            f"{name}: expected a network of {expected} classes, as in the fit, got {found}. "
            f"Fit again for this network."
        )
    return prediction.native_logits.float()
