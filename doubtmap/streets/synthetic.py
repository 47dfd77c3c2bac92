"""Street scenes drawn from a seed: pictures with exact labels and unknown things.

They need no download: the demo, the tests and the pictures in the docs come from here.
"""

from __future__ import annotations

import functools

import torch

from doubtmap.datasets.dataset import ComponentSizes, Sample
from doubtmap.errors import UsageError
from doubtmap.shown import ShownDataset
from doubtmap.streets.materials import CLASS_NAMES
from doubtmap.streets.scene import draw_scene
from doubtmap.streets.weather import WEATHERS

_drawn = functools.lru_cache(maxsize=8)(draw_scene)
"""The last few scenes: a look at one again costs nothing."""

SMALLEST = 64
"""Pixels of the smallest side that a scene can have."""


class SyntheticStreets(ShownDataset):
    """Drawn street scenes with unknown things on the road.

    Scene `i` depends on `seed` and `i` alone. Weather changes the image and never the label: the
    same seed in `clear` and in `fog` is the same street.

    Args:
        count: number of scenes.
        seed: of the whole set.
        size: height and width of the images, in pixels.
        unknowns: whether unknown things stand on or beside the road.
        weather: `clear`, `night`, `fog`, `rain`, or `mixed`: each scene its own.
        strength: of the weather, in [0, 1]; `None`: each scene its own.

    Raises:
        UsageError: if an argument makes no sense.

    Example:
        >>> streets = SyntheticStreets(3, size=(64, 128))
        >>> sample = streets[0]
        >>> sample.name, tuple(sample.image.shape), tuple(sample.label.shape)
        ('street-0-0000', (3, 64, 128), (64, 128))
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        *,
        size: tuple[int, int] = (256, 512),
        unknowns: bool = True,
        weather: str | None = "mixed",
        strength: float | None = None,
    ) -> None:
        weather = "clear" if weather is None else weather
        if count < 1:
            raise UsageError(f"synthetic streets: expected at least 1 scene, got {count}.")
        if seed < 0:
            raise UsageError(f"synthetic streets: expected a seed of at least 0, got {seed}.")
        if min(size) < SMALLEST:
            raise UsageError(
                f"synthetic streets: expected a size of at least {SMALLEST}x{SMALLEST} pixels, "
                f"got {size[0]}x{size[1]}."
            )
        if weather != "mixed" and weather not in WEATHERS:
            known = ", ".join((*WEATHERS, "mixed"))
            raise UsageError(f"synthetic streets: no weather '{weather}'; there are {known}.")
        if strength is not None and not 0 <= strength <= 1:
            raise UsageError(f"synthetic streets: expected a strength in [0, 1], got {strength}.")
        self._count, self._seed, self._size = count, seed, size
        self._unknowns, self._weather, self._strength = unknowns, weather, strength

    @property
    def name(self) -> str:
        """How results call the data set."""
        return f"synthetic:{self._count}"

    @property
    def settings(self) -> dict[str, object]:
        """What the drawing depends on."""
        return {
            "seed": self._seed,
            "size": list(self._size),
            "unknowns": self._unknowns,
            "weather": self._weather,
            "strength": self._strength,
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The eight classes of the streets."""
        return CLASS_NAMES

    @property
    def component_sizes(self) -> ComponentSizes:
        """Smallest components that count: a fixed part of the image."""
        pixels = self._size[0] * self._size[1]
        return ComponentSizes(predicted=max(1, pixels // 4096), labelled=max(1, pixels // 8192))

    def __len__(self) -> int:
        return self._count

    def sample_name(self, index: int) -> str:
        """Name of a scene, from its seed and number."""
        return f"street-{self._seed}-{self._checked(index):04d}"

    def __getitem__(self, index: int) -> Sample:
        """Draw one scene."""
        index = self._checked(index)
        image, label = _drawn(
            (self._seed, index), self._size, self._unknowns, self._weather, self._strength
        )
        channels_first = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(self.sample_name(index), channels_first, torch.from_numpy(label.copy()))

    def _checked(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}")
        return index
