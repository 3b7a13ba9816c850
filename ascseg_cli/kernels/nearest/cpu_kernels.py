"""The squared distance of each edge pixel to the nearest of another edge, in numba: exact whole numbers.

The gap of a pixel is its distance to the next edge pixel in its own column. From a pixel one looks along its row,
outward, and stops where the columns themselves are farther than the best so far: a few steps for masks that agree.
A task is a pixel of the one edge; the gaps are made anew for each range of them. All arrays are flat.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import WIDTH
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import load, spread, store, where_less

FAR = np.float32(1e9)  # a gap where a column has no edge pixel; its square is an int64


@compiled
def measure(first, last, points, others, gaps, squares, h, w):
    """Squares (n,) of points (n, 2) to others (m, 2), rows and columns in a box (h, w).

    gaps  (h, w) float32, scratch: whole numbers, exact below 2²⁴; w is a multiple of WIDTH
    """
    far, one = spread(FAR), spread(np.float32(1.0))
    for i in range(0, h * w, WIDTH):
        store(gaps, i, far)
    for i in range(len(others) // 2):
        gaps[others[2 * i] * w + others[2 * i + 1]] = np.float32(0.0)
    for i in range(w, h * w, WIDTH):
        own, above = load(gaps, i), load(gaps, i - w) + one
        store(gaps, i, where_less(own, above, own, above))
    for i in range((h - 1) * w - WIDTH, -1, -WIDTH):
        own, below = load(gaps, i), load(gaps, i + w) + one
        store(gaps, i, where_less(own, below, own, below))
    for i in range(first, last):
        column = points[2 * i + 1]
        place = points[2 * i] * w + column
        best = np.int64(gaps[place]) ** 2
        step = 1
        while step * step < best and (step <= column or step < w - column):
            if step <= column:
                best = min(best, np.int64(gaps[place - step]) ** 2 + step * step)
            if step < w - column:
                best = min(best, np.int64(gaps[place + step]) ** 2 + step * step)
            step += 1
        squares[i] = best
