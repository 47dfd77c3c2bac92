"""A small network that judges every native sample by its logits: is it wrong, or how hot.

A perceptron with the layers of the misprediction network of selective scaling, as 1x1
convolutions on the native grid. It is trained on a bounded sample of native pixels, on one
thread, from a seed; batch normalisation is folded into the weights afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doubtmap.errors import DataError, UsageError
from doubtmap.kernels import at_least_float32
from doubtmap.prediction import Prediction

Inputs = Literal["logits", "neighbourhood", "features", "all"]
BATCH = 4096
EPOCHS = 4
RATE = 0.01
DECAY = 1e-6


@dataclass(frozen=True, eq=False)
class Judge:
    """The trained network.

    Args:
        inputs: what it sees of a prediction, see `read_inputs`.
        weights: `(out, in)` of each layer, all but the last followed by ReLU.
        biases: `(out,)` of each layer.
    """

    inputs: Inputs
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        shapes = [tuple(weight.shape) for weight in self.weights]
        widths = [shape[0] for shape in shapes]
        fit = all(len(shape) == 2 for shape in shapes) and (
            [tuple(bias.shape) for bias in self.biases] == [(width,) for width in widths]
            and [shape[1] for shape in shapes[1:]] == widths[:-1]
            and widths[-1:] == [1]
        )
        if not fit or self.inputs not in get_args(Inputs):
            raise UsageError("calibrator: expected layers of a judge that follow each other.")

    def __call__(self, prediction: Prediction) -> Tensor:
        """`(B, 1, h, w)`, on the native grid.

        Raises:
            UsageError: for a prediction of other channels than those it was trained on.
        """
        x = read_inputs(prediction, self.inputs)
        if x.shape[1] != self.weights[0].shape[1]:
            raise UsageError(
                f"calibrator: expected {self.weights[0].shape[1]} input channels as at its fit, "
                f"got {x.shape[1]}. Fit it anew for this network with doubtmap calibrate."
            )
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = F.conv2d(x, weight.to(x)[:, :, None, None], bias.to(x))
            x = x.relu() if index + 1 < len(self.weights) else x
        return x


def read_inputs(prediction: Prediction, inputs: Inputs) -> Tensor:
    """What the judge sees, on the native grid.

    Args:
        prediction: of a network.
        inputs: `logits`: the log-probabilities of the sample; `neighbourhood`: also the mean
            probabilities of the 3 x 3 and 9 x 9 samples around it; `features`: log-probabilities
            and the features that the last 1x1 convolution saw; `all`.

    Returns:
        `(B, K, h, w)`.

    Raises:
        UsageError: for other inputs.
        ModelError: where features are asked for and there are none.
    """
    if inputs not in get_args(Inputs):
        raise UsageError(f"inputs: expected one of {', '.join(get_args(Inputs))}, got {inputs!r}.")
    log_p = at_least_float32(prediction.native_logits).log_softmax(1)
    parts = [log_p.clamp_min(-50.0)]
    if inputs in ("neighbourhood", "all"):
        parts += [_around(log_p.exp(), 3), _around(log_p.exp(), 9)]
    if inputs in ("features", "all"):
        parts.append(at_least_float32(prediction.require_features("calibrator")))
    return torch.cat(parts, 1)


def train_judge(
    x: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Inputs,
    *,
    seed: int = 0,
    silent: bool = False,
) -> Judge:
    """Train on sampled inputs.

    Args:
        x: `(N, K)`.
        loss: of outputs `(n,)` and the indices `(n,)` of their pixels, a scalar.
        inputs: what `x` is, as `read_inputs` has it.
        seed: of weights and order.
        silent: start with an output of 0 everywhere.

    Raises:
        DataError: for fewer than two pixels, or where the loss is not finite.
    """
    if len(x) < 2:
        raise DataError(f"calibrate: expected at least 2 labelled pixels, found {len(x)}.")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        mean, spread = x.mean(0), x.std(0)
        spread = torch.where(spread > 1e-4, spread, 1.0)  # a constant tells nothing
        network = _layers(x.shape[1], silent)
        _descend(network, (x - mean) / spread, loss, seed)
    weights, biases = _folded(network, mean, spread)
    return Judge(inputs, weights, biases)


def _layers(channels: int, silent: bool) -> nn.Sequential:
    """K -> K -> 2K -> K -> 1 with batch normalisation and ReLU; the first starts as identity."""
    width = min(channels, 64)
    first = nn.Linear(channels, width)
    with torch.no_grad():
        first.weight.copy_(torch.eye(width, channels))
        first.bias.zero_()
    last = nn.Linear(width, 1)
    if silent:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        *(first, nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU()),
        *(nn.Linear(2 * width, width), nn.BatchNorm1d(width), nn.ReLU()),
        last,
    )


def _descend(
    network: nn.Sequential, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor], seed: int
) -> None:
    batch = min(BATCH, len(x))
    steps = max(EPOCHS * (len(x) // batch), 200)
    solver = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(solver, RATE, steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    start = 0
    for _ in range(steps):
        if start + batch > len(x):
            order, start = torch.randperm(len(x), generator=generator), 0
        at = order[start : start + batch]
        start += batch
        solver.zero_grad()
        value = loss(network(x[at])[:, 0], at)
        if not bool(torch.isfinite(value)):
            raise DataError("calibrate: expected a finite loss, got another; check the logits.")
        value.backward()  # type: ignore[no-untyped-call]
        solver.step()
        schedule.step()


def _folded(
    network: nn.Sequential, mean: Tensor, spread: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights with standardisation and batch normalisation multiplied in."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    layers = list(network)
    for index, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            continue
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        if not weights:
            weight = weight / spread
            bias = bias - weight @ mean.double()
        after = layers[index + 1] if index + 1 < len(layers) else None
        if isinstance(after, nn.BatchNorm1d):
            assert after.running_var is not None and after.running_mean is not None
            gain = after.weight.detach() / (after.running_var + after.eps).sqrt()
            weight = weight * gain[:, None]
            bias = (bias - after.running_mean) * gain + after.bias.detach()
        weights.append(weight.float())
        biases.append(bias.float())
    return tuple(weights), tuple(biases)


def _around(maps: Tensor, side: int) -> Tensor:
    """Mean over the samples around each that lie on the grid."""
    return F.avg_pool2d(maps, side, 1, side // 2, count_include_pad=False)
