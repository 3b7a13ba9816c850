"""A channel's largest number plus its mean, in numba. Arrays are flat; `x, xs` is x's memory, its strides."""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import WIDTH
from ascseg_cli.kernels.elementary import larger
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import load, spread, store, total


@compiled
def pool(first, last, x, xs, s, channels, h, w):
    """s (b · channels,) of x (b, channels, h, w) with dense rows. A row is summed in float32, rows in float64."""
    lanes = np.zeros(WIDTH, np.float32)
    for task in range(first, last):
        at = task // channels * xs[0] + task % channels * xs[1]
        highest, tops = np.float32(-np.inf), spread(np.float32(-np.inf))
        whole = 0.0
        for row in range(at, at + h * xs[2], xs[2]):
            sums = spread(0.0)
            for j in range(row, row + w - WIDTH + 1, WIDTH):
                v = load(x, j)
                sums, tops = sums + v, larger(v, tops)
            whole += total(sums)
            for j in range(row + w // WIDTH * WIDTH, row + w):
                whole += x[j]
                highest = max(highest, x[j])
        store(lanes, 0, tops)
        for lane in lanes:
            highest = max(highest, lane)
        s[task] = highest + np.float32(whole / (h * w))  # NaN where a number is: the mean is
