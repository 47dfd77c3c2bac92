"""One tensor of per-pixel scores out of what networks return: tensors, dicts, tuples, queries.

Which of several outputs is meant is told by its name, by the number of classes, or by the user;
what cannot be told is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import ModelError, UsageError
from doubtmap.kernels import at_least_float32, recording

MAIN = ("out", "logits", "main", "output", "sem_seg", "seg_logits", "pred", "semantic", "seg")
"""Names of the output that is meant, where there are several."""
BESIDE = re.compile(
    r"aux|feat|embed|offset|bound|edge|depth|hidden|proto|atten|loss|centre|center", re.I
)
"""Names of outputs that are never meant, where there are several."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One tensor of what a network returned.

    Args:
        name: its key, attribute or place, dotted where it lies deeper; empty where it is all.
        tensor: as it is.
    """

    name: str
    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.name or 'tensor'} {tuple(self.tensor.shape)}"


def leaves(output: object, name: str = "", depth: int = 4) -> list[Leaf]:
    """All tensors in what a network returned, in order."""
    if isinstance(output, Tensor):
        return [Leaf(name, output)]
    if depth == 0:
        return []
    inside: Collection[tuple[object, object]] = ()
    if isinstance(output, Mapping):
        inside = list(output.items())
    elif isinstance(output, (tuple, list)):
        fields = getattr(output, "_fields", range(len(output)))
        inside = list(zip(fields, output))
    elif hasattr(output, "__dict__"):
        inside = [(key, part) for key, part in vars(output).items() if not key.startswith("_")]
    start = f"{name}." if name else ""
    return [leaf for key, part in inside for leaf in leaves(part, f"{start}{key}", depth - 1)]


def queries_of(output: object) -> tuple[Tensor, Tensor] | None:
    """Class logits `(B, Q, C + 1)` and mask logits `(B, Q, h, w)`, where they are returned."""
    found = {leaf.name: leaf.tensor for leaf in leaves(output, depth=1)}
    for names in (("class_queries_logits", "masks_queries_logits"), ("pred_logits", "pred_masks")):
        classes, masks = (found.get(name) for name in names)
        if classes is not None and masks is not None and classes.ndim == 3 and masks.ndim == 4:
            return classes, masks
    return None


def candidates(output: object, wanted: str | None = None, classes: int | None = None) -> list[Leaf]:
    """The tensors that could be the per-pixel scores.

    Args:
        output: anything.
        wanted: name, or place from 0 (from the end: -1), of the one that the user means.
        classes: number of classes, where it is known.

    Returns:
        One where it can be told; several where not.

    Raises:
        UsageError: where there is no output of the wanted name.
        ModelError: where nothing could be meant, with what came and the way out.
    """
    found = leaves(output)
    if wanted is not None:
        return [_checked(_wanted(found, wanted))]
    _refuse_instances(found)
    maps = [leaf for leaf in map(_squeezed, found) if _is_map(leaf.tensor)]
    if not maps:
        raise ModelError(_nothing(output, found))
    for rule in (_named_main, _not_beside, _of_classes(classes), _of_several):
        if len(maps) > 1:
            maps = rule(maps) or maps
    return [_checked(leaf) for leaf in maps]


def picked(output: object, name: str) -> Tensor:
    """The tensor of a name that was chosen before.

    Raises:
        ModelError: where the network does not return it this time.
    """
    for leaf in leaves(output):
        if leaf.name == name:
            return _squeezed(leaf).tensor
    raise ModelError(
        f"network: expected the output {name or 'tensor'!r} as on the first image, got "
        f"{_list(leaves(output))}. Make the network return the same for every image."
    )


def too_many(found: Sequence[Leaf]) -> str:
    """What to say where several outputs could be meant."""
    return (
        f"network: expected one output that could be the scores, got {_list(found)}, and neither "
        f"names nor the number of classes tell which is meant. Pass output={found[0].name!r} or "
        f"another (--output {found[0].name})."
    )


def _list(found: Sequence[Leaf]) -> str:
    return ", ".join(map(str, found)) or "nothing"


def _wanted(found: Sequence[Leaf], wanted: str) -> Leaf:
    for leaf in found:
        if wanted in (leaf.name, leaf.name.rpartition(".")[2]):
            return _squeezed(leaf)
    if re.fullmatch(r"-?\d+", wanted) and -len(found) <= int(wanted) < len(found):
        return _squeezed(found[int(wanted)])
    raise UsageError(
        f"output: expected one of the network's outputs, got {wanted!r}. It returns {_list(found)}."
    )


def _squeezed(leaf: Leaf) -> Leaf:
    """`(B, C, 1, H, W)` as `(B, C, H, W)`."""
    x = leaf.tensor
    single = [axis for axis in (2, 3, 4) if x.ndim == 5 and x.shape[axis] == 1]
    return Leaf(leaf.name, x.squeeze(single[0])) if len(single) == 1 else leaf


def _is_map(x: Tensor) -> bool:
    byte = x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] > 1 and x.shape[-1] > 1
    return x.ndim == 4 and (x.is_floating_point() or byte) and x.numel() > 0


def _checked(leaf: Leaf) -> Leaf:
    x = leaf.tensor
    if not x.is_floating_point() and x.dtype != torch.uint8:
        raise ModelError(
            f"network: expected floating-point logits, got {x.dtype}. Return the scores before "
            f"argmax."
        )
    if x.ndim != 4:
        raise ModelError(
            f"network: expected an output (B, C, H, W), got {tuple(x.shape)}. Return per-pixel "
            f"logits, or use a network for segmentation."
        )
    return leaf


def _named_main(maps: list[Leaf]) -> list[Leaf]:
    for name in MAIN:
        found = [leaf for leaf in maps if leaf.name.rpartition(".")[2].lower() == name]
        if found:
            return found[:1] if len(found) == 1 else found
    return []


def _not_beside(maps: list[Leaf]) -> list[Leaf]:
    return [leaf for leaf in maps if not BESIDE.search(leaf.name)]


def _of_classes(classes: int | None) -> Callable[[list[Leaf]], list[Leaf]]:
    def rule(maps: list[Leaf]) -> list[Leaf]:
        return [x for x in maps if classes and classes in (x.tensor.shape[1], x.tensor.shape[-1])]

    return rule


def _of_several(maps: list[Leaf]) -> list[Leaf]:
    return [leaf for leaf in maps if leaf.tensor.shape[1] > 1]


def _refuse_instances(found: Sequence[Leaf]) -> None:
    """Refuse boxes with mask prototypes, as Ultralytics' -seg networks return them."""
    boxes = [x.tensor for x in found if x.tensor.ndim == 3 and min(x.tensor.shape[1:]) > 36]
    prototypes = [x.tensor for x in found if x.tensor.ndim == 4 and x.tensor.shape[1] == 32]
    if boxes and prototypes:
        raise ModelError(
            f"network: expected per-pixel class scores, got boxes {tuple(boxes[0].shape)} and mask "
            f"prototypes {tuple(prototypes[0].shape)}, as instance segmentation returns. Use a "
            f"network for semantic segmentation."
        )


