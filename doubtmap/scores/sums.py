"""A sum of scores that are each brought to one scale, which ordinary images say."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from doubtmap.errors import DataError, UsageError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.afar import path_of
from doubtmap.files.tables import TEXTS
from doubtmap.prediction import Prediction, Score, digest_of
from doubtmap.scores.wrong import Opener, finite, layers_of, logits_of
from doubtmap.shown import ShownFit

FILE = FileKind(
    "sum",
    "a fitted sum",
    "Fit it with: doubtmap fit sum MODEL DATA --scores a,b --out FILE.",
    {"texts": TEXTS, "digests": TEXTS},
    {
        "means": Part("S", torch.float64),
        "deviations": Part("S", torch.float64, low=1e-30),
    },
)


@dataclass(frozen=True, eq=False)
class Sum(ShownFit):
    """Scores added up, each in deviations from its mean on ordinary images.

        sum_s f((score_s - mean_s) / deviation_s),    f(z) = bound tanh(z / bound), or z

    Mean and deviation are those of all pixels of the fit's images; no labels are looked at.

    Args:
        texts: the scores as they are named on the command line, files included.
        scores: the same, opened.
        means: `(S,)` float64, of each score.
        deviations: `(S,)` float64, likewise, above 0.
        bound: that no score passes, in deviations, so that none outvotes the others; 0: none.
        origin: where it comes from; its fingerprint is of logits.

    Raises:
        UsageError: for a bound below 0.
    """

    texts: tuple[str, ...]
    scores: tuple[Score, ...]
    means: Tensor
    deviations: Tensor
    bound: float = 0.0
    origin: Origin = field(default_factory=Origin)

    name: ClassVar[str] = "sum"
    made_by: ClassVar[str] = "doubtmap fit sum MODEL DATA --scores a,b --out FILE"
    FIT_OPTIONS: ClassVar[dict[str, Any]] = {}
    READ_OPTIONS: ClassVar[dict[str, Any]] = {"bound": 0.0}
    notes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.bound < math.inf:
            raise UsageError(f"sum: expected bound of at least 0, got {self.bound}.")

    @property
    def digest(self) -> str:
        """By which another fit, or another reading of the same file, is told apart."""
        digest = hashlib.sha256(repr((self.texts, self.digests, self.bound)).encode())
        for tensor in (self.means, self.deviations):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @property
    def digests(self) -> list[str]:
        """Of those among the scores that learnt from data."""
        return [digest_of(score) for score in self.scores]

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry: those of the scores."""
        return layers_of(self.scores)

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, C, h, w)`, by whose mean over a probe image the network is recognised.

        Raises:
            ModelError: for another number of classes than in the fit.
        """
        return logits_of(prediction, self.origin, self.name)

    def __call__(self, prediction: Prediction) -> Tensor:
        """Score a prediction.

        Returns:
            `(B, H, W)` float32, in deviations; higher = more doubt.

        Raises:
            ModelError: for a prediction that one of the scores cannot read.
            DataError: where one of the scores is not finite.
        """
        parts = []
        scales = zip(self.means.tolist(), self.deviations.tolist())
        for text, score, (mean, deviation) in zip(self.texts, self.scores, scales):
            z = (finite(score(prediction), text) - mean) / deviation
            parts.append(self.bound * torch.tanh(z / self.bound) if self.bound else z)
        return torch.stack(parts).sum(0)

    @classmethod
    def fit(
        cls, predictions: Iterable[Prediction], scores: Mapping[str, Score], **options: Any
    ) -> Self:
        """Take mean and deviation of each score, in one pass.

        Args:
            predictions: of ordinary images, with the layers that the scores need.
            scores: to add up, by what they are on the command line, such as `density:FILE`.
            options: `bound`.

        Raises:
            UsageError: for fewer than two scores.
            DataError: for no image, or a score that is not finite or the same everywhere.
        """
        if len(scores) < 2:
            raise UsageError(
                "sum: expected two or more scores to add up. Give --scores gradient,island, say."
            )
        sums, count, images = torch.zeros(2, len(scores), dtype=torch.float64), 0, 0
        for prediction in predictions:
            maps = (finite(score(prediction), text) for text, score in scores.items())
            values = torch.stack([m.flatten().double().cpu() for m in maps])
            sums += torch.stack([values.sum(1), values.square().sum(1)])
            count, images = count + values.shape[1], images + len(prediction.native_logits)
        if not count:
            raise DataError("sum: expected images, found none. Name ordinary images of the domain.")
        means, squares = sums / count
        deviations = (squares - means.square()).clamp_min(0).sqrt()
        still = deviations <= 1e-7 * means.abs().clamp_min(1e-20)
        for text, same in zip(scores, still.tolist()):
            if same:
                raise DataError(
                    f"sum: expected scores that vary over the images, but {text} is the same "
                    f"everywhere. Leave it out, or fit on other images."
                )
        origin = Origin(facts={"images": images})
        opened = tuple(scores.values())
        return cls(tuple(scores), opened, means, deviations, origin=origin, **options)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file; scores that learnt from data keep files of their own.

        Raises:
            DataError: where it cannot be written.
        """
        tensors = {"means": self.means, "deviations": self.deviations}
        entries = {"texts": self.texts, "digests": self.digests}
        write(path, FILE, Content(entries, tensors, self.origin))

    @classmethod
    def load(cls, path: str | Path, open_scores: Opener, **options: Any) -> Self:
        """Read a file that `save` wrote, and the files of the scores that it is made of.

        Args:
            path: of the file.
            open_scores: as in `Wrong.load`.
            options: `bound`.

        Raises:
            UsageError: for options that make no sense.
            DataError: for a file that is no fitted sum, or whose scores are not those of the fit.
        """
        texts, digests, means, deviations, origin = read(path, FILE, _parts)
        opened = tuple(open_scores(texts, path_of(path).parent).values())
        result = cls(texts, opened, means, deviations, origin=origin)
        for text, then, now in zip(texts, digests, result.digests):
            if then != now:
                raise DataError(
                    f"{path}: expected {text} to be the fit that was added, but its file holds "
                    f"another. Put the old file back, or fit the sum again."
                )
        return replace(result, **options)


def _parts(
    content: Content,
) -> tuple[tuple[str, ...], tuple[str, ...], Tensor, Tensor, Origin]:
    """Texts, digests, means, deviations and origin of a file."""
    texts, digests = (tuple(content.entries[key]) for key in ("texts", "digests"))
    means, deviations = content.tensors["means"], content.tensors["deviations"]
    if not len(texts) == len(digests) == len(means) == len(deviations):
        raise ValueError(f"{len(texts)} scores and {len(means)} means")
    return texts, digests, means, deviations, content.origin
