"""Predictions whose features are class-wise Gaussian."""

import torch

from doubtmap.prediction import Prediction

CLASSES, CHANNELS = 3, 4


def frames(count=6, grid=(8, 9), seed=0, sharp=4.0):
    """Predictions whose features are class-wise Gaussian, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(CLASSES, CHANNELS, generator=generator)
    mixing = torch.randn(CLASSES, CHANNELS, CHANNELS, generator=generator)
    pairs = []
    for _ in range(count):
        label = torch.randint(0, CLASSES, (1, *grid), generator=generator)
        noise = torch.randn(1, *grid, CHANNELS, generator=generator)
        z = means[label] + torch.einsum("bhwij,bhwj->bhwi", mixing[label], noise)
        logits = torch.randn(1, CLASSES, *grid, generator=generator)
        logits.scatter_add_(1, label[:, None], torch.full_like(logits[:, :1], sharp))
        label[0, 0, :2] = -2
        pairs.append((Prediction(logits, grid, features=z.permute(0, 3, 1, 2)), label))
    return pairs


def flat(pairs, scale="none"):
    z = torch.cat([p.features.permute(0, 2, 3, 1).reshape(-1, CHANNELS) for p, _ in pairs])
    p = torch.cat([p.native_logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2) for p, _ in pairs])
    labels = torch.cat([label.flatten() for _, label in pairs])
    keep = labels >= 0
    z = z / z.norm(dim=1, keepdim=True) if scale == "unit" else z
    return z[keep].double().numpy(), labels[keep].numpy(), p[keep].double().numpy()
