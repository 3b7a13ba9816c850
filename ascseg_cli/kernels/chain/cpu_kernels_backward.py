"""Gradients of chains in numba: of a convolution's weights, each tap a sum over all pixels, of maxima, of norms.

The gradient of a convolution's input is itself a convolution, which `cpu_kernels.run` computes.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import ROWS, WIDTH
from ascseg_cli.kernels.chain.cpu_kernels import (
    CHANNELS_IN,
    CHANNELS_OUT,
    DENSE,
    DILATION,
    OVER,
    K,
    copy_row,
    read_band,
)
from ascseg_cli.kernels.elementary import larger
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import (
    evens,
    fma,
    load,
    merged_high,
    merged_low,
    odds,
    part,
    root,
    spread,
    spread_at,
    store,
    total,
    where_less,
)


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


@part
def _products_of_two(g, x, first, k, d, pitch, length, sums, at, next_at):
    """`_products` of two rows of g, one after the other, with the same neighbours: each is loaded once."""
    for r in range(k):
        for q in range(0, k, 3):
            a, b, c = spread(0.0), spread(0.0), spread(0.0)
            a2, b2, c2 = a, b, c
            source = first + r * d * pitch + q * d
            second, third = source + d * min(1, k - 1 - q), source + d * min(2, k - 1 - q)
            for j in range(0, length, WIDTH):
                v, v2, u = load(g, j), load(g, length + j), load(x, source + j)
                a, a2, u = fma(v, u, a), fma(v2, u, a2), load(x, second + j)
                b, b2, u = fma(v, u, b), fma(v2, u, b2), load(x, third + j)
                c, c2 = fma(v, u, c), fma(v2, u, c2)
            tap = r * k + q
            sums[at + tap] += total(a)
            sums[next_at + tap] += total(a2)
            if q + 1 < k:
                sums[at + tap + 1] += total(b)
                sums[next_at + tap + 1] += total(b2)
            if q + 2 < k:
                sums[at + tap + 2] += total(c)
                sums[next_at + tap + 2] += total(c2)


@compiled
def by_weight(first, last, x, xs, gy, gs, head, sums, h, w, strips):
    """Strips of rows first … last - 1, each with sums (out, in, k, k) of its own in float64."""
    k, d, into, out = head[K], head[DILATION], head[CHANNELS_IN], head[CHANNELS_OUT]
    each = into if head[OVER] == DENSE else into // out
    border, rows = d * (k - 1) // 2, ROWS + d * (k - 1)
    length = (w + WIDTH - 1) // WIDTH * WIDTH
    pitch = length + (2 * border + WIDTH - 1) // WIDTH * WIDTH
    band, g = np.zeros(into * rows * pitch, np.float32), np.zeros(2 * length, np.float32)
    pairs, all_taps = out // 2 if head[OVER] == DENSE else 0, each * k * k
    bands = (h + ROWS - 1) // ROWS
    for task in range(first, last):
        image, strip = task // strips, task % strips
        for begin in range(bands * strip // strips * ROWS, bands * (strip + 1) // strips * ROWS, ROWS):
            end = min(begin + ROWS, h)
            read_band(x, xs, image, head, begin, end, h, w, border, np.float32(0.0), band, pitch, band)
            for row in range(begin, end):
                for pair in range(pairs):
                    o, at = 2 * pair, (task * out + 2 * pair) * all_taps
                    copy_row(gy, image * gs[0] + o * gs[1] + row * gs[2], g, 0, w)
                    copy_row(gy, image * gs[0] + (o + 1) * gs[1] + row * gs[2], g, length, w)
                    for i in range(into):
                        place, own = (i * rows + row - begin) * pitch, at + i * k * k
                        _products_of_two(g, band, place, k, d, pitch, length, sums, own, own + all_taps)
                for o in range(2 * pairs, out):
                    copy_row(gy, image * gs[0] + o * gs[1] + row * gs[2], g, 0, w)
                    for i in range(each):
                        channel = i if head[OVER] == DENSE else o * each + i
                        place = (channel * rows + row - begin) * pitch
                        _products(g, band, place, k, d, pitch, length, sums, ((task * out + o) * each + i) * k * k)


@part
def _to_first(v, highest, rest):
    """Of `rest`, what goes to v, and what is left for later places: all or nothing."""
    return where_less(v, highest, spread(0.0), rest), where_less(v, highest, rest, spread(0.0))


@part
def _back_through_halving(x, g, gx, pitch):
    """A row of g to two rows of x: each number to the first of the four that are the largest."""
    for j in range(0, pitch // 2, WIDTH):
        upper, upper_next = load(x, 2 * j), load(x, 2 * j + WIDTH)
        lower, lower_next = load(x, pitch + 2 * j), load(x, pitch + 2 * j + WIDTH)
        a, b = evens(upper, upper_next), odds(upper, upper_next)
        c, d = evens(lower, lower_next), odds(lower, lower_next)
        highest = larger(larger(a, b), larger(c, d))
        a, rest = _to_first(a, highest, load(g, j))
        b, rest = _to_first(b, highest, rest)
        c, d = _to_first(c, highest, rest)
        store(gx, 2 * j, merged_low(a, b))
        store(gx, 2 * j + WIDTH, merged_high(a, b))
        store(gx, pitch + 2 * j, merged_low(c, d))
        store(gx, pitch + 2 * j + WIDTH, merged_high(c, d))


@part
def _back_through_maximum(x, g, gx, at, pitch, w):
    """A row of g added to three rows of gx, which lie as the bordered rows of x do."""
    for j in range(0, w, WIDTH):
        rest, highest = load(g, j), load(x, at + j)
        for tap in range(1, 9):
            highest = larger(highest, load(x, at + tap // 3 * pitch + tap % 3 + j))
        for tap in range(9):
            place = at + tap // 3 * pitch + tap % 3 + j
            here, rest = _to_first(load(x, place), highest, rest)
            store(gx, place, load(gx, place) + here)


@compiled
def by_maximum(first, last, x, xs, gy, gs, gx, size, channels, h, w):
    """What maxima of 2 × 2 (size 2, halved) or 3 × 3 pixels hand back to the planes first … last - 1 of x.

    gx is dense; where h or w is odd, halving leaves its last row or column as it is.
    """
    pitch = (w + 2 + 2 * WIDTH - 1) // (2 * WIDTH) * 2 * WIDTH
    count = (h + 2) * pitch + 2 * WIDTH
    bordered, sums = np.full(count, np.float32(-np.inf), np.float32), np.zeros(count, np.float32)
    g = np.zeros(pitch, np.float32)
    for plane in range(first, last):
        image, c = plane // channels, plane % channels
        at_x, at_g, at_gx = image * xs[0] + c * xs[1], image * gs[0] + c * gs[1], plane * h * w
        if size == 2:
            for row in range(h // 2):
                copy_row(x, at_x + 2 * row * xs[2], bordered, 0, w)
                copy_row(x, at_x + (2 * row + 1) * xs[2], bordered, pitch, w)
                copy_row(gy, at_g + row * gs[2], g, 0, w // 2)
                _back_through_halving(bordered, g, sums, pitch)
                copy_row(sums, 0, gx, at_gx + 2 * row * w, w)
                copy_row(sums, pitch, gx, at_gx + (2 * row + 1) * w, w)
        else:
            sums[:] = 0
            for row in range(h):
                copy_row(x, at_x + row * xs[2], bordered, (row + 1) * pitch + 1, w)
            for row in range(h):
                copy_row(gy, at_g + row * gs[2], g, 0, w)
                _back_through_maximum(bordered, g, sums, row * pitch, pitch, w)
            for row in range(h):
                copy_row(sums, (row + 1) * pitch + 1, gx, at_gx + row * w, w)


@part
def _back_through_norm(x, g, length, channels, numbers, w, acts):
    """Rows of x become what layer normalisation hands back to them; acts += g times the normalised x, then g."""
    share = np.float32(1.0) / np.float32(channels)
    for j in range(0, w, WIDTH):
        total_x, squares, sums, products = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for c in range(channels):
            total_x = total_x + load(x, c * length + j)
        mean = total_x * share
        for c in range(channels):
            v = load(x, c * length + j) - mean
            squares = fma(v, v, squares)
        scale = spread(1.0) / root(squares * share + spread_at(numbers, 0))
        for c in range(channels):
            v, given = (load(x, c * length + j) - mean) * scale, load(g, c * length + j)
            weighted = given * spread_at(numbers, 1 + 2 * c)
            sums, products = sums + weighted, fma(weighted, v, products)
            store(x, c * length + j, v)
            store(acts, 2 * c * WIDTH, fma(given, v, load(acts, 2 * c * WIDTH)))
            store(acts, (2 * c + 1) * WIDTH, load(acts, (2 * c + 1) * WIDTH) + given)
        sums, products = sums * share, products * share
        for c in range(channels):
            v, given = load(x, c * length + j), load(g, c * length + j)
            rest = given * spread_at(numbers, 1 + 2 * c) - sums - v * products
            store(x, c * length + j, rest * scale)


@compiled
def by_norm(first, last, x, xs, gy, gs, numbers, gx, sums, channels, h, w, strips):
    """What layer normalisation over the channels hands back to x and, in float64, to weights and biases.

    Strips of rows first … last - 1. numbers: eps, then weight and bias of each channel; gx is dense; sums
    (strips of all images, channels, 2)
    """
    length = (w + WIDTH - 1) // WIDTH * WIDTH
    line, g = np.zeros(channels * length, np.float32), np.zeros(channels * length, np.float32)
    acts = np.zeros(2 * channels * WIDTH, np.float32)
    for task in range(first, last):
        image, strip = task // strips, task % strips
        for row in range(h * strip // strips, h * (strip + 1) // strips):
            for c in range(channels):
                copy_row(x, image * xs[0] + c * xs[1] + row * xs[2], line, c * length, w)
                copy_row(gy, image * gs[0] + c * gs[1] + row * gs[2], g, c * length, w)
            acts[:] = 0
            _back_through_norm(line, g, length, channels, numbers, w, acts)
            for c in range(channels):
                copy_row(line, c * length, gx, ((image * channels + c) * h + row) * w, w)
                for of in range(2):
                    sums[(task * channels + c) * 2 + of] += total(load(acts, (2 * c + of) * WIDTH))
