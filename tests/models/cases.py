"""One row of the tables of networks: what is brought, and what must come of it.

Whatever comes is held to the network's own forward pass, so that no row can be wrong in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap import scores
from doubtmap.errors import DoubtmapError
from doubtmap.models import load
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CLASSES = 6
WIDTH = 8
NONE = {"mean": (0, 0, 0), "std": (1, 1, 1)}
SCORES = ("max_softmax", "margin", "entropy", "max_logit", "divergence")


def up(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Maps resized bilinearly, in float32."""
    return F.interpolate(x.float(), size, mode="bilinear", align_corners=align_corners)


class Net(nn.Module):
    """A stride, a last layer of k x k, and what forward makes of the image, by `forwards`.

    The last layer is loud, so that classes and probabilities differ from pixel to pixel.
    """

    def __init__(
        self,
        forwards: Callable[[Net, Tensor], object] = lambda net, x: net.low(x),
        stride: int = 4,
        classes: int = CLASSES,
        bands: int = 3,
        k: int = 1,
        loud: float = 25.0,
    ):
        super().__init__()
        steps = max(1, stride.bit_length() - 1)
        layers: list[nn.Module] = []
        for step in range(steps):
            given = WIDTH if step else bands
            layers += [nn.Conv2d(given, WIDTH, 3, 1 if stride == 1 else 2, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head: nn.Module = nn.Conv2d(WIDTH, classes, k, padding=k // 2)
        for layer in self.body[::2]:
            layer.weight.data.mul_(2)
        self.head.weight.data.mul_(loud)
        self.forwards = forwards

    def low(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def full(self, x: Tensor, align_corners: bool = False) -> Tensor:
        return up(self.low(x), x.shape[-2:], align_corners)

    def forward(self, x: Tensor) -> object:
        return self.forwards(self, x)


def full(network: Net, x: Tensor) -> Tensor:
    """Probabilities of the network's own logits at the image's size."""
    return network.full(x).softmax(1)


def corners(network: Net, x: Tensor) -> Tensor:
    """Likewise, resized with aligned corners."""
    return network.full(x, align_corners=True).softmax(1)


def whole(network: nn.Module, x: Tensor) -> Tensor:
    """Probabilities of what forward returns, logits, at the image's size."""
    return up(network(x), x.shape[-2:]).softmax(1)


def binary(network: Net, x: Tensor) -> Tensor:
    """Probabilities of two classes of which one channel speaks."""
    foreground = network.full(x).sigmoid()
    return torch.cat([1 - foreground, foreground], 1)


def loud(network: nn.Module, last: nn.Module, x: Tensor, of: Callable[[Any], Tensor]) -> nn.Module:
    """Scale a random network's last layer so that its logits spread as a trained one's.

    Args:
        network: left in evaluation mode.
        last: its last layer.
        x: images to look at.
        of: picks the logits out of what it returns.
    """
    network.eval()
    with torch.no_grad():
        last.weight.mul_(4 / of(network(x)).std())
        if last.bias is not None:
            last.bias.sub_(of(network(x)).mean((0, 2, 3)))
    return network


Truth = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A row.

    Args:
        make: builds what is brought.
        come: `exact`, `plain` (exact, but without features), nothing (exact, with features on some
            images), or a regular expression of the sentence with which it is refused.
        notes: parts of notes that results must carry.
        truth: probabilities `(B, C, H, W)` by the network's own forward pass on normalised images.
        options: of `load`.
        batches: images, height and width of the calls, one after another.
        near: largest difference of a probability.
        bands: of the images.
        bright: brightness of each batch's images.
        says: what the description must say.
    """

    make: Callable[[], Any]
    come: str = "exact"
    notes: tuple[str, ...] = ()
    truth: Truth = full
    options: Mapping[str, Any] = field(default_factory=dict)
    batches: tuple[tuple[int, int, int], ...] = ((1, 32, 48), (2, 48, 32))
    near: float = 1e-4
    bands: int = 3
    bright: tuple[float, ...] = (1.0, 1.0)
    says: Mapping[str, Any] = field(default_factory=dict)


def net(
    forwards: Callable[[Net, Tensor], object],
    come: str = "exact",
    notes: tuple[str, ...] = (),
    kind: Callable[..., nn.Module] = Net,
    at: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> Case:
    """A row of one forward pass, of a network of a class, and what that is built with."""
    return Case(lambda: kind(forwards, **at), come, notes, **more)


def at_full(network: Net, x: Tensor) -> Tensor:
    """A forward pass: logits at the image's size."""
    return network.full(x)


def images_of(case: Case) -> list[Tensor]:
    """The same for every run: coarse blots with noise, in [0, 1], of 256 levels."""
    made = torch.Generator().manual_seed(5)
    found = []
    for (count, height, width), bright in zip(case.batches, case.bright):
        blots = torch.rand(count, case.bands, 5, 5, generator=made)
        noise = torch.rand(count, case.bands, height, width, generator=made)
        mixed = (0.7 * up(blots, (height, width)) + 0.3 * noise) * bright
        found.append((255 * mixed).round() / 255)
    return found


def normalised(x: Tensor, options: Mapping[str, Any]) -> Tensor:
    """As `load` is told, or ImageNet's."""
    pair = options.get("mean", IMAGENET_MEAN), options.get("std", IMAGENET_STD)
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in pair)
    if "bands" in options:
        x = x[:, [band - 1 for band in options["bands"]]]
    return (x - mean) / std


def check(case: Case, brought: Callable[[Any], Any] = lambda network: network) -> None:
    """Hold a row to the network's own forward pass, on every call.

    Args:
        case: the row.
        brought: what `load` is given of the network, as a file that it is exported to.
    """
    torch.manual_seed(0)
    network = case.make()
    if case.come not in ("exact", "plain", ""):
        with pytest.raises(DoubtmapError, match=case.come):
            load(brought(network), **case.options)(images_of(case)[0])
        return
    segmenter = load(brought(network), **case.options)
    for images in images_of(case):
        prediction = segmenter(images)
        with torch.no_grad():
            expected = case.truth(network.eval(), normalised(images, case.options))
        hold(prediction, expected, case.near)
        if case.come:
            assert (prediction.features is None) == (case.come == "plain"), segmenter.description
        assert prediction.features is not None or prediction.features_missing
    told = segmenter.description
    for part in case.notes:
        assert any(part in note for note in told["notes"]), told["notes"]
    assert {name: told[name] for name in case.says} == dict(case.says)


def hold(prediction: Any, expected: Tensor, near: float) -> None:
    """Probabilities and labels equal the network's own, and every score is finite."""
    expected = expected.float()
    assert len(expected.argmax(1).unique()) > 1, "a network that always says one class shows little"
    torch.testing.assert_close(prediction.probabilities.float(), expected, atol=near, rtol=0)
    top = expected.topk(2, 1).values
    sure = top[:, 0] - top[:, 1] > 2 * near  # of two that are closer, rounding decides
    assert sure.float().mean() > 0.9
    assert torch.equal(prediction.classes[sure], expected.argmax(1)[sure])
    for name in SCORES:
        assert getattr(scores, name)(prediction).isfinite().all()
