"""The command line: one command per verb, one file per command, one library call each.

A command answers at once: its file imports nothing but what `--help` and its own checks need.
Its body first refuses what makes no sense, then imports the rooms that it works with, and calls
them. So `--help`, `--version`, completion and misspelt options never wait for PyTorch.
"""

from doubtmap.cli import (
    analyse,
    calibrate,
    demo,
    evaluate,
    fit,
    info,
    locations,
    objects,
    review,
    score,
    threshold,
    train,
)
from doubtmap.cli.app import app, main

__all__ = [
    "analyse",
    "app",
    "calibrate",
    "demo",
    "evaluate",
    "fit",
    "info",
    "locations",
    "main",
    "objects",
    "review",
    "score",
    "threshold",
    "train",
]
