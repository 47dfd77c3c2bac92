"""Spectral normalisation: no convolution may stretch what it sees by more than a coefficient.

`W / max(1, sigma / c)` leaves a layer alone while its norm `sigma` is at most `c`, and scales it
down to `c` where it is larger. The norm is the convolution's own, as a map of images, with its
stride, dilation and groups; not that of the kernel reshaped to a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from doubtmap.errors import ModelError, UsageError

GRID = 8
"""Side of the images, in steps of the kernel, on which norms are measured."""
FINE_GRID = 32
"""The same once before folding."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True)
class Operator:
    """A convolution as a linear map from images whose rims meet (a torus) to their responses.

    Its norm is the largest singular value that the kernel's Fourier transform has at the
    frequencies of this size; it grows towards the largest at any frequency when the size is
    doubled, again and again. That limit is the norm over zero-padded images of all sizes, and an
    upper bound for each of them. A dilated convolution of stride 1 is `d * d` interleaved copies
    of the undilated one and has its norm, so the undilated one is measured.

    Args:
        size: height and width of the images, in pixels, multiples of the stride.
        stride, dilation: vertical and horizontal, in pixels.
        wrap: rows and columns that come again beyond the bottom and the right.
        groups: of channels that do not see each other.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    wrap: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d, grid: int = GRID) -> Operator:
        """The map of a layer on images of at least `grid` pixels a side (1 for a 1x1 kernel)."""
        rows, columns = (
            _axis(kernel, stride, dilation, grid)
            for kernel, stride, dilation in zip(layer.kernel_size, layer.stride, layer.dilation)
        )
        size, stride, dilation, wrap = zip(rows, columns)
        return cls(size, stride, dilation, wrap, layer.groups)

    def __call__(self, images: Tensor, weight: Tensor) -> Tensor:
        """The responses to `(B, channels, H, W)`: `(B, responses, H / stride, W / stride)`."""
        bottom, right = self.wrap
        images = F.pad(images, (0, right, 0, bottom), mode="circular")
        return F.conv2d(images, weight, None, self.stride, 0, self.dilation, self.groups)

    def back(self, responses: Tensor, weight: Tensor) -> Tensor:
        """The transposed map, from responses to images."""
        images = F.conv_transpose2d(
            responses, weight, None, self.stride, 0, 0, self.groups, self.dilation
        )
        (height, width), (rows, columns) = self.size, images.shape[-2:]
        images = F.pad(images, (0, max(0, width - columns), 0, max(0, height - rows)))
        if rows > height:
            images[..., : rows - height, :] += images[..., height:, :]
        if columns > width:
            images[..., : columns - width] += images[..., width:]
        return images[..., :height, :width]


def _axis(kernel: int, stride: int, dilation: int, grid: int) -> tuple[int, int, int, int]:
    """Size, stride, dilation and wrap of one axis."""
    if kernel == 1:
        return 1, 1, 1, 0
    dilation = 1 if stride == 1 else dilation
    extent = dilation * (kernel - 1) + 1
    size = stride * math.ceil(max(grid, 2 * extent) / stride)
    return size, stride, dilation, max(0, extent - stride)


class SpectralBound(nn.Module):
    """Parametrisation of a convolution's weight: `W / max(1, sigma / c)`.

    Each forward pass in training improves the kept image by one step of power iteration; in
    evaluation it stays. `sigma` is the norm of the response to it, from below within rounding.

    Args:
        layer: the convolution.
        coefficient: `c`, above 0.
        grid: side of the images on which the norm is measured.

    Reference:
        Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama,
        Yoshida, 2018), https://arxiv.org/abs/1802.05957, for the power iteration; Regularisation
        of Neural Networks by Enforcing Lipschitz Continuity (Gouk, Frank, Pfahringer, Cree, 2018),
        https://arxiv.org/abs/1804.04368, for the operator norm and the soft bound. Departure: we
        measure on a small image instead of the layer's own input size, which is not fixed.
    """

    image: Tensor

    def __init__(self, layer: nn.Conv2d, coefficient: float, grid: int = GRID) -> None:
        super().__init__()
        self.coefficient, self.operator = coefficient, Operator.of(layer, grid)
        start = torch.randn(1, layer.in_channels, *self.operator.size)
        self.register_buffer("image", (start / start.norm()).to(layer.weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, scaled down where its norm is above the coefficient."""
        bounded: Tensor = weight / (self.norm(weight) / self.coefficient).clamp(min=1)
        return bounded

    def norm(self, weight: Tensor) -> Tensor:
        """`sigma`, a scalar with a gradient to the weight."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self.improve(weight)
            sigma: Tensor = torch.linalg.vector_norm(self.operator(self.image.clone(), weight))
            return sigma

    @torch.no_grad()
    def refine(self, weight: Tensor, grid: int, iterations: int) -> None:
        """Find the kept image anew, of at least `grid` pixels a side, frequency by frequency.

        Images of one frequency stay among themselves, so each is iterated at a length of its own
        (with a stride, those that fall together do), and the one that is stretched most is kept:
        power iteration over all of them takes long where near frequencies are stretched alike.
        """
        (rows, columns), stride = self.operator.size, self.operator.stride
        rows, columns = (
            size if size == 1 else size * math.ceil(grid / size) for size in (rows, columns)
        )
        self.operator = replace(self.operator, size=(rows, columns))
        shape = (1, self.image.shape[1], rows, columns)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        image = start.to(self.image)
        for _ in range(iterations):
            image = _evenly(self.operator.back(self.operator(image, weight), weight), stride)
        found = torch.fft.fft2(self.operator(image, weight)).abs().square().sum((0, 1))
        row, column = divmod(int(found.argmax()), found.shape[1])
        kept = torch.zeros_like(found)
        kept[row, column] = kept[-row, -column] = 1  # a real image has both
        image = torch.fft.ifft2(torch.fft.fft2(image) * kept.repeat(*stride)).real
        length = torch.linalg.vector_norm(image)
        self.image = torch.where(length > 0, image / length, start.to(image) / start.norm())

    @torch.no_grad()
    def improve(self, weight: Tensor) -> None:
        """One step of power iteration."""
        image = self.operator.back(self.operator(self.image, weight), weight)
        length = torch.linalg.vector_norm(image)
        self.image.copy_(torch.where(length > 0, image / length, self.image))


def _evenly(images: Tensor, stride: tuple[int, int]) -> Tensor:
    """The same images, all frequencies of one length; those that a stride lets fall together, one.

    Args:
        images: `(B, channels, H, W)`.
        stride: that divides H and W.
    """
    seen = torch.fft.fft2(images)
    (down, across), (rows, columns) = stride, images.shape[-2:]
    apart = seen.unflatten(3, (across, columns // across)).unflatten(2, (down, rows // down))
    length = torch.linalg.vector_norm(apart, dim=(1, 2, 4))[:, None].repeat(1, 1, down, across)
    tiny = torch.finfo(images.dtype).tiny
    even: Tensor = torch.fft.ifft2(seen / length.clamp_min(tiny)).real
    return even


class BatchNormBound(nn.Module):
    """Parametrisation of a batch norm's scale: `gamma / max(1, sigma / c)`.

    `sigma = max |gamma| / sqrt(running variance + eps)`, the norm of the layer in evaluation.
    """

    def __init__(self, layer: BatchNorm, coefficient: float) -> None:
        super().__init__()
        self.coefficient = coefficient
        self._layer = [layer]  # in a list, since a module cannot be its own child

    def forward(self, scale: Tensor) -> Tensor:
        """The scale, scaled down where its norm is above the coefficient."""
        layer = self._layer[0]
        variance = layer.running_var
        assert variance is not None
        sigma = (scale.abs() * (variance + layer.eps).rsqrt()).max()
        bounded: Tensor = scale / (sigma / self.coefficient).clamp(min=1)
        return bounded


def bound(network: nn.Module, coefficient: float, *, batch_norm: bool = False) -> None:
    """Bound the norm of every convolution of a network, in place.

    Args:
        network: anything with `nn.Conv2d` layers; other layers stay as they are.
        coefficient: the largest norm allowed, above 0.
        batch_norm: whether to bound batch norms too.

    Raises:
        UsageError: for a coefficient that is none.
        ModelError: for a network without convolutions.
    """
    if not 0 < coefficient < math.inf:
        raise UsageError(
            f"spectral: expected a coefficient above 0, got {coefficient}. 3 is a good start."
        )
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    if not layers:
        raise ModelError(
            "spectral: expected a network with convolutions, found none. Use --recipe plain."
        )
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", SpectralBound(layer, coefficient))
    for norm in network.modules() if batch_norm else ():
        if isinstance(norm, BATCH_NORMS) and norm.affine and norm.running_var is not None:
            parametrize.register_parametrization(norm, "weight", BatchNormBound(norm, coefficient))


def settle(network: nn.Module, iterations: int = 100, grid: int = FINE_GRID) -> None:
    """Measure the norms of all bounded convolutions anew, finely and to convergence.

    On the coarse grid of the training the norm at the frequencies between is missed, by some
    percent of strided and large kernels.

    Args:
        network: bounded.
        iterations: of the power iteration.
        grid: side of the images from here on, at least, in pixels; a multiple of what it was.
    """
    for rules in _rules(network):
        if isinstance(rule := rules[0], SpectralBound):
            rule.refine(rules.original.detach(), grid, iterations)


def fold(network: nn.Module) -> None:
    """Make the bounded weights plain weights again, in place; the outputs stay as they are."""
    for module in list(network.modules()):
        for rules in _rules(module, deep=False):
            if isinstance(rules[0], (SpectralBound, BatchNormBound)):
                module.eval()
                _own_class(module)
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _own_class(module: nn.Module) -> None:
    """Part a parametrised layer from its copies, which share the class that folding takes apart."""
    kind = type(module)
    parts = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, parts)


def norms(network: nn.Module, grid: int = GRID, iterations: int = 200) -> dict[str, float]:
    """The norm of every convolution of a network as it is, by name.

    Args:
        network: bounded or not; it is not changed.
        grid: side of the images on which norms are measured, in pixels.
        iterations: of the power iteration.
    """
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            found[name] = convolution_norm(layer, grid, iterations)
    return found


@torch.no_grad()
def convolution_norm(layer: nn.Conv2d, grid: int = GRID, iterations: int = 200) -> float:
    """The norm of one convolution on images of `grid` pixels a side, by power iteration."""
    was = layer.training
    layer.eval()
    weight = layer.weight.detach().clone()
    layer.train(was)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rule = SpectralBound(layer, 1.0, grid)
    for _ in range(iterations):
        rule.improve(weight)
    return rule.eval().norm(weight).item()


def _rules(network: nn.Module, *, deep: bool = True) -> Iterator[Any]:
    """The parametrisations of every weight that has some."""
    for module in network.modules() if deep else [network]:
        if parametrize.is_parametrized(module, "weight"):
            parametrized: Any = module.parametrizations
            yield parametrized["weight"]
