"""Weighted sums of rows in numba, by which a picture is scaled. Arrays are flat; a task is a row of the result."""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import WIDTH
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import load, load_bytes, part, spread_at, store


@part
def _tail(source, sums, index, weight, row, taps, line, begin):
    for j in range(begin, line):
        total = np.float32(source[index[row * taps] * line + j]) * weight[row * taps]
        for k in range(row * taps + 1, (row + 1) * taps):
            total += np.float32(source[index[k] * line + j]) * weight[k]
        sums[row * line + j] = total


@compiled
def of_bytes(first, last, source, sums, index, weight, taps, line):
    """sums[i] = Σ_k weight[i, k] · source[index[i, k]], rows of `line` numbers, added in the order of k."""
    for row in range(first, last):
        for j in range(0, line - WIDTH + 1, WIDTH):
            total = load_bytes(source, index[row * taps] * line + j) * spread_at(weight, row * taps)
            for k in range(row * taps + 1, (row + 1) * taps):
                total = total + load_bytes(source, index[k] * line + j) * spread_at(weight, k)
            store(sums, row * line + j, total)
        _tail(source, sums, index, weight, row, taps, line, line // WIDTH * WIDTH)


@compiled
def of_floats(first, last, source, sums, index, weight, taps, line):
    """As `of_bytes`."""
    for row in range(first, last):
        for j in range(0, line - WIDTH + 1, WIDTH):
            total = load(source, index[row * taps] * line + j) * spread_at(weight, row * taps)
            for k in range(row * taps + 1, (row + 1) * taps):
                total = total + load(source, index[k] * line + j) * spread_at(weight, k)
            store(sums, row * line + j, total)
        _tail(source, sums, index, weight, row, taps, line, line // WIDTH * WIDTH)
