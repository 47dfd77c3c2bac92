"""The command line: one command per verb, one file per command, one library call each.

A command answers at once: the file of a command is imported when it is asked for, and imports no
more than its `--help` and its own checks need. Its body first refuses what makes no sense, then
imports the rooms that it works with, and calls them. So `--help`, `--version`, completion and
misspelt options never wait for PyTorch.
"""

from doubtmap.cli.app import app, main

__all__ = ["app", "main"]
