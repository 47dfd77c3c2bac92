"""Components the slow way, as an oracle."""

import numpy as np


def pieces(mask):
    """8-connected components as sets of pixels, by flood fill."""
    todo, found = set(zip(*np.nonzero(mask))), []
    while todo:
        piece, edge = set(), [todo.pop()]
        while edge:
            i, j = edge.pop()
            piece.add((i, j))
            around = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & todo
            todo -= around
            edge.extend(around)
        found.append(piece)
    return found
