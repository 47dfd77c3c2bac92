"""Predictions that are right as often as their softmax says."""

import torch

from doubtmap.prediction import Prediction

CLASSES = 5


def calibrated_pairs(count=6, size=(24, 32), seed=0, sharp=3.0, first=0):
    """Predictions and labels drawn from their softmax; some labels are void or unknown."""
    pairs = []
    for number in range(first, first + count):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        logits = sharp * torch.randn(1, CLASSES, *size, generator=generator)
        p = logits.softmax(1)[0].flatten(1).T
        label = torch.multinomial(p, 1, generator=generator).view(1, *size)
        label[0, 0, :5] = torch.tensor([-3, -2, -1, -1, -2])
        pairs.append((Prediction(logits, size, features=torch.ones(1, 1, *size)), label))
    return pairs


def from_channels(values):
    """A prediction whose features are `(S, N)` made-up scores."""
    logits = torch.zeros(1, 2, 1, values.shape[1])
    return Prediction(logits, (1, values.shape[1]), features=values[None, :, None].float())


def channel(number):
    """A score that reads one of the features."""

    def score(prediction):
        return prediction.features[:, number]

    return score
