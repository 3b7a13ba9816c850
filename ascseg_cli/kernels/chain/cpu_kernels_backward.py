"""Gradients of chains in numba: of convolutions' weights, each tap a sum over all pixels, of maxima and doubling.

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
    spread,
    store,
    total,
    where_less,
)

_COLUMNS = 128  # of a band that are multiplied at a time


@part
def _products(g, x, first, k, d, pitch, length, begin, end, rows, sums, at):
    """sums += Σ of g times the neighbour that each of the k × k taps sees, three taps at a time.

    Over the columns begin … end - 1 of some rows: so few numbers that they stay in the first-level cache.
    """
    for r in range(k):
        for q in range(0, k, 3):
            a, b, c = spread(0.0), spread(0.0), spread(0.0)
            second, third = d * min(1, k - 1 - q), d * min(2, k - 1 - q)
            for row in range(rows):
                source = first + (row + r * d) * pitch + q * d + begin
                for j in range(row * 2 * length + begin, row * 2 * length + end, WIDTH):
                    v = load(g, j)
                    a = fma(v, load(x, source), a)
                    b = fma(v, load(x, source + second), b)
                    c = fma(v, load(x, source + third), c)
                    source += WIDTH
            tap = at + r * k + q
            sums[tap] += total(a)
            if q + 1 < k:
                sums[tap + 1] += total(b)
            if q + 2 < k:
                sums[tap + 2] += total(c)


@part
def _products_of_two(g, x, first, k, d, pitch, length, begin, end, rows, sums, at, next_at):
    """`_products` of two outputs, whose rows lie beside each other in g: their neighbours are loaded once."""
    for r in range(k):
        for q in range(0, k, 3):
            a, b, c = spread(0.0), spread(0.0), spread(0.0)
            a2, b2, c2 = a, b, c
            second, third = d * min(1, k - 1 - q), d * min(2, k - 1 - q)
            for row in range(rows):
                source = first + (row + r * d) * pitch + q * d + begin
                for j in range(row * 2 * length + begin, row * 2 * length + end, WIDTH):
                    v, v2, u = load(g, j), load(g, length + j), load(x, source)
                    a, a2, u = fma(v, u, a), fma(v2, u, a2), load(x, source + second)
                    b, b2, u = fma(v, u, b), fma(v2, u, b2), load(x, source + third)
                    c, c2 = fma(v, u, c), fma(v2, u, c2)
                    source += WIDTH
            tap, next_tap = at + r * k + q, next_at + r * k + q
            sums[tap] += total(a)
            sums[next_tap] += total(a2)
            if q + 1 < k:
                sums[tap + 1] += total(b)
                sums[next_tap + 1] += total(b2)
            if q + 2 < k:
                sums[tap + 2] += total(c)
                sums[next_tap + 2] += total(c2)


@compiled
def by_weight(first, last, x, xs, gy, gs, head, sums, h, w, strips):
    """Strips of rows first … last - 1, each with sums (out, in, k, k) of its own in float64."""
    k, d, into, out = head[K], head[DILATION], head[CHANNELS_IN], head[CHANNELS_OUT]
    each = into if head[OVER] == DENSE else into // out
    border, height = d * (k - 1) // 2, ROWS + d * (k - 1)
    length = (w + WIDTH - 1) // WIDTH * WIDTH
    pitch = length + (2 * border + WIDTH - 1) // WIDTH * WIDTH
    band, g = np.zeros(into * height * pitch, np.float32), np.zeros(ROWS * 2 * length, np.float32)
    pairs, all_taps = out // 2 if head[OVER] == DENSE else 0, each * k * k
    bands = (h + ROWS - 1) // ROWS
    for task in range(first, last):
        image, strip = task // strips, task % strips
        for begin in range(bands * strip // strips * ROWS, bands * (strip + 1) // strips * ROWS, ROWS):
            end = min(begin + ROWS, h)
            read_band(x, xs, image, head, begin, end, h, w, border, np.float32(0.0), band, pitch, band)
            for pair in range(pairs):
                o, at = 2 * pair, (task * out + 2 * pair) * all_taps
                for row in range(2 * (end - begin)):
                    place = image * gs[0] + (o + row % 2) * gs[1] + (begin + row // 2) * gs[2]
                    copy_row(gy, place, g, row * length, w)
                for i in range(into):
                    place, own = i * height * pitch, at + i * k * k
                    for left in range(0, length, _COLUMNS):
                        right, next_own = min(left + _COLUMNS, length), own + all_taps
                        _products_of_two(
                            g, band, place, k, d, pitch, length, left, right, end - begin, sums, own, next_own
                        )
            for o in range(2 * pairs, out):
                for row in range(end - begin):
                    place = image * gs[0] + o * gs[1] + (begin + row) * gs[2]
                    copy_row(gy, place, g, 2 * row * length, w)
                for i in range(each):
                    place = (i if head[OVER] == DENSE else o * each + i) * height * pitch
                    own = ((task * out + o) * each + i) * k * k
                    for left in range(0, length, _COLUMNS):
                        right = min(left + _COLUMNS, length)
                        _products(g, band, place, k, d, pitch, length, left, right, end - begin, sums, own)


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
def _back_through_doubling(g, gx, to, w, number):
    """A row of 2w numbers to the w numbers that they lie between; see `cpu_kernels._double`.

    g has room for WIDTH zeros on either side; number is 0, 1, … 15.
    """
    unit, whole = np.float32(1.0) / np.float32(2 * w - 1), spread(1.0)
    for i in range(0, w, WIDTH):
        at = WIDTH + 2 * i
        here, next_here = load(g, at), load(g, at + WIDTH)
        even, odd = evens(here, next_here), odds(here, next_here)
        further = evens(load(g, at + 2), load(g, at + 2 + WIDTH))  # the even one of the next pixel
        before = odds(load(g, at - 2), load(g, at - 2 + WIDTH))  # the odd one of the pixel before
        share = (load(number, 0) + np.float32(i)) * unit
        rest = whole - share - unit * np.float32(w)  # (w - 1 - m) / (2w - 1) is 1 - share - w / (2w - 1)
        store(
            gx,
            to + i,
            fma(even, whole - share, fma(odd, whole - rest, fma(further, share + unit, before * (rest + unit)))),
        )


@compiled
def by_doubling(first, last, gy, gs, gx, channels, h, w):
    """What doubling, corners aligned, hands back to the planes first … last - 1 of the h × w px; gx is dense.

    Row m has 1 - m / (2h - 1) of the doubled row 2m, (m + 1) / (2h - 1) of 2m + 2, and likewise of odd ones.
    """
    pitch = (2 * w + 2 * WIDTH - 1) // (2 * WIDTH) * 2 * WIDTH
    g, line = np.zeros(pitch + 4 * WIDTH, np.float32), np.zeros(pitch // 2 + WIDTH, np.float32)
    number = np.zeros(WIDTH, np.float32)
    for i in range(WIDTH):
        number[i] = i
    unit = np.float32(1.0) / np.float32(2 * h - 1)
    for plane in range(first, last):
        at = plane // channels * gs[0] + plane % channels * gs[1]
        for m in range(h):
            even, odd = at + 2 * m * gs[2], at + (2 * m + 1) * gs[2]
            further, before = min(even + 2 * gs[2], at + (2 * h - 2) * gs[2]), max(odd - 2 * gs[2], at + gs[2])
            a, c = (
                np.float32(1.0) - np.float32(m) * unit,
                np.float32(m + 1) * unit if m + 1 < h else np.float32(0.0),
            )
            b = np.float32(1.0) - np.float32(h - 1 - m) * unit
            d = np.float32(h - m) * unit if m else np.float32(0.0)
            for i in range(0, 2 * w - WIDTH + 1, WIDTH):
                v = fma(load(gy, further + i), spread(c), load(gy, before + i) * d)
                v = fma(load(gy, even + i), spread(a), fma(load(gy, odd + i), spread(b), v))
                store(g, WIDTH + i, v)
            for i in range(2 * w // WIDTH * WIDTH, 2 * w):
                v = gy[even + i] * a + gy[odd + i] * b
                g[WIDTH + i] = v + gy[further + i] * c + gy[before + i] * d
            _back_through_doubling(g, line, 0, w, number)
            copy_row(line, 0, gx, (plane * h + m) * w, w)
