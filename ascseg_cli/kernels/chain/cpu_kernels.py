"""One pass of a chain in numba: sixteen neighbouring pixels in a vector, one output row of all channels at a time.

A pass reads an image (enlarged or pooled by 2 on the way, if asked), applies at most one convolution or pooling
over neighbours, then any number of steps within a pixel, and writes each number once. Rows that the neighbours
come from are first copied, with their border, to scratch that stays in the second-level cache; all that follows
stays in a row's scratch in the first.

Arrays are flat; `t, ts` is a tensor's memory and its strides. Scratch rows are whole vectors: what lies beyond the
image's width is computed and never written out.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import ROWS, WIDTH
from ascseg_cli.kernels.chain.codes import (
    ADD,
    ALONE,
    BOOST,
    DENSE,
    DOUBLE,
    GATE,
    GELU,
    GROUPED,
    HALVE,
    MAXIMUM,
    NORM,
    POINTWISE,
    RELU,
    SIGMOID,
)
from ascseg_cli.kernels.elementary import gelu, larger, sigmoid
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
)

SLACK = 2 * WIDTH  # numbers beyond a scratch row's last that may be written

# fields of a pass
RESIZE_IN, OVER, K, DILATION, CHANNELS_IN, CHANNELS_OUT, NUMBERS, RESIZE_OUT, WIDEST, ROOMY = range(10)
HEADER = 10
# fields of a step within a pixel
KIND, INTO, OUT, AT = range(4)
STEP = 4


# ---- reading rows ------------------------------------------------------------------------------------------


@part
def copy_row(source, at, target, to, count):
    for i in range(0, count - WIDTH + 1, WIDTH):
        store(target, to + i, load(source, at + i))
    for i in range(count // WIDTH * WIDTH, count):
        target[to + i] = source[at + i]


@part
def _double(x, at, step, row, h, w, target, to, line):
    """A row of the doubled image, corners aligned: each number lies between two neighbours.

    Even places 2m lie m / (2w - 1) before m, odd ones (w - 1 - m) / (2w - 1) after it; rows alike.
    """
    m, share = row // 2, np.float32(row // 2) / np.float32(2 * h - 1)
    other = max(m - 1, 0)
    if row % 2:
        share = np.float32(h - 1 - m) / np.float32(2 * h - 1)
        other = min(m + 1, h - 1)
    here, there = at + m * step, at + other * step
    for i in range(0, w - WIDTH + 1, WIDTH):
        a = load(x, here + i)
        store(line, WIDTH + i, fma(load(x, there + i) - a, spread(share), a))
    for i in range(w // WIDTH * WIDTH, w):
        line[WIDTH + i] = x[here + i] + (x[there + i] - x[here + i]) * share
    line[WIDTH - 1] = 0
    line[WIDTH + w] = 0
    store(line, 0, spread(0.0))
    unit = np.float32(1.0) / np.float32(2 * w - 1)
    for i in range(0, w, WIDTH):
        centre = load(line, WIDTH + i)
        before, after = load(line, WIDTH + i - 1) - centre, load(line, WIDTH + i + 1) - centre
        place = load(line, len(line) - WIDTH) + np.float32(i)
        even = fma(before, place * unit, centre)
        odd = fma(after, (spread(np.float32(w - 1)) - place) * unit, centre)
        store(target, to + 2 * i, merged_low(even, odd))
        store(target, to + 2 * i + WIDTH, merged_high(even, odd))


@part
def _halve(x, at, step, row, w, target, to):
    """A row of the image pooled by 2, w numbers."""
    upper, lower = at + 2 * row * step, at + (2 * row + 1) * step
    for i in range(0, w - WIDTH + 1, WIDTH):
        a = larger(load(x, upper + 2 * i), load(x, lower + 2 * i))
        b = larger(load(x, upper + 2 * i + WIDTH), load(x, lower + 2 * i + WIDTH))
        store(target, to + i, larger(evens(a, b), odds(a, b)))
    for i in range(w // WIDTH * WIDTH, w):
        a = max(x[upper + 2 * i], x[upper + 2 * i + 1])
        target[to + i] = max(a, max(x[lower + 2 * i], x[lower + 2 * i + 1]))


@part
def _read(x, at, step, resize, row, h, w, target, to, line):
    """Row `row` of an image that has h × w px after resizing."""
    if resize == DOUBLE:
        _double(x, at, step, row, h // 2, w // 2, target, to, line)
    elif resize == HALVE:
        _halve(x, at, step, row, w, target, to)
    else:
        copy_row(x, at + row * step, target, to, w)


@part
def read_band(x, xs, image, head, begin, end, h, w, border, outside, band, pitch, line):
    """The rows begin - border … end + border - 1 of every channel, `outside` beyond the image."""
    rows = ROWS + 2 * border
    for c in range(head[CHANNELS_IN]):
        for i in range(end - begin + 2 * border):
            row, to = begin - border + i, (c * rows + i) * pitch
            if 0 <= row < h:
                _read(x, image * xs[0] + c * xs[1], xs[2], head[RESIZE_IN], row, h, w, band, to + border, line)
                for j in range(border):
                    band[to + j] = outside
                for j in range(border + w, pitch):
                    band[to + j] = outside
            else:
                for j in range(0, pitch, WIDTH):
                    store(band, to + j, spread(outside))


# ---- over neighbours ---------------------------------------------------------------------------------------


@part
def _taps(head, plane, pitch):
    """Where the numbers that an output sums over lie in the band, from its first input's upper left one on."""
    k, d, channels = head[K], head[DILATION], head[CHANNELS_IN]
    if head[OVER] == GROUPED:
        channels = channels // head[CHANNELS_OUT]
    taps = np.zeros(channels * k * k, np.int64)
    for tap in range(len(taps)):
        taps[tap] = tap // (k * k) * plane + tap // k % k * d * pitch + tap % k * d
    return taps


