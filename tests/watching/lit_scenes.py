"""Scenes whose light can be another one, and a threshold that was chosen for them."""

import numpy as np
import torch

from doubtmap.datasets.dataset import Sample
from doubtmap.decisions.file import Threshold
from doubtmap.watching import Watch

CLASSES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")
CHOSEN = Threshold("entropy", 0.5, "wrong", "risk", 0.1)


class Scenes:
    """Patches of eight classes, each with a colour of its own, in light of that scene; seeded."""

    class_names, component_sizes, name = CLASSES, None, "scenes"

    def __init__(self, count, seed, light=1.0):
        self.count, self.seed, self.light = count, seed, light

    def __len__(self):
        return self.count

    def sample_name(self, index):
        return f"scene_{index}"

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError
        generator = np.random.default_rng([self.seed, index])
        label = generator.integers(0, 8, (4, 6)).repeat(8, 0).repeat(8, 1)
        colours = np.random.default_rng(0).integers(0, 200, (8, 3))
        bright = self.light * generator.uniform(0.8, 1.2)
        image = bright * (colours[label] + generator.normal(0, 8, (32, 48, 3)))
        pixels = torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)
        return Sample(self.sample_name(index), pixels, torch.from_numpy(label).short())


def replace_copy(watch):
    return Watch(watch.promise, watch.state)
