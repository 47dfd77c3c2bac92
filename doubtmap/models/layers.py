"""Inner layers of a network by name: whether it has them, and what they said in a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import Tap
from doubtmap.models.module import Listened, ModuleBackend

CARRYING = 0.25
"""Share of the weights of the grid with the most, that a grid needs to be the encoder's."""


def deepest_layer(segmenter: Listened, image: Tensor) -> str:
    """The last layer of an encoder's coarsest grid, from what the convolutions gave for an image.

    The coarsest grid is that of the fewest cells whose convolutions have a fair share of the
    weights, which the bins of a pooling pyramid have not. On it the longest run of convolutions
    is the encoder's; of that, what lies in one part of the network (`backbone`, not `head`).

    Args:
        segmenter: a PyTorch network.
        image: `(1, 3, H, W)` in [0, 1].

    Returns:
        Its name.

    Raises:
        UsageError: for a network that is not PyTorch's, whose layers cannot be listened to.
        ModelError: for one without convolutions.
    """
    backend = segmenter.source.backend
    if not isinstance(backend, ModuleBackend):
        raise UsageError(
            "layer=deepest: expected a PyTorch network whose inner layers can be listened to, got "
            f"{segmenter.source.kind}. Use --scores doubt, which needs no fit."
        )
    module = backend.module
    names = [name for name, _ in module.named_modules() if name]
    calls = [call for call in segmenter.calls(image, names) if _is_map(call.output)]
    convolutions = {n for n in names if isinstance(module.get_submodule(n), nn.Conv2d)}
    convolved = [call for call in calls if call.name in convolutions]
    if not convolved:
        raise ModelError("layer=deepest: expected convolutions, found none. Name a layer.")
    grid = _coarsest(convolved, module)
    run = max(_runs(convolved, grid), key=len)
    part = _main_part(run, names)
    own = {name for name in run if name.startswith(part)}
    outer = [
        call.name
        for call in calls
        if call.name.startswith(part)
        and call.output.shape[-2:] == grid
        and (call.name in own or any(name.startswith(f"{call.name}.") for name in own))
    ]
    return outer[-1]


def _is_map(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[0] == 1


def _coarsest(convolved: Sequence[Tap], module: nn.Module) -> torch.Size:
    weights: Counter[torch.Size] = Counter()
    for name, grid in {(call.name, call.output.shape[-2:]) for call in convolved}:
        weights[grid] += sum(w.numel() for w in module.get_submodule(name).parameters())
    least = CARRYING * max(weights.values())
    return min((g for g in weights if weights[g] >= least), key=lambda g: (g.numel(), tuple(g)))


def _runs(convolved: Sequence[Tap], grid: torch.Size) -> list[list[str]]:
    """Names of the convolutions on a grid, cut where another grid comes between."""
    groups = groupby(convolved, key=lambda call: call.output.shape[-2:] == grid)
    return [[call.name for call in calls] for same, calls in groups if same]


def _main_part(run: Sequence[str], names: Sequence[str]) -> str:
    """How the names start of that part of the network in which most of the run lies."""
    start = ""
    while True:
        parts = Counter(
            name.removeprefix(start).partition(".")[0] for name in names if name.startswith(start)
        )
        if len(parts) != 1 or not any("." in name.removeprefix(start) for name in run):
            break
        start += next(iter(parts)) + "."
    inside = Counter(name.removeprefix(start).partition(".")[0] for name in run)
    most = max(inside.values())
    if most == 1:
        return start
    return start + [part for part in inside if inside[part] == most][-1] + "."


PROBE = (96, 128)
"""Height and width of the image by whose features a network is recognised."""


def probe_image(bands: int = 0) -> Tensor:
    """`(1, 3, H, W)` in [0, 1], the same on every machine: smooth shapes; or of other bands."""
    numbers = range(bands or 3)
    rows = torch.linspace(0, 1, PROBE[0])[:, None]
    columns = torch.linspace(0, 1, PROBE[1])[None]
    waves = [torch.sin(20 * (k + 1) * rows * columns) for k in numbers]
    centres = [0.25 * (k % 3 + 1) for k in numbers]
    discs = [((rows - 0.5) ** 2 + (columns - c) ** 2 < 0.03).float() for c in centres]
    image = torch.stack([(1 + wave) / 4 + disc / 2 for wave, disc in zip(waves, discs)])
    return image[None].clamp(0, 1)