@part
def _dense(band, at, taps, head, numbers, w, target):
    """A convolution in which every output sums over all channels: four outputs at a time."""
    length = len(target) // (2 * head[WIDEST])
    for o in range(0, head[CHANNELS_OUT], 4):
        begin = head[NUMBERS] + o * (len(taps) + 1)
        for j in range(0, w, WIDTH):
            a, b = spread_at(numbers, begin), spread_at(numbers, begin + 1)
            c, e = spread_at(numbers, begin + 2), spread_at(numbers, begin + 3)
            n = begin + 4
            for tap in taps:
                v = load(band, at + j + tap)
                a = fma(v, spread_at(numbers, n), a)
                b = fma(v, spread_at(numbers, n + 1), b)
                c = fma(v, spread_at(numbers, n + 2), c)
                e = fma(v, spread_at(numbers, n + 3), e)
                n += 4
            store(target, o * length + j, a)
            store(target, (o + 1) * length + j, b)
            store(target, (o + 2) * length + j, c)
            store(target, (o + 3) * length + j, e)


@part
def _dense_roomy(band, at, taps, head, numbers, w, target):
    """`_dense`, 32 pixels at a time: eight sums under way, for which AVX-512 has the registers, and the need."""
    length = len(target) // (2 * head[WIDEST])
    for o in range(0, head[CHANNELS_OUT], 4):
        begin = head[NUMBERS] + o * (len(taps) + 1)
        for j in range(0, w, 2 * WIDTH):
            a, b = spread_at(numbers, begin), spread_at(numbers, begin + 1)
            c, e = spread_at(numbers, begin + 2), spread_at(numbers, begin + 3)
            a2, b2, c2, e2, n = a, b, c, e, begin + 4
            for tap in taps:
                v, v2 = load(band, at + j + tap), load(band, at + j + tap + WIDTH)
                weight = spread_at(numbers, n)
                a, a2 = fma(v, weight, a), fma(v2, weight, a2)
                weight = spread_at(numbers, n + 1)
                b, b2 = fma(v, weight, b), fma(v2, weight, b2)
                weight = spread_at(numbers, n + 2)
                c, c2 = fma(v, weight, c), fma(v2, weight, c2)
                weight = spread_at(numbers, n + 3)
                e, e2 = fma(v, weight, e), fma(v2, weight, e2)
                n += 4
            first = o * length + j
            store(target, first, a)
            store(target, first + WIDTH, a2)
            store(target, first + length, b)
            store(target, first + length + WIDTH, b2)
            store(target, first + 2 * length, c)
            store(target, first + 2 * length + WIDTH, c2)
            store(target, first + 3 * length, e)
            store(target, first + 3 * length + WIDTH, e2)


