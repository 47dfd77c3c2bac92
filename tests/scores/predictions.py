import torch

from doubtmap.prediction import Prediction


def random_prediction(batch=2, classes=6, channels=8, height=5, width=7, dtype=torch.float32):
    logits = 4 * torch.randn(batch, classes, height, width, dtype=torch.float64)
    features = torch.randn(batch, channels, height, width, dtype=torch.float64).relu()
    return with_features(logits.to(dtype), features.to(dtype))


def with_features(logits, features=None, **settings):
    """A prediction of native size, with features of ones unless others are given."""
    if features is None:
        features = torch.ones_like(logits[:, :1])
    settings.setdefault("size", tuple(logits.shape[-2:]))
    return Prediction(logits, features=features, **settings)


def pixels(*rows):
    """Logits `(1, C, 1, N)` from N rows of C numbers."""
    return torch.tensor(rows, dtype=torch.float32).T[None, :, None]
