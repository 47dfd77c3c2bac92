"""Runs in the browser: what `score`, `evaluate`, `review` and `objects` wrote, and nothing new."""

from doubtmap.viewer.gathering import Gathered, gather
from doubtmap.viewer.runs import open_run
from doubtmap.viewer.server import serve
from doubtmap.viewer.static import write_static

__all__ = ["Gathered", "gather", "open_run", "serve", "write_static"]
