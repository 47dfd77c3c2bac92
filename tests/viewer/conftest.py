"""Lets all tests of the viewer share its runs."""

from runs_to_look_at import runs

__all__ = ["runs"]
