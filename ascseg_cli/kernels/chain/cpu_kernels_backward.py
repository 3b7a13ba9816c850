"""The gradient of a convolution's weights in numba: rows of pixels in vectors, each tap a sum over all of them.

The gradient of its input is itself a convolution, which `cpu_kernels.run` computes.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.chain.cpu_kernels import (
    CHANNELS_IN,
    CHANNELS_OUT,
    DENSE,
    DILATION,
    OVER,
    ROWS,
    K,
    copy_row,
    read_band,
)
from ascseg_cli.kernels.lanes import WIDTH, fma, load, part, spread, total
from ascseg_cli.kernels.machine_code import compiled


@part
def _products(g, x, first, k, d, pitch, length, sums, at):
    """sums += Σ over a row of g times the neighbour that each of the k × k taps sees: three taps at a time."""
    for r in range(k):
        for q in range(0, k, 3):
            a, b, c = spread(0.0), spread(0.0), spread(0.0)
            source = first + r * d * pitch + q * d
            second, third = source + d * min(1, k - 1 - q), source + d * min(2, k - 1 - q)
            for j in range(0, length, WIDTH):
                v = load(g, j)
                a, b, c = (
                    fma(v, load(x, source + j), a),
                    fma(v, load(x, second + j), b),
                    fma(v, load(x, third + j), c),
                )
            sums[at + r * k + q] += total(a)
            if q + 1 < k:
                sums[at + r * k + q + 1] += total(b)
            if q + 2 < k:
                sums[at + r * k + q + 2] += total(c)


@compiled
def by_weight(first, last, x, xs, gy, gs, head, sums, h, w, strips):
    """Strips of rows first … last - 1, each with sums (out, in, k, k) of its own in float64."""
    k, d, into, out = head[K], head[DILATION], head[CHANNELS_IN], head[CHANNELS_OUT]
    each = into if head[OVER] == DENSE else into // out
    border, rows = d * (k - 1) // 2, ROWS + d * (k - 1)
    length = (w + WIDTH - 1) // WIDTH * WIDTH
    pitch = length + (2 * border + WIDTH - 1) // WIDTH * WIDTH
    band, g = np.zeros(into * rows * pitch, np.float32), np.zeros(length, np.float32)
    bands = (h + ROWS - 1) // ROWS
    for task in range(first, last):
        image, strip = task // strips, task % strips
        for begin in range(bands * strip // strips * ROWS, bands * (strip + 1) // strips * ROWS, ROWS):
            end = min(begin + ROWS, h)
            read_band(x, xs, image, head, begin, end, h, w, border, np.float32(0.0), band, pitch, band)
            for row in range(begin, end):
                for o in range(out):
                    copy_row(gy, image * gs[0] + o * gs[1] + row * gs[2], g, 0, w)
                    for i in range(each):
                        channel = i if head[OVER] == DENSE else o * each + i
                        place = (channel * rows + row - begin) * pitch
                        _products(g, band, place, k, d, pitch, length, sums, ((task * out + o) * each + i) * k * k)
