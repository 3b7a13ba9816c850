"""The squared distance of each edge pixel to the nearest of another edge, as machine code: exact whole numbers.

The gap of a pixel is its distance to the next edge pixel in its own column. From a pixel one looks along its row,
outward, and stops where the columns themselves are farther than the best so far: a few steps for masks that agree.
"""

from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.jit import call, compiled

_FAR = 1 << 28  # a gap where a column has no edge pixel; its square is an int64


def nearest_squares(points: np.ndarray, others: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Squared distances (n,) int64 of points (n, 2) to the nearest of `others` (m, 2), all in a box `size`."""
    gaps = np.empty(size, np.int32)
    squares = np.empty(len(points), np.int64)
    call(_measure, points, others, gaps, squares)
    return squares


@compiled
def _measure(points, others, gaps, squares):  # type: ignore[no-untyped-def]
    h, w = gaps.shape
    gaps[:] = _FAR
    for i in range(len(others)):
        gaps[others[i, 0], others[i, 1]] = 0
    for row in range(1, h):
        for column in range(w):
            gaps[row, column] = min(gaps[row, column], gaps[row - 1, column] + 1)
    for row in range(h - 2, -1, -1):
        for column in range(w):
            gaps[row, column] = min(gaps[row, column], gaps[row + 1, column] + 1)
    for i in range(len(points)):
        row, column = points[i, 0], points[i, 1]
        best = np.int64(gaps[row, column]) ** 2
        step = 1
        while step * step < best and (step <= column or step < w - column):
            if step <= column:
                best = min(best, np.int64(gaps[row, column - step]) ** 2 + step * step)
            if step < w - column:
                best = min(best, np.int64(gaps[row, column + step]) ** 2 + step * step)
            step += 1
        squares[i] = best
