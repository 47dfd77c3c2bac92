"""Training: one readable loop (`fit.py`), recipes that say what is trained, and what is written.

`train(dataset, out, recipe=Spectral())` writes a folder that `doubtmap.load` takes.
"""

from doubtmap.training.networks import starting_network
from doubtmap.training.nflowjs import NFlowJS
from doubtmap.training.recipe import Objective, Recipe, Reporter
from doubtmap.training.recipes import Dudes, Plain, Spectral
from doubtmap.training.settings import Settings
from doubtmap.training.train import Trained, train

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
