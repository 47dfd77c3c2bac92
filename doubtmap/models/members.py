"""Several predictions of the same images brought to one, a member at a time."""

from __future__ import annotations

import torch

from doubtmap.errors import ModelError
from doubtmap.prediction import Members, Prediction


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
            self.mean, self.entropy = probabilities, entropy
            self.squares = torch.zeros_like(probabilities)
            return
        if probabilities.shape != self.mean.shape:
            raise ModelError(
                f"ensemble: expected members with equal classes and image sizes, got "
                f"{tuple(self.mean.shape)} and {tuple(probabilities.shape)}. Leave member "
                f"{self.count} out, or wrap it so that its classes are the others'."
            )
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
