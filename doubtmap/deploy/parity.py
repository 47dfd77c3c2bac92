"""Whether a file says what the library says: on images of several sizes, pixel by pixel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.deploy.graph import CLASSES, FLAGS, Graph
from doubtmap.errors import ModelError, first_line
from doubtmap.prediction import Prediction
from doubtmap.streets.synthetic import SyntheticStreets

IMAGES, STREETS = 32, 4
SIZES = ((64, 96), (90, 122), (131, 75))
"""Height and width of the images, where the file takes any."""
TOLERANCE = 1e-4
"""Largest difference of two numbers, of those above 1 relative to them."""

Run = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass
class Parity:
    """How far a file is from the library.

    Attributes:
        images: seen so far.
        sizes: height and width of them.
        ties: pixels of two equally likely classes, of which each names another, or of a doubt at
            its threshold, which one flags.
        largest: by output, the largest difference: of bytes in steps, an int; of numbers above 1
            relative to them.
    """

    images: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    ties: int = 0
    largest: dict[str, float] = field(default_factory=dict)

    def described(self) -> dict[str, object]:
        """For `parity.json`."""
        sizes = [list(size) for size in self.sizes]
        allowed = {"tolerance": TOLERANCE, "largest_difference": self.largest}
        return {"images": self.images, "sizes": sizes, "ties": self.ties, **allowed}

    def sentence(self) -> str:
        """For people."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        numbers = [value for value in self.largest.values() if isinstance(value, float)]
        steps = [value for value in self.largest.values() if isinstance(value, int)]
        differ = [f"its numbers differ by at most {max(numbers):.1g}"] if numbers else []
        differ += [f"its bytes differ by at most {max(steps)} of 255"] if steps else []
        same = f"the file's classes are the library's (ties: {self.ties} pixels)"
        return f"{self.images} images of {sizes} pixels: {', '.join([same, *differ])}."


def compared(
    run: Run, graph: Graph, sizes: Sequence[tuple[int, int]], *, bytes: bool, advice: str
) -> Parity:
    """Run the file and the library on the same images.

    Args:
        run: the file.
        graph: that it was made of.
        sizes: height and width of the images.
        bytes: whether images are uint8.
        advice: what to do where the file says something else.

    Returns:
        What was found, where nothing differs.

    Raises:
        ModelError: where something does, with the output, the image and the pixel.
    """
    found = Parity()
    for images in batches(sizes, bytes):
        with torch.no_grad():
            prediction = graph.predicted(images)
            wanted = graph.said(prediction)
        try:
            given = run(images)
        except Exception as error:  # runtimes' own errors share no base class
            raise ModelError(
                f"export: expected the file to run on {len(images)} images of "
                f"{images.shape[-2]}x{images.shape[-1]}, but it said {first_line(error)}. "
                f"{advice}"
            ) from error
        if differing := _take(found, given, wanted, prediction, graph):
            raise ModelError(f"{differing} No file is written. {advice}")
    return found


def batches(sizes: Sequence[tuple[int, int]], bytes: bool) -> Iterator[Tensor]:
    """32 images, drawn streets and noise, of each size in turn; the last three of a size together.

    Args:
        sizes: height and width in pixels.
        bytes: whether they are uint8, not float in [0, 1].
    """
    shares = [IMAGES // len(sizes) + (place < IMAGES % len(sizes)) for place in range(len(sizes))]
    for seed, (size, count) in enumerate(zip(sizes, shares)):
        images = torch.stack([_image(size, 100 * seed + number) for number in range(count)])
        images = (images * 255).round() / 255
        given = (images * 255).round().byte() if bytes else images
        if count > 3:
            yield from torch.split(given[:-3], 1)
        if count:
            yield given[-3:]


def _image(size: tuple[int, int], seed: int) -> Tensor:
    """`(3, H, W)` in [0, 1]: a drawn street for even seeds, else noise of several scales."""
    if seed % 2 == 0:
        moved = _streets()[seed // 2 % STREETS].roll(seed * 7, -1)
        return F.interpolate(moved[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, *size)
    for step in (1, 4, 16):
        grid = [max(1, side // step) for side in size]
        noise = torch.rand(1, 3, *grid, generator=generator)
        total += F.interpolate(noise, size, mode="bilinear") / 3
    return total[0]


@functools.cache
def _streets() -> tuple[Tensor, ...]:
    """A few drawn streets `(3, 128, 256)` in [0, 1]; images are these, moved and resized."""
    drawn = SyntheticStreets(STREETS, size=(128, 256))
    return tuple(drawn[number].image.float() / 255 for number in range(STREETS))


def _take(
    found: Parity,
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    said: Prediction,
    graph: Graph,
) -> str:
    """Add a batch; returns what differs, if anything does."""
    found.images += len(said.native_logits)
    if said.size not in found.sizes:
        found.sizes.append(said.size)
    for name, there in wanted.items():
        here = given[name]
        if here.shape != there.shape or here.dtype != there.dtype:
            return (
                f"export: {name} is {tuple(here.shape)} {here.dtype} in the file and "
                f"{tuple(there.shape)} {there.dtype} in the library, for images of "
                f"{said.size[0]}x{said.size[1]}."
            )
        off = _off(name, here, there, found, said, graph)
        if bool(off.any()):
            return _differing(name, here, there, off, found)
    return ""


def _off(
    name: str, here: Tensor, there: Tensor, found: Parity, said: Prediction, graph: Graph
) -> Tensor:
    """Where an output of the file is not what the library says."""
    differs = here != there
    if name in (CLASSES, FLAGS):
        off = differs & ~(_tied(said) if name == CLASSES else _at_threshold(said, graph))
        found.ties += int(differs.sum()) - int(off.sum())
        return off
    if here.dtype == torch.uint8:
        far, most = (here.int() - there.int()).abs(), 1.0
    else:
        far, most = (here - there).abs() / there.abs().clamp_min(1), TOLERANCE
    largest = torch.where(differs, far, 0).max().item()
    found.largest[name] = max(found.largest.get(name, largest), largest)
    return differs & ~(far <= most)


def _at_threshold(prediction: Prediction, graph: Graph) -> Tensor:
    """`(B, H, W)`: where the flagged score is as good as equal to its threshold."""
    ((name, limit),) = (
        (n, d.threshold) for n, d in graph.doubts.items() if d.threshold is not None
    )
    values = graph.scored(prediction)[name]
    return (values - limit).abs() <= TOLERANCE * max(1.0, abs(limit))


def _tied(prediction: Prediction) -> Tensor:
    """`(B, H, W)`: where the two largest logits are as good as equal."""
    first, second = prediction.logits.topk(2, 1).values.unbind(1)
    return first - second <= TOLERANCE * first.abs().clamp_min(1)


def _differing(name: str, here: Tensor, there: Tensor, off: Tensor, found: Parity) -> str:
    place = tuple(off.nonzero()[0].tolist())
    size = found.sizes[-1]
    return (
        f"export: expected the file to say what the library says, but {name} differs at "
        f"{int(off.sum())} of {off.numel()} places of images of {size[0]}x{size[1]}: at "
        f"{place} it is {here[place].item():.6g}, not {there[place].item():.6g}."
    )
