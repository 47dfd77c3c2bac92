"""Training: one readable loop (`fit.py`), recipes that say what is trained, and what is written.

`train(dataset, out, recipe=Spectral())` writes a folder that `doubtmap.load` takes.
"""

from typing import TYPE_CHECKING

from doubtmap.lazy import lazily
from doubtmap.training.settings import Settings

if TYPE_CHECKING:
    from doubtmap.training.networks import starting_network
    from doubtmap.training.nflowjs import NFlowJS
    from doubtmap.training.recipe import Objective, Recipe, Reporter
    from doubtmap.training.recipes import Dudes, Plain, Spectral
    from doubtmap.training.trained import Trained, train
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "doubtmap.training.networks": ["starting_network"],
            "doubtmap.training.nflowjs": ["NFlowJS"],
            "doubtmap.training.recipe": ["Objective", "Recipe", "Reporter"],
            "doubtmap.training.recipes": ["Dudes", "Plain", "Spectral"],
            "doubtmap.training.trained": ["Trained", "train"],
        },
    )

__all__ = [
    "Dudes",
    "NFlowJS",
    "Objective",
    "Plain",
    "Recipe",
    "Reporter",
    "Settings",
    "Spectral",
    "Trained",
    "starting_network",
    "train",
]
