"""The command line: one command per verb, one file per command, one library call each."""

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
