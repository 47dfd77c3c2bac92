"""Made-up networks whose best calibrator is known."""

import torch

from doubtmap.prediction import Prediction

CLASSES = 4


def honest_logits(generator, shape=(32, 48), classes=CLASSES):
    """Log-probabilities of a calibrated network, and labels drawn from them."""
    log_p = (2 * torch.randn(1, classes, *shape, generator=generator)).log_softmax(1)
    flat = log_p.exp().movedim(1, -1).reshape(-1, classes)
    label = torch.multinomial(flat, 1, generator=generator).reshape(1, *shape)
    return log_p, label


def honest_pairs(images=6, factor=1.0, seed=0, shape=(32, 48), void=0.1):
    """Pairs whose logits are the honest ones times `factor`, so that the best T is `factor`."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(images):
        log_p, label = honest_logits(generator, shape)
        label[torch.rand(label.shape, generator=generator) < void] = -2
        pairs.append((Prediction(factor * log_p, shape), label))
    return pairs


def lying_pairs(images=3, seed=0, shape=(24, 32), features=3, class_names=()):
    """Pairs that are sure where they should not be, and show by their second class where.

    In half of the pixels the third class is the second likeliest, and there the predicted class
    is right only three times in ten.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(images):
        doubtful = torch.rand(1, *shape, generator=generator) < 0.3
        logits = torch.zeros(1, CLASSES, *shape)
        logits[:, 0] = 4.0 + 0.1 * torch.randn(shape, generator=generator)
        logits[:, 2] = torch.where(doubtful, 1.0, 0.0)
        right = torch.rand(1, *shape, generator=generator) < torch.where(doubtful, 0.3, 0.98)
        label = torch.where(right, 0, 1 + (torch.rand(1, *shape, generator=generator) * 3).long())
        extra = torch.randn(1, features, *shape, generator=generator)
        prediction = Prediction(logits, shape, features=extra, class_names=class_names)
        pairs.append((prediction, label))
    return pairs
