"""A small U-Net for thin vessels, as a user brings code: `python:FILE.py:vessel_net`.

Reference:
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer and Brox,
    2015), https://arxiv.org/abs/1505.04597; fewer channels, padded convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 96)


class VesselNet(nn.Module):
    """Images `(B, 3, H, W)` in, logits `(B, 2, H, W)` out; any sides."""

    def __init__(self) -> None:
        super().__init__()
        before = (3, *WIDTHS[:-1])
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip(before, WIDTHS))
        self.up = nn.ModuleList(
            _pair(low + high, high) for low, high in zip(WIDTHS[:0:-1], WIDTHS[-2::-1])
        )
        self.classifier = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        kept, x = [], images
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            kept.append(x)
        for pair, skip in zip(self.up, kept[-2::-1]):
            resized = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = pair(torch.cat([resized, skip], 1))
        logits: Tensor = self.classifier(x)
        return logits


def vessel_net() -> nn.Module:
    """The network, untrained."""
    return VesselNet()


def _pair(channels: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, out):
        layers += [nn.Conv2d(before, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)