def _nothing(output: object, found: Sequence[Leaf]) -> str:
    whole = [leaf.tensor for leaf in found if not leaf.tensor.is_floating_point()]
    maps = [x for x in whole if x.ndim in (3, 4) and x.dtype != torch.bool]
    if maps and not any(leaf.tensor.is_floating_point() and leaf.tensor.ndim > 3 for leaf in found):
        return (
            f"network: expected floating-point logits, got a class map {tuple(maps[0].shape)} of "
            f"{maps[0].dtype}. Return (for a file: export) the scores before argmax."
        )
    if len(found) == 1 and isinstance(output, Tensor):
        return (
            f"network: expected an output (B, C, H, W), got {tuple(output.shape)}. Return "
            f"per-pixel logits, or use a network for segmentation."
        )
    return (
        f"network: expected a tensor (B, C, H, W), alone or in a dict, tuple or object, got "
        f"{_named(output)}. Wrap the network so that it returns its logits."
    )


def _named(output: object) -> str:
    name = type(output).__name__
    found = leaves(output)
    if isinstance(output, Mapping):
        return f"{name} with {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, (tuple, list)) and not found:
        return f"{name} of {', '.join(type(x).__name__ for x in output) or 'nothing'}"
    return f"{name} of {_list(found)}" if found else name


