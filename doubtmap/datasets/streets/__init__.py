"""Drawn street scenes: a camera, a canvas of surfaces, and one file for each thing that stands there."""
