"""Batch normalisation over a batch's own statistics, and the activation after it, in numba, with gradients.

A task is one channel of one image. Sums run in float32 within a block and in float64 over blocks, so they are as
exact as torch's, in one order whatever the threads. `numbers` holds six figures a channel, see below.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.chain.cpu_kernels import GELU, RELU, SIGMOID
from ascseg_cli.kernels.compiled import compiled
from ascseg_cli.kernels.elementary import exp, larger, normal, sigmoid
from ascseg_cli.kernels.lanes import WIDTH, fma, load, part, spread, spread_at, store, total, where_less

BLOCK = 32 * WIDTH  # pixels summed in float32

# figures of a channel: z = (x - MEAN) · SCALE + SHIFT, and in backward gx = g · SCALE - (x - MEAN) · SLOPE - LEVEL
MEAN, SCALE, SHIFT, SLOPE, LEVEL = range(5)
FIGURES = 5


@part
def _vector(t, at, count, rest):
    """Sixteen numbers; past the last of them zeros, since memory may end there. `rest` is scratch."""
    if count >= WIDTH:
        return load(t, at)
    store(rest, 0, spread(0.0))
    for k in range(count):
        rest[k] = t[at + k]
    return load(rest, 0)


@part
def _write(v, t, at, count, rest):
    if count >= WIDTH:
        store(t, at, v)
    else:
        store(rest, 0, v)
        for k in range(count):
            t[at + k] = rest[k]


@compiled
def moments(first, last, x, xs, numbers, sums, channels, size):
    """sums[task] = Σ (x - MEAN) and Σ (x - MEAN)², with MEAN any number near the mean."""
    for task in range(first, last):
        image, channel = task // channels, task % channels
        at, near = image * xs[0] + channel * xs[1], spread_at(numbers, channel * FIGURES + MEAN)
        sum_1, sum_2 = 0.0, 0.0
        for block in range(0, size, BLOCK):
            a, b = spread(0.0), spread(0.0)
            for k in range(block, min(block + BLOCK, size) - WIDTH + 1, WIDTH):
                v = load(x, at + k) - near
                a, b = a + v, fma(v, v, b)
            sum_1 += total(a)
            sum_2 += total(b)
        for k in range(size // WIDTH * WIDTH, size):
            v = x[at + k] - numbers[channel * FIGURES + MEAN]
            sum_1 += v
            sum_2 += v * v
        sums[2 * task], sums[2 * task + 1] = sum_1, sum_2


@compiled
def normalise(first, last, x, xs, y, numbers, kind, channels, size):
    """y = activation((x - MEAN) · SCALE + SHIFT); y is (b, c, size)."""
    rest = np.zeros(WIDTH, np.float32)
    for task in range(first, last):
        image, channel = task // channels, task % channels
        at, n = image * xs[0] + channel * xs[1], channel * FIGURES
        mean, scale = spread_at(numbers, n + MEAN), spread_at(numbers, n + SCALE)
        shift = spread_at(numbers, n + SHIFT)
        for k in range(0, size, WIDTH):
            z = fma(_vector(x, at + k, size - k, rest) - mean, scale, shift)
            if kind == RELU:
                z = larger(z, spread(0.0))
            elif kind == GELU:
                z = z * normal(z)
            elif kind == SIGMOID:
                z = sigmoid(z)
            _write(z, y, task * size + k, size - k, rest)


@part
def _slope(z, kind):
    """The activation's derivative."""
    slope = spread(1.0)
    if kind == RELU:
        slope = where_less(spread(0.0), z, slope, spread(0.0))
    elif kind == GELU:
        slope = fma(z * 0.3989422804, exp(z * z * -0.5), normal(z))
    elif kind == SIGMOID:
        s = sigmoid(z)
        slope = s * (spread(1.0) - s)
    return slope


@compiled
def gradient_sums(first, last, x, xs, gy, gs, g, numbers, sums, kind, channels, size):
    """g = gy · slope of the activation, and sums[task] = Σ g and Σ g · (x - MEAN)."""
    rest = np.zeros(WIDTH, np.float32)
    for task in range(first, last):
        image, channel = task // channels, task % channels
        at, at_gy, n = image * xs[0] + channel * xs[1], image * gs[0] + channel * gs[1], channel * FIGURES
        mean, scale = spread_at(numbers, n + MEAN), spread_at(numbers, n + SCALE)
        shift = spread_at(numbers, n + SHIFT)
        sum_1, sum_2 = 0.0, 0.0
        for block in range(0, size, BLOCK):
            a, b = spread(0.0), spread(0.0)
            for k in range(block, min(block + BLOCK, size), WIDTH):
                centred = _vector(x, at + k, size - k, rest) - mean
                v = _vector(gy, at_gy + k, size - k, rest) * _slope(fma(centred, scale, shift), kind)
                a, b = a + v, fma(v, centred, b)
                _write(v, g, task * size + k, size - k, rest)
            sum_1 += total(a)
            sum_2 += total(b)
        sums[2 * task], sums[2 * task + 1] = sum_1, sum_2


@compiled
def gradient(first, last, x, xs, g, numbers, channels, size):
    """The gradient of x in place of g."""
    rest = np.zeros(WIDTH, np.float32)
    for task in range(first, last):
        image, channel = task // channels, task % channels
        at, n = image * xs[0] + channel * xs[1], channel * FIGURES
        mean, scale = spread_at(numbers, n + MEAN), spread_at(numbers, n + SCALE)
        slope, level = spread_at(numbers, n + SLOPE), spread_at(numbers, n + LEVEL)
        for k in range(0, size, WIDTH):
            v = _vector(g, task * size + k, size - k, rest) * scale - level
            v = v - (_vector(x, at + k, size - k, rest) - mean) * slope
            _write(v, g, task * size + k, size - k, rest)