@part
def _grouped(band, at, plane, taps, head, numbers, w, target):
    """A convolution in which each output has input channels of its own: two outputs of 32 pixels at a time."""
    out, each = head[CHANNELS_OUT], head[CHANNELS_IN] // head[CHANNELS_OUT] * plane
    length = len(target) // (2 * head[WIDEST])
    for first in range(0, out, 2):
        second = min(first + 1, out - 1)
        begin, next_begin = head[NUMBERS] + first * (len(taps) + 1), head[NUMBERS] + second * (len(taps) + 1)
        for j in range(0, w, 2 * WIDTH):
            a, b = spread_at(numbers, begin), spread_at(numbers, next_begin)
            a2, b2, n = a, b, 1
            for tap in taps:
                weight, p = spread_at(numbers, begin + n), at + first * each + j + tap
                a, a2 = fma(load(band, p), weight, a), fma(load(band, p + WIDTH), weight, a2)
                weight, p = spread_at(numbers, next_begin + n), at + second * each + j + tap
                b, b2 = fma(load(band, p), weight, b), fma(load(band, p + WIDTH), weight, b2)
                n += 1
            store(target, first * length + j, a)
            store(target, first * length + j + WIDTH, a2)
            store(target, second * length + j, b)
            store(target, second * length + j + WIDTH, b2)


@part
def _depthwise(band, at, plane, pitch, head, numbers, w, target, below):
    """`_grouped` where each output has one input and taps are neighbours: two rows at a time, for fewer loads.

    An input can have several outputs.
    """
    k, length, fan = head[K], len(target) // (2 * head[WIDEST]), head[CHANNELS_OUT] // head[CHANNELS_IN]
    for c in range(head[CHANNELS_OUT]):
        begin = head[NUMBERS] + c * (k * k + 1)
        for j in range(0, w, 2 * WIDTH):
            source, n, a = at + c // fan * plane + j, begin + 1, spread_at(numbers, begin)
            a2, b, b2 = a, a, a
            for q in range(k):
                weight = spread_at(numbers, n + q)
                a, a2 = fma(load(band, source + q), weight, a), fma(load(band, source + q + WIDTH), weight, a2)
            for _ in range(1, k):
                source += pitch
                for q in range(k):
                    v, v2 = load(band, source + q), load(band, source + q + WIDTH)
                    weight = spread_at(numbers, n + k + q)
                    a, a2 = fma(v, weight, a), fma(v2, weight, a2)
                    weight = spread_at(numbers, n + q)
                    b, b2 = fma(v, weight, b), fma(v2, weight, b2)
                n += k
            source += pitch
            for q in range(k):
                weight = spread_at(numbers, n + q)
                b, b2 = fma(load(band, source + q), weight, b), fma(load(band, source + q + WIDTH), weight, b2)
            store(target, c * length + j, a)
            store(target, c * length + j + WIDTH, a2)
            store(below, c * length + j, b)
            store(below, c * length + j + WIDTH, b2)


@part
def _maximum(band, at, plane, pitch, head, w, target):
    length = len(target) // (2 * head[WIDEST])
    for c in range(head[CHANNELS_IN]):
        for j in range(0, w, WIDTH):
            source = at + c * plane + j
            a = load(band, source)
            for r in range(head[K]):
                for q in range(head[K]):
                    a = larger(a, load(band, source + r * pitch + q))
            store(target, c * length + j, a)


