"""Meta classification and meta regression: which predicted segments to distrust.

What a model sees of a table are finite numbers, the same ones in fitting and in use.

Reference:
    Prediction Error Meta Classification in Semantic Segmentation (Rottmann et al., 2020),
    https://arxiv.org/abs/1811.00648; Pixel-wise Gradient Uncertainty for Convolutional Neural
    Networks applied to Out-of-Distribution Segmentation (Maag and Riedlinger, 2024),
    https://arxiv.org/abs/2303.06920. Where we depart: images are parted, not segments, so that no
    segment is judged by a model that has seen its neighbours; inputs are standardised by the
    images fitted to.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doubtmap.errors import DataError, ModelError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.tables import TEXTS, hold_parts, one_of
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Score, digest_of
from doubtmap.scores.parsing import parse_scores, relocated
from doubtmap.segments.estimators import Estimator, Kind, Line, Trees, fit_classifier, fit_regressor
from doubtmap.segments.table import SegmentTable
from doubtmap.shown import ShownFit

PARTS = ("touches", "iou")
"""The estimators of a meta model."""
ROW, NODES = Part("F", torch.float64), Part("T N", torch.int32, low=0)
LINE = {
    **dict.fromkeys(("low", "high", "mean", "weights"), ROW),
    "scale": Part("F", torch.float64, low=sys.float_info.min),
    "offset": Part("1", torch.float64),
}
TREES = {
    "feature": Part("T N", torch.int32),
    "threshold": Part("T N", torch.float64, low=-math.inf, high=math.inf),
    "left": NODES,
    "right": NODES,
    "value": Part("T N", torch.float64),
    "gain": Part("F", torch.float64, low=0),
    "offset": Part("1", torch.float64),
}
KINDS: dict[str, tuple[type[Line] | type[Trees], dict[str, Part]]] = {
    "linear": (Line, LINE),
    "boosting": (Trees, TREES),
}
FILE = FileKind(
    "segments",
    "a fitted meta model of segments",
    "Fit it with: doubtmap fit segments MODEL DATA --out FILE.",
    {"by": one_of(*KINDS), "names": TEXTS, "texts": TEXTS, "digests": TEXTS},
)


def inputs(table: SegmentTable, names: Sequence[str]) -> Array:
    """`(S, F)` float64, finite; an empty interior is given the values of the whole segment.

    Raises:
        ModelError: for a feature that the table lacks.
        DataError: for one that is not finite.
    """
    place = {name: at for at, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ModelError(
            f"segments: expected the features that the model was fitted to, but the table lacks "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. Use the same scores "
            f"and a network with the same classes."
        )
    x = np.empty((len(table), len(names)))
    for at, name in enumerate(names):
        column = table.features[:, place[name]]
        whole = name.removesuffix("_interior")
        if whole != name and whole in place:
            column = np.where(np.isnan(column), table.features[:, place[whole]], column)
        x[:, at] = column
    if not np.isfinite(x).all():
        bad = names[int(np.flatnonzero(~np.isfinite(x).all(0))[0])]
        raise DataError(f"segments: expected finite features, got NaN or infinity in {bad}.")
    return x


@dataclass(frozen=True, eq=False)
class MetaModel(ShownFit):
    """Says of every segment whether it touches its class at all, and what its IoU would be.

    Args:
        kind: `linear` or `boosting`.
        names: of the features that it reads.
        texts: of the scores that the features come from, as `parse_scores` takes them.
        scores: these, by name.
        touches: log-odds of IoU > 0.
        iou: of the adjusted IoU.
        origin: where it comes from; its fingerprint is of logits.
    """

    kind: Kind
    names: tuple[str, ...]
    texts: tuple[str, ...]
    scores: Mapping[str, Score]
    touches: Estimator
    iou: Estimator
    origin: Origin = field(default_factory=Origin)

    @classmethod
    def fit(
        cls, table: SegmentTable, kind: Kind = "boosting", seed: int = 0, **more: Any
    ) -> MetaModel:
        """Fit to labelled segments; those without labelled pixels are left out.

        Args:
            table: with `iou`.
            kind: `linear` or `boosting`.
            seed: of the trees.
            more: fields to set, such as `names`, for some of the features only.

        Raises:
            DataError: without labels, or where all segments are of one kind.
        """
        labelled = labelled_rows(table)
        names = tuple(more.pop("names", table.names))
        x, iou = inputs(labelled, names), labelled.iou
        assert iou is not None
        touches = fit_classifier(x, iou > 0, kind, seed)
        given: dict[str, Any] = {"texts": (), "scores": {}} | more
        return cls(kind, names, touches=touches, iou=fit_regressor(x, iou, kind, seed), **given)

    def probability(self, table: SegmentTable) -> Array:
        """`(S,)` in [0, 1]: that the segment touches its class."""
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-self.touches(inputs(table, self.names)))))

    def expected_iou(self, table: SegmentTable) -> Array:
        """`(S,)` in [0, 1]."""
        return np.asarray(np.clip(self.iou(inputs(table, self.names)), 0, 1))

    @property
    def digest(self) -> str:
        """By which another fit is told apart."""
        told = self.kind, self.names, _digests(self.scores)
        digest = hashlib.sha256(repr(told).encode())
        for tensor in self._tensors.values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            f"{part}.{name}": torch.from_numpy(np.ascontiguousarray(array))
            for part in PARTS
            for name, array in asdict(getattr(self, part)).items()
        }

    def save(self, path: str | Path) -> None:
        """Write the model; the file is whole or not there."""
        entries = {
            "by": self.kind,
            "names": self.names,
            "texts": self.texts,
            "digests": _digests(self.scores),
        }
        write(path, FILE, Content(entries, self._tensors, self.origin))

    @classmethod
    def load(cls, path: str | Path) -> MetaModel:
        """Read what `save` wrote.

        Raises:
            DataError: for another file.
        """
        entries, (touches, iou), origin = read(path, FILE, _parts)
        texts = tuple(entries["texts"])
        scores = parse_scores([relocated(text, Path(path).parent) for text in texts])
        if _digests(scores) != entries["digests"]:
            raise DataError(
                f"{path}: expected the fitted scores that its features came from, but one of "
                f"{', '.join(texts)} was fitted anew. Fit segments again."
            )
        return cls(entries["by"], tuple(entries["names"]), texts, scores, touches, iou, origin)


def labelled_rows(table: SegmentTable) -> SegmentTable:
    """The segments with labelled pixels.

    Raises:
        DataError: where there are no labels.
    """
    if table.iou is None or not np.isfinite(table.iou).any():
        raise DataError(
            "segments: expected labelled segments to fit to, got none. Give data with class labels."
        )
    return table.take(np.isfinite(table.iou))


def _digests(scores: Mapping[str, Score]) -> list[str]:
    return [digest_of(score) for score in scores.values()]


def _parts(content: Content) -> tuple[dict[str, Any], list[Estimator], Origin]:
    """Values, estimators and origin of a file."""
    kind, table = KINDS[content.entries["by"]]
    estimators = []
    for part in PARTS:
        own = {name: x for name, x in content.tensors.items() if name.startswith(f"{part}.")}
        hold_parts(own, {f"{part}.{name}": values for name, values in table.items()})
        estimators.append(kind(**{name: own[f"{part}.{name}"].numpy() for name in table}))
        if estimators[-1].inputs != len(content.entries["names"]):
            raise ValueError("other features than estimators")
    return content.entries, estimators, content.origin
