"""The command line: one command per verb, one file per command, one library call each."""

from doubtmap.cli import (
    analyse,
    calibrate,
    check,
    demo,
    evaluate,
    fit,
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
    "check",
    "demo",
    "evaluate",
    "fit",
    "locations",
    "main",
    "objects",
    "review",
    "score",
    "threshold",
    "train",
]