# ---- within a pixel ----------------------------------------------------------------------------------------


@part
def _pointwise(line, at, to, length, into, out, numbers, begin, w):
    """A 1×1 convolution: four outputs of 16 pixels at a time, since AVX2 has registers for no more."""
    for o in range(0, out, 4):
        for j in range(0, w, WIDTH):
            n = begin + o * (into + 1)
            a, b = spread_at(numbers, n), spread_at(numbers, n + 1)
            c, e = spread_at(numbers, n + 2), spread_at(numbers, n + 3)
            for source in range(at + j, at + j + into * length, length):
                n += 4
                v = load(line, source)
                a, b = fma(v, spread_at(numbers, n), a), fma(v, spread_at(numbers, n + 1), b)
                c, e = fma(v, spread_at(numbers, n + 2), c), fma(v, spread_at(numbers, n + 3), e)
            first = to + o * length + j
            store(line, first, a)
            store(line, first + length, b)
            store(line, first + 2 * length, c)
            store(line, first + 3 * length, e)


@part
def _norm(line, at, length, channels, numbers, begin, w):
    """Layer normalisation over the channels of each pixel; numbers: eps, then weight and bias of each channel."""
    share = np.float32(1.0) / np.float32(channels)
    for j in range(0, w, WIDTH):
        total, squares = spread(0.0), spread(0.0)
        for c in range(channels):
            total = total + load(line, at + c * length + j)
        mean = total * share
        for c in range(channels):
            v = load(line, at + c * length + j) - mean
            squares = fma(v, v, squares)
        scale = spread(1.0) / root(squares * share + spread_at(numbers, begin))
        for c in range(channels):
            n, place = begin + 1 + 2 * c, at + c * length + j
            store(
                line,
                place,
                fma((load(line, place) - mean) * scale, spread_at(numbers, n), spread_at(numbers, n + 1)),
            )


@part
def _elementwise(line, at, length, channels, numbers, begin, kind, w):
    for c in range(channels):
        for i in range(at + c * length, at + c * length + w, WIDTH):
            v = load(line, i)
            if kind == RELU:
                v = larger(v, spread(0.0))
            elif kind == GELU:
                v = gelu(v)
            elif kind == SIGMOID:
                v = sigmoid(v)
            else:
                v = fma(v, spread_at(numbers, begin + 2 * c), spread_at(numbers, begin + 2 * c + 1))
            store(line, i, v)


@part
def _vector(t, at, count, scratch):
    """Sixteen numbers; past the last of them what was there before, since memory may end there."""
    if count >= WIDTH:
        return load(t, at)
    for k in range(count):
        scratch[k] = t[at + k]
    return load(scratch, 0)


@part
def _combine(line, at, length, into, out, other, os, image, row, kind, w, scratch):
    """With the other operand; a single channel is combined with each of the other's."""
    for c in range(out - 1, -1, -1):
        source = image * os[0] + c * os[1] + (0 if kind == BOOST else row * os[2])
        here = at + (c * length if into > 1 else 0)
        for j in range(0, w, WIDTH):
            v = load(line, here + j)
            if kind == BOOST:
                store(line, at + c * length + j, fma(v, spread_at(other, source), v))
            else:
                u = _vector(other, source + j, w - j, scratch)
                if kind == ADD:
                    v = v + u
                elif kind == GATE:
                    v = fma(v, u, u)
                else:
                    v = fma(v, sigmoid(u), u)
                store(line, at + c * length + j, v)


@part
def _within(line, code, numbers, other, os, image, row, w, half, length, scratch):
    """Every step within a pixel; returns where in `line` the result is."""
    at = 0
    for step in range(HEADER, len(code), STEP):
        kind, into, out, begin = code[step + KIND], code[step + INTO], code[step + OUT], code[step + AT]
        if kind == POINTWISE:
            _pointwise(line, at, half - at, length, into, out, numbers, begin, w)
            at = half - at
        elif kind == NORM:
            _norm(line, at, length, into, numbers, begin, w)
        elif kind >= ADD:
            _combine(line, at, length, into, out, other, os, image, row, kind, w, scratch)
        else:
            _elementwise(line, at, length, into, numbers, begin, kind, w)
    return at