BAND = 1 << 22
"""Values of the masks held at once while they are brought to the image's size."""


def query_scores(
    class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Per-pixel class scores of a network that predicts queries, and how accepted each pixel is.

    `s_c = sum_q softmax(class_q)_c sigmoid(mask_q)`, without the last class ("no object"), as
    the papers compute the semantic map: masks are resized before the sigmoid. Rows are taken in
    bands, so that the masks are never whole at the image's size.

    Args:
        class_logits: `(B, Q, C + 1)`.
        mask_logits: `(B, Q, h, w)`.
        size: to which masks are resized; default: their own.

    Returns:
        `(B, C, H, W)` in [0, Q], and `(B, H, W)`: `sum_q sigmoid(mask_q) max_c softmax(class_q)_c`.

    Reference:
        Per-Pixel Classification is Not All You Need for Semantic Segmentation (Cheng, Schwing,
        Kirillov, 2021), section 3.4, https://arxiv.org/abs/2107.06278
    """
    classes = at_least_float32(class_logits).softmax(-1)[..., :-1]
    weights = torch.cat([classes, classes.amax(-1, keepdim=True)], -1).transpose(1, 2)
    masks = at_least_float32(mask_logits)
    height, width = size or (masks.shape[-2], masks.shape[-1])
    if recording(masks):
        part = F.interpolate(masks, (height, width), mode="bilinear").sigmoid()
        scores = (weights @ part.flatten(2)).view(masks.shape[0], -1, height, width)
        return scores[:, :-1], scores[:, -1]
    whole = masks.new_empty(len(masks), weights.shape[1], height, width)
    step = max(1, BAND // (len(masks) * masks.shape[1] * width))
    for top in range(0, height, step):
        rows = torch.arange(top, min(top + step, height), device=masks.device)
        part = rows_resized(masks, rows, (height, width)).sigmoid_()
        whole[:, :, top : top + step] = (weights @ part.flatten(2)).view(
            len(masks), -1, len(rows), width
        )
    return whole[:, :-1], whole[:, -1]


def rows_resized(
    maps: Tensor, rows: Tensor, size: tuple[int, int], align_corners: bool = False
) -> Tensor:
    """Some rows of maps resized bilinearly to `size`, without making the others.

    Args:
        maps: `(B, K, h, w)`.
        rows: `(R,)`, of the resized maps.
        size: `(H, W)`.
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        `(B, K, R, W)`.
    """
    tall = sampled(maps, rows, size[0], 2, align_corners)
    if maps.shape[-1] == size[1]:
        return tall
    shape = (tall.shape[-2], size[1])
    return F.interpolate(tall, shape, mode="bilinear", align_corners=align_corners)


def sampled(maps: Tensor, places: Tensor, length: int, axis: int, align_corners: bool) -> Tensor:
    """Linear interpolation of one axis, brought to `length`, at some places of it."""
    samples = maps.shape[axis]
    if samples == length:
        return maps.index_select(axis, places)
    if align_corners:
        position = places.double() * ((samples - 1) / max(length - 1, 1))
    else:
        position = ((places.double() + 0.5) * (samples / length) - 0.5).clamp(0, samples - 1)
    lower = position.floor().long().clamp(max=samples - 1)
    upper = (lower + 1).clamp(max=samples - 1)
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    weight = (position - lower).to(maps.dtype).view(shape)
    return torch.lerp(maps.index_select(axis, lower), maps.index_select(axis, upper), weight)


def of_two(logits: Tensor) -> Tensor:
    """One channel as the logits of two classes: 0, and the channel."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
