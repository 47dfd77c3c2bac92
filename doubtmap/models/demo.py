"""The demo network: a small segmenter of synthetic streets that travels inside the package."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

DEMO_CLASSES = (
    "road",
    "pavement",
    "building",
    "vegetation",
    "sky",
    "pole",
    "sign",
    "vehicle",
)
"""What the demo network can name, in the order of its logits."""
DEMO_MEAN = (0.45, 0.45, 0.45)
"""Mean of the colours in [0, 1] that the demo network expects to be subtracted."""
DEMO_STD = (0.25, 0.25, 0.25)
"""Spread of the colours in [0, 1] that the demo network expects them to be divided by."""

DEMO_WEIGHTS = Path(__file__).with_name("demo.safetensors")


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(
            inside, outside, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.first_norm = nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        summed: Tensor = self.shortcut(x) + self.second_norm(self.second(inner))
        return F.relu(summed)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class DemoNetwork(nn.Module):
    """An encoder to stride 16, a decoder back to stride 4, and a 1x1 classifier.

    Takes `(B, 3, H, W)` RGB that was in [0, 1] and then normalised with `DEMO_MEAN` and `DEMO_STD`;
    gives logits `(B, 8, H, W)`. `H` and `W` may be anything from 32 pixels on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        self.quarter = _Residual(24, 40, stride=2)
        self.eighth = nn.Sequential(_Residual(40, 72, stride=2), _Residual(72, 72))
        self.sixteenth = nn.Sequential(
            _Residual(72, 112, stride=2), _Residual(112, 112, dilation=3)
        )
        self.scene = nn.Conv2d(112, 64, 1)
        self.from_sixteenth = nn.Conv2d(112, 64, 1)
        self.from_eighth = nn.Conv2d(72, 64, 1)
        self.from_quarter = nn.Conv2d(40, 64, 1)
        self.merge = nn.Sequential(
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 56, 3, padding=1, bias=False),
            nn.BatchNorm2d(56),
            nn.ReLU(),
        )
        self.classifier = nn.Conv2d(56, len(DEMO_CLASSES), 1)

    def features(self, x: Tensor) -> Tensor:
        """What the classifier sees: `(B, 56, H / 4, W / 4)`, rounded up."""
        quarter = self.quarter(self.stem(x))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        scene = self.scene(sixteenth.mean(dim=(2, 3), keepdim=True))
        coarse = F.relu(self.from_sixteenth(sixteenth) + scene)
        middle = F.relu(_resized(coarse, eighth) + self.from_eighth(eighth))
        merged: Tensor = self.merge(_resized(middle, quarter) + self.from_quarter(quarter))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the input's size."""
        return _resized(self.classifier(self.features(x)), x)


def build_demo_network() -> DemoNetwork:
    """The demo network with random weights, in training mode."""
    return DemoNetwork()


def demo_network() -> DemoNetwork:
    """The demo network with the package's weights, in evaluation mode.

    Example:
        >>> import torch
        >>> with torch.no_grad():
        ...     tuple(demo_network()(torch.zeros(1, 3, 64, 96)).shape)
        (1, 8, 64, 96)
    """
    network = DemoNetwork()
    state: dict[str, Tensor] = load_file(DEMO_WEIGHTS)
    # stored in half precision to keep the package small
    full = {
        name: part.float() if part.is_floating_point() else part for name, part in state.items()
    }
    network.load_state_dict(full)
    return network.eval()