# ---- writing -----------------------------------------------------------------------------------------------


@part
def _write(line, at, length, channels, y, ys, image, row, w):
    for c in range(channels):
        copy_row(line, at + c * length, y, image * ys[0] + c * ys[1] + row * ys[2], w)


@part
def _write_pooled(line, at, held, length, channels, y, ys, image, row, w):
    """Odd rows with the even ones before them, which `held` keeps."""
    for c in range(channels):
        for j in range(0, w, 2 * WIDTH):
            i = c * length + j
            a, b = load(line, at + i), load(line, at + i + WIDTH)
            if row % 2:
                a, b = larger(a, load(held, i)), larger(b, load(held, i + WIDTH))
                store(held, c * length + j // 2, larger(evens(a, b), odds(a, b)))
            else:
                store(held, i, a)
                store(held, i + WIDTH, b)
        if row % 2:
            copy_row(held, c * length, y, image * ys[0] + c * ys[1] + row // 2 * ys[2], w // 2)


@compiled
def run(first, last, x, xs, other, os, y, ys, code, numbers, h, w, channels, bands):
    """The tasks first … last - 1, a band of an image each; h × w px after resizing what is read."""
    head = code[:HEADER]
    over, border = head[OVER], head[DILATION] * (head[K] - 1) // 2
    length = (w + 2 * WIDTH - 1) // (2 * WIDTH) * 2 * WIDTH + SLACK
    pitch, half = length + (2 * border + WIDTH - 1) // WIDTH * WIDTH, head[WIDEST] * length
    outside = np.float32(-np.inf) if over == MAXIMUM else np.float32(0.0)
    line, doubled = np.zeros(2 * half, np.float32), np.zeros(w // 2 + 4 * WIDTH, np.float32)
    scratch = np.zeros(WIDTH, np.float32)
    for i in range(WIDTH):
        doubled[len(doubled) - WIDTH + i] = i
    rows = ROWS + 2 * border
    band = np.zeros(head[CHANNELS_IN] * rows * pitch if over != ALONE else 0, np.float32)
    held = np.zeros(half if head[RESIZE_OUT] == HALVE else 0, np.float32)
    depthwise = over == GROUPED and head[CHANNELS_IN] <= head[CHANNELS_OUT] and head[DILATION] == 1
    taps = _taps(head, rows * pitch, pitch)
    upper, lower = line, np.zeros(2 * half if depthwise else 0, np.float32)
    for task in range(first, last):
        image, begin = task // bands, task % bands * ROWS
        end = min(begin + ROWS, h)
        if over != ALONE:
            read_band(x, xs, image, head, begin, end, h, w, border, outside, band, pitch, doubled)
        for row in range(begin, end):
            at = (row - begin) * pitch
            if over == DENSE and head[ROOMY]:
                _dense_roomy(band, at, taps, head, numbers, w, line)
            elif over == DENSE:
                _dense(band, at, taps, head, numbers, w, line)
            elif depthwise:
                line = lower if (row - begin) % 2 else upper
                if (row - begin) % 2 == 0:
                    _depthwise(band, at, rows * pitch, pitch, head, numbers, w, upper, lower)
            elif over == GROUPED:
                _grouped(band, at, rows * pitch, taps, head, numbers, w, line)
            elif over == MAXIMUM:
                _maximum(band, at, rows * pitch, pitch, head, w, line)
            else:
                for c in range(head[CHANNELS_IN]):
                    source = image * xs[0] + c * xs[1]
                    _read(x, source, xs[2], head[RESIZE_IN], row, h, w, line, c * length, doubled)
            at = _within(line, code, numbers, other, os, image, row, w, half, length, scratch)
            if head[RESIZE_OUT] == HALVE:
                _write_pooled(line, at, held, length, channels, y, ys, image, row, w)
            else:
                _write(line, at, length, channels, y, ys, image, row, w)
