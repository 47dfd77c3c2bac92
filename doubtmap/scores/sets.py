"""Label sets: for every pixel the classes among which the true one is, and how many they are.

A class is in the set where its nonconformity is at most a level that was chosen on held-out images
(`doubtmap.decisions.sets`), and the predicted class always is. The score is how many classes the
set has: the more, the more doubt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from doubtmap.files import Content, Entry, FileKind, Origin, Part, read, write
from doubtmap.files.tables import TABLE, TEXTS, one_of, whole, within
from doubtmap.kernels import at_least_float32
from doubtmap.prediction import Prediction, Score
from doubtmap.scores.wrong import logits_of
from doubtmap.shown import ShownFit

Form = Literal["lac", "aps", "raps"]
FORMS = ("lac", "aps", "raps")
Per = Literal["image", "class", "place"]
PERS = ("image", "class", "place")
MOST = 128.0
"""The largest nonconformity, of a class whose probability is below e^-128; all classes are in a
set of this level."""
PENALTY, FREE = 0.1, 2
"""Of `raps`: nats for each rank, and the ranks that cost nothing."""
BAND = 1 << 22
"""Numbers of logits that are looked at together."""


def nonconformity(logits: Tensor, classes: Tensor, form: Form) -> Tensor:
    """How strange each class would be as the true one, in nats.

    With classes in the order of their probability:

        lac    -log p_c
        aps    -log of the probability of c and all that rank below it
        raps   aps + 0.1 (rank_c - 2)_+

    The predicted class has 0.

    Args:
        logits: `(B, C, H, W)`.
        classes: `(B, H, W)` int64, predicted.
        form: `lac`, `aps` or `raps`.

    Returns:
        `(B, C, H, W)` float32 in [0, 128].

    Reference:
        Least Ambiguous Set-Valued Classifiers With Bounded Error Levels (Sadinle et al., 2019),
        https://arxiv.org/abs/1609.00451; Classification with Valid and Adaptive Coverage (Romano
        et al., 2020), https://arxiv.org/abs/2006.02544; Uncertainty Sets for Image Classifiers
        using Conformal Prediction (Angelopoulos et al., 2021), https://arxiv.org/abs/2009.14193.
        Departs from the last two: nothing is drawn at random, and masses are taken as their
        logarithm, the penalty too, so that networks that are sure of themselves have levels to
        choose among.
    """
    log_p = at_least_float32(logits).log_softmax(1)
    strange = -log_p if form == "lac" else _by_rank(log_p, form)
    return strange.float().scatter(1, classes[:, None], 0.0).clamp_(0, MOST)


def _by_rank(log_p: Tensor, form: Form) -> Tensor:
    ascending, order = log_p.sort(dim=1, stable=True)
    strange = -ascending.exp().cumsum(1).log()
    if form == "raps":
        rank = torch.arange(log_p.shape[1], 0, -1, device=log_p.device)
        strange += PENALTY * (rank - FREE).clamp_min(0)[:, None, None]
    return torch.empty_like(strange).scatter_(1, order, strange)


def places(prediction: Prediction, rows: int, columns: int) -> Tensor:
    """`(B, H, W)` int64: the group of each pixel, by its cell of the image and predicted class.

    Args:
        prediction: of C classes.
        rows: of the cells.
        columns: of the cells; a pixel's group is `cell * C + class`.
    """
    (height, width), classes = prediction.size, prediction.classes
    row = torch.arange(height, device=classes.device) * rows // height
    column = torch.arange(width, device=classes.device) * columns // width
    cell = row[:, None] * columns + column
    return cell * prediction.native_logits.shape[1] + classes


FILE = FileKind(
    "label sets",
    "fitted label sets",
    "Make them with: doubtmap threshold MODEL DATA --by sets --out FILE.",
    {
        "form": one_of(*FORMS),
        "per": one_of(*PERS),
        "alpha": within(0, 1),
        "rows": whole(1, 1024),
        "columns": whole(1, 1024),
        "figures": Entry("a table", TABLE.holds),
        "notes": TEXTS,
    },
    {"levels": Part("G", torch.float32, 0, MOST)},
)


@dataclass(frozen=True, eq=False)
class LabelSets(ShownFit):
    """The set of classes of every pixel; as a score, how many they are.

    Args:
        levels: `(G,)` float32 in [0, 128], largest nonconformity in the set: one for all pixels,
            of each class, or of each place (see `places`).
        form: of the nonconformity.
        per: what the promise is about: the pixels of an image, those of each true `class` in it,
            or those of each `place`.
        alpha: the promise: the expected share of such pixels of an image whose true class is not
            in their set.
        rows: of places, from top to bottom.
        columns: likewise, from left to right.
        figures: on the data of the fit: `covered` (share of the pixels whose class is in the set)
            and `classes` (mean number in a set), pooled, and `missed`, the largest over the groups
            of the mean over images of the missed share.
        notes: sentences for the user.
        origin: where they come from; its fingerprint is of logits.
    """

    levels: Tensor
    form: Form = "lac"
    per: Per = "image"
    alpha: float = 0.1
    rows: int = 1
    columns: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)

    name: ClassVar[str] = "sets"
    made_by: ClassVar[str] = "doubtmap threshold MODEL DATA --by sets --out FILE"
    READ_OPTIONS: ClassVar[dict[str, Any]] = {}
    FIT_OPTIONS: ClassVar[dict[str, Any]] = {}

    @property
    def digest(self) -> str:
        """By which another fit is told apart."""
        about = (self.form, self.per, self.rows, self.columns)
        return hashlib.sha256(repr(about).encode() + self.levels.numpy().tobytes()).hexdigest()

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers that predictions must carry: none."""
        return ()

    def features(self, prediction: Prediction) -> Tensor:
        """`(B, C, h, w)`, by whose mean over a probe image the network is recognised.

        Raises:
            ModelError: for another number of classes than in the fit.
        """
        return logits_of(prediction, self.origin, self.name)

    def contains(self, prediction: Prediction) -> Tensor:
        """Which classes are in the set of each pixel.

        Returns:
            `(B, C, H, W)` bool; the predicted class always is.

        Raises:
            ModelError: for another number of classes than in the fit.
        """
        self.features(prediction)
        logits, classes, levels = prediction.logits, prediction.classes, self._levels(prediction)
        found = torch.empty_like(logits, dtype=torch.bool)
        step = max(1, BAND // logits[:, :, :1].numel())
        for start in range(0, logits.shape[2], step):
            band = slice(start, start + step)
            strange = nonconformity(logits[:, :, band], classes[:, band], self.form)
            found[:, :, band] = strange <= levels[:, :, band]
        return found

    def _levels(self, prediction: Prediction) -> Tensor:
        """Levels that spread over `(B, C, H, W)`."""
        levels, size = self.levels.to(prediction.native_logits.device), prediction.size
        if self.per == "place":
            return levels[places(prediction, self.rows, self.columns)][:, None]
        return levels[None, :, None, None].expand(1, -1, *size)

    def __call__(self, prediction: Prediction) -> Tensor:
        """How many classes the set of each pixel has.

        Returns:
            `(B, H, W)` float32, whole numbers from 1 to C.

        Raises:
            ModelError: for another number of classes than in the fit.
        """
        return self.contains(prediction).sum(1).float()

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file.

        Raises:
            DataError: where it cannot be written.
        """
        names = [name for name in FILE.entries if name != "figures"]
        entries = {name: getattr(self, name) for name in names}
        entries["figures"] = dict(self.figures)
        write(path, FILE, Content(entries, {"levels": self.levels}, self.origin))

    @classmethod
    def load(cls, path: str | Path, **_: Any) -> Self:
        """Read a file that `save` wrote.

        Raises:
            DataError: for a file that holds no label sets.
        """
        return read(path, FILE, cls._of)

    @classmethod
    def _of(cls, content: Content) -> Self:
        known = content.entries | {"notes": tuple(content.entries["notes"])}
        levels, classes = content.tensors["levels"], len(content.origin.fingerprint)
        cells = known["rows"] * known["columns"]
        wanted = {"image": 1, "class": classes, "place": cells * classes}[known["per"]]
        if classes and len(levels) != wanted:
            raise ValueError(f"{len(levels)} levels for {wanted} groups")
        return cls(levels, **known, origin=content.origin)


def sets_among(scores: Mapping[str, Score]) -> dict[str, LabelSets]:
    """The label sets among scores."""
    return {name: score for name, score in scores.items() if isinstance(score, LabelSets)}
