"""Watching: whether images without labels are still like those that a promise was made on."""

from doubtmap.watching.judging import Verdict
from doubtmap.watching.page import write_watch
from doubtmap.watching.watch import Watch

__all__ = ["Verdict", "Watch", "write_watch"]
