"""Distances between the edges of masks, exact and without torch: what evaluation's boundary metrics rest on."""

from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import WIDTH
from ascseg_cli.kernels.kernel import Kernel

measure = Kernel("nearest.cpu_kernels", "measure")


def nearest_squares(points: np.ndarray, others: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Squared distances (n,) int64 of points (n, 2) int64 to the nearest of `others` (m, 2), in a box `size`."""
    here, there = (np.ascontiguousarray(one, np.int64).ravel() for one in (points, others))
    height, width = size[0], -(-size[1] // WIDTH) * WIDTH
    gaps, squares = np.empty(height * width, np.float32), np.empty(len(points), np.int64)
    measure.shares(here, there, gaps, squares, height, width)(0, len(points))
    return squares
