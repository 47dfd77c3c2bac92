"""How far a network agrees with labels: by pixel, and as one number an image.

Reference:
    Estimating label quality and errors in semantic segmentation data via any model (Lad and
    Mueller, 2023), https://arxiv.org/abs/2307.05080
"""

from __future__ import annotations

import torch
from torch import Tensor

from doubtmap.errors import UsageError
from doubtmap.kernels import at_least_float32
from doubtmap.prediction import Prediction

TEMPERATURE = 0.1
"""Of the soft minimum, as published."""


def label_probability(prediction: Prediction, label: Tensor) -> Tensor:
    """The probability that a network gives to the class that each pixel is labelled as.

    Class by class, so that never more than two maps of the image's size are held.

    Args:
        prediction: of one image.
        label: `(H, W)` class indices; below 0 is no class of the network.

    Returns:
        `(H, W)` in [0, 1], on the CPU; 1 where there is no class.

    Raises:
        UsageError: for several images, or labels of another size or of classes that it lacks.
    """
    count, classes = prediction.native_logits.shape[:2]
    if count != 1 or tuple(label.shape) != prediction.size or int(label.max()) >= classes:
        raise UsageError(
            f"label_probability: expected one image and labels {prediction.size} of {classes} "
            f"classes, got {count} and {tuple(label.shape)} up to class {int(label.max())}."
        )
    label = label.cpu()
    found = torch.ones(prediction.size)
    log_sum = -prediction.statistics.energy[0].cpu()
    for index in torch.unique(label[label >= 0]).tolist():
        native = at_least_float32(prediction.native_logits[:, index : index + 1])
        logits = prediction.to_size(native)[0, 0].cpu()
        here = label == index
        found[here] = (logits[here] - log_sum[here]).exp().clamp(max=1).float()
    return found


def soft_min(values: Tensor, temperature: float = TEMPERATURE) -> float:
    """The mean of values, in which small ones weigh `exp(-value / temperature)`.

    Between the mean (an infinite temperature) and the minimum (0): a hundred badly labelled pixels
    are seen among a million good ones, a single one is not.

    Args:
        values: any shape, not empty, of what is at most 1 and the higher the better.
        temperature: above 0.

    Raises:
        UsageError: for no values, or a temperature that cannot be.

    Example:
        >>> round(soft_min(torch.tensor([1.0, 1.0, 0.0])), 4)
        0.0001
    """
    if not values.numel() or not temperature > 0:
        raise UsageError(
            f"soft_min: expected values and a temperature above 0, got {values.numel()} and "
            f"{temperature:g}."
        )
    flat = values.reshape(-1).double()
    return float((flat * torch.softmax(-flat / temperature, 0)).sum())
