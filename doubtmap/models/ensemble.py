"""Several networks as one: their mean probability, and what they disagree about.

Several predictions of the same images brought to one, a member at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.network import NetworkSegmenter
from doubtmap.models.preprocessing import Resize
from doubtmap.names import plain_name
from doubtmap.prediction import Members, Prediction, Segmenter
from doubtmap.shown import ShownSegmenter


class MemberSums:
    """Running mean and squared deviations of the members' probabilities.

    Two buffers of `B x C x H x W`, however many members: Welford's update, since a sum of squares
    in float32 loses the small deviations of pixels that all members are sure of.

    Reference:
        Note on a Method for Calculating Corrected Sums of Squares and Products (Welford, 1962),
        https://doi.org/10.2307/1266577
    """

    def __init__(self) -> None:
        self.count = 0
        self.alike = True

    def add(self, member: Prediction) -> None:
        """Take a member; its probabilities at image size count.

        Raises:
            ModelError: for another number of classes, or another image size, than the first's.
        """
        probabilities = member.logits.softmax(1)
        entropy = member.statistics.entropy
        self.count += 1
        if self.count == 1:
            self.names, self.size = member.class_names, member.size
            self.first, self.alike = member.native_logits, True
            self.mean, self.entropy = probabilities, entropy
            self.squares = torch.zeros_like(probabilities)
            return
        if probabilities.shape != self.mean.shape:
            raise ModelError(
                f"ensemble: expected members with equal classes and image sizes, got "
                f"{tuple(self.mean.shape)} and {tuple(probabilities.shape)}. Leave member "
                f"{self.count} out, or wrap it so that its classes are the others'."
            )
        self.alike = self.alike and torch.equal(self.first, member.native_logits)
        deviation = probabilities - self.mean
        self.mean.add_(deviation, alpha=1 / self.count)
        self.squares.addcmul_(deviation, probabilities.sub_(self.mean))
        self.entropy = self.entropy + (entropy - self.entropy) / self.count

    def prediction(self) -> Prediction:
        """The mean's prediction, at image size, with what the members disagree about."""
        mean = self.mean.clamp_min(torch.finfo(self.mean.dtype).tiny)
        chosen = self.squares.gather(1, mean.argmax(1, keepdim=True))[:, 0]
        spread = (chosen / (self.count - 1)).clamp_min(0).sqrt()
        return Prediction(
            mean.log(),
            self.size,
            features_missing="several networks or passes have no features in common",
            class_names=self.names,
            members=Members(self.count, self.entropy, spread),
        )


class Ensemble(ShownSegmenter):
    """Networks with the same classes, run one after the other into running sums.

    Never more than one member's output is held beside the sums. Members may differ in everything
    but their classes: architecture, resolution, normalisation.

    Args:
        members: two or more.

    Raises:
        UsageError: for fewer than two, or for other classes or another order of them.

    Reference:
        Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles
        (Lakshminarayanan et al., 2017), https://arxiv.org/abs/1612.01474
    """

    def __init__(self, members: Sequence[Segmenter]) -> None:
        if len(members) < 2:
            raise UsageError(
                f"ensemble: expected two or more networks, got {len(members)}. Add a member, or "
                f"load the network alone."
            )
        for number, member in enumerate(members, 1):
            if _plain(member) != _plain(members[0]):
                raise UsageError(_other_classes(members[0], number, member))
        self.members = tuple(members)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The members' class names."""
        return self.members[0].class_names

    @property
    def description(self) -> dict[str, object]:
        """What a results file should say: of each member what it says of itself."""
        abouts = [member.description for member in self.members]
        sums = [about.get("sha256") for about in abouts]
        return {
            "source": ",".join(str(about.get("source")) for about in abouts),
            "kind": "ensemble",
            "classes": abouts[0].get("classes"),
            "features": None,
            "members": abouts,
            "sha256": _together(sums) if all(sums) else None,
        }

    def resizing(self, how: Resize) -> Ensemble:
        """The same networks, each of whose images are resized so; see `NetworkSegmenter`.

        Raises:
            UsageError: for another way, or a member that is no network here.
        """
        return Ensemble([resizing(member, how) for member in self.members])

    @property
    def content(self) -> dict[str, object]:
        """Hashes of what each member is, by its number."""
        return {str(at): getattr(each, "content", None) for at, each in enumerate(self.members, 1)}

    def __call__(self, images: Tensor) -> Prediction:
        """Predict with every member in turn.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.

        Returns:
            The prediction of the mean probability, at image size.

        Raises:
            UsageError, ModelError, DataError: as the members do.
            ModelError: for members of different numbers of classes.
        """
        sums = MemberSums()
        for member in self.members:
            sums.add(member(images))
        return sums.prediction()


def _plain(member: Segmenter) -> list[str]:
    return [plain_name(name) for name in member.class_names]


def _together(sums: Sequence[object]) -> str:
    return hashlib.sha256("".join(map(str, sums)).encode()).hexdigest()


def _other_classes(first: Segmenter, number: int, member: Segmenter) -> str:
    expected, got = first.class_names, member.class_names
    if sorted(expected) == sorted(got):
        advice = "The names are the same in another order: train or wrap it with the first's order."
    else:
        advice = "Leave it out, or pass --classes with the names that all members have in common."
    return (
        f"ensemble: expected the classes of the first member ({', '.join(expected) or 'unnamed'}) "
        f"in member {number}, got {', '.join(got) or 'unnamed'}. {advice}"
    )


def resizing(segmenter: Segmenter, how: Resize) -> Segmenter:
    """A network whose images are resized in another way, see `NetworkSegmenter.resizing`.

    Raises:
        UsageError: for another way, or predictions that were made elsewhere.
    """
    if isinstance(segmenter, NetworkSegmenter | Ensemble):
        return segmenter.resizing(how)
    raise UsageError(
        "resize: expected a network that runs here, got predictions that were made elsewhere. "
        "Leave --resize out."
    )
