"""The command line: one command per verb, one file per command, one library call each."""

from doubtmap.cli import demo, evaluate, info, score
from doubtmap.cli.app import app, main

__all__ = ["app", "demo", "evaluate", "info", "main", "score"]
