"""Drawn street scenes: a camera, a canvas of surfaces, one file for each kind of thing.

`scene.py` puts them together; everything far away is drawn first.
"""
