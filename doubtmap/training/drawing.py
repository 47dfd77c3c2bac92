"""Random numbers that depend on the seed, the epoch and the image only.

Hence a resumed run, another number of reading threads and another number of processes draw the
same.
"""

from __future__ import annotations

import numpy as np
import torch


def mixed(*parts: int) -> int:
    """A seed out of several numbers of at least 0, as good as independent of its neighbours."""
    low, high = (int(word) for word in np.random.SeedSequence(parts).generate_state(2))
    return high % 2**31 << 32 | low


def generator(*parts: int) -> torch.Generator:
    """A generator on the CPU for `mixed(*parts)`."""
    return torch.Generator().manual_seed(mixed(*parts))


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The images of an epoch: all of them, shuffled."""
    shuffled: list[int] = torch.randperm(count, generator=generator(seed, epoch)).tolist()
    return shuffled
