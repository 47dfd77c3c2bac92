"""Small hand-made networks, one for each habit that real ones have."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CLASSES = 5
FEATURES = 6


class Tiny(nn.Module):
    """Stride 4, a 1x1 classifier, resized to the image; `wrap` is what forward returns."""

    def __init__(self, wrap=lambda x: x, align_corners=False, resize=True, auxiliary=False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, FEATURES, 3, 2, 1),
            nn.ReLU(),
        )
        self.mix = nn.Conv2d(FEATURES, FEATURES, 1)
        self.classifier = nn.Conv2d(FEATURES, CLASSES, 1)
        self.auxiliary = nn.Conv2d(FEATURES, CLASSES, 1) if auxiliary else None
        self.wrap, self.align_corners, self.resize = wrap, align_corners, resize

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.mix(self.body(x)))

    def forward(self, x: Tensor):
        features = self.features(x)
        logits = 5 * self.classifier(features) if self.resize == "scaled" else None
        logits = self.classifier(features) if logits is None else logits
        if self.auxiliary is not None:
            self.auxiliary(features)
        if self.resize is True:
            size = x.shape[-2:]
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
        elif self.resize == "half":
            size = (x.shape[-2] // 2, x.shape[-1] // 2)
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
        return self.wrap(logits)


class Queries(nn.Module):
    """Class and mask queries at a quarter of the image, as Mask2Former returns them."""

    def __init__(self):
        super().__init__()
        self.masks = nn.Conv2d(3, 7, 4, 4)
        self.classes = nn.Parameter(torch.randn(7, CLASSES + 1))

    def forward(self, x: Tensor):
        classes = self.classes.expand(x.shape[0], -1, -1)
        return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=5 * self.masks(x))


class UNet(nn.Module):
    """Five halvings and skip connections by concatenation: refuses sides not divisible by 32."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(5))
        self.up = nn.ModuleList(nn.Conv2d(8 if i < 4 else 7, 4, 3, 1, 1) for i in range(5))
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for layer in self.down:
            skips.append(F.relu(layer(skips[-1])))
        y = skips.pop()
        for layer in self.up:
            y = F.relu(layer(torch.cat([F.interpolate(y, scale_factor=2.0), skips.pop()], 1)))
        return self.head(y)


def normalised(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


@torch.no_grad()
def own(network, images):
    output = network.eval()(normalised(images))
    return F.interpolate(output, images.shape[-2:], mode="bilinear")
