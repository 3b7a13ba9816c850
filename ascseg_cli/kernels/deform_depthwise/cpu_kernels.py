"""The deformable convolution's loops in numba: the samples' places once, then eight channels at a time.

Arrays are flat. Pixels are channels-last with whole vectors of channels, and end in a pixel of zeros: a neighbour
outside the image points there, so no offset, however large or NaN, reads or writes out of bounds.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import LANES, PIXELS, WIDTH
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import (
    floor,
    fma,
    least,
    load,
    load8,
    part,
    spread,
    spread8,
    spread_whole,
    store,
    total,
    turn,
    where_less,
    whole,
)

# Scratch: `place` holds, for each tap and neighbour (above left, above right, below left, below right), the pixel;
# `shift`, for each tap, how far the sample lies below and right of the first; `line`, rows and columns.
ROW, COLUMN, LINE = 0, PIXELS, 2 * PIXELS


@part
def _coordinates(line, start, w):
    row, column = start // w, start % w
    for i in range(PIXELS):
        line[ROW + i] = row
        line[COLUMN + i] = column
        column += 1
        if column == w:
            row, column = row + 1, 0


@part
def _offsets(offset, at, count, line):
    """Sixteen offsets; past the last of them zeros, since memory may end there."""
    if count >= WIDTH:
        return load(offset, at)
    store(line, LINE, spread(0.0))
    for i in range(count):
        line[LINE + i] = offset[at + i]
    return load(line, LINE)


@part
def _along(t, size, stride, outside):
    """What a whole row or column t adds to the index of a pixel: `outside` where it isn't one of 0 … size - 1."""
    inside = where_less(t, spread(size), where_less(t, spread(0.0), spread(-1.0), t), spread(-1.0))  # NaN: -1
    return where_less(inside, spread(0.0), spread_whole(outside), whole(inside) * stride)


@part
def _locate(offset, at, start, count, h, w, line, place, shift):
    """Where the samples of a block of pixels lie; `at` is where the image's offsets begin."""
    _coordinates(line, start, w)
    outside = np.int32(h * w)
    for tap in range(9):
        for i in range(0, count, WIDTH):
            first = at + 2 * tap * h * w + start + i
            row = load(line, ROW + i) + (tap // 3 - 1) + _offsets(offset, first, count - i, line)
            column = load(line, COLUMN + i) + (tap % 3 - 1) + _offsets(offset, first + h * w, count - i, line)
            top, left = floor(row), floor(column)
            store(shift, 2 * tap * PIXELS + i, row - top)
            store(shift, (2 * tap + 1) * PIXELS + i, column - left)
            above, below = _along(top, h, np.int32(w), outside), _along(top + 1.0, h, np.int32(w), outside)
            near, far = _along(left, w, np.int32(1), outside), _along(left + 1.0, w, np.int32(1), outside)
            limit = spread_whole(outside)
            store(place, 4 * tap * PIXELS + i, least(above + near, limit))
            store(place, (4 * tap + 1) * PIXELS + i, least(above + far, limit))
            store(place, (4 * tap + 2) * PIXELS + i, least(below + near, limit))
            store(place, (4 * tap + 3) * PIXELS + i, least(below + far, limit))


@part
def _share(size, band, bands):
    """The first pixel of a band and that after its last: whole blocks."""
    blocks = (size + PIXELS - 1) // PIXELS
    return blocks * band // bands * PIXELS, min(size, blocks * (band + 1) // bands * PIXELS)


@part
def _pack(x, at, xs, count, packed, to, c, lanes):
    """So many pixels from rows of channels to vectors of channels."""
    for lane in range(0, lanes, LANES):
        done = count // 8 * 8 if xs[2] == 1 and lane + LANES <= c else 0
        for i in range(0, done, 8):
            turn(x, at + lane * xs[1] + i, xs[1], packed, to + i * lanes + lane, lanes)
        for channel in range(lane, lane + LANES):
            for i in range(done, count):
                packed[to + i * lanes + channel] = x[at + channel * xs[1] + i * xs[2]] if channel < c else 0


@compiled
def pack(first, last, x, xs, packed, c, lanes, size, bands):
    """Pixels of the bands first … last - 1 from x (b, c, h·w) of any strides to (b, h·w + 1, lanes)."""
    for task in range(first, last):
        image = task // bands
        begin, end = _share(size, task % bands, bands)
        to = image * (size + 1) * lanes
        for start in range(begin, end, PIXELS):
            count = min(PIXELS, end - start)
            _pack(x, image * xs[0] + start * xs[2], xs, count, packed, to + start * lanes, c, lanes)
        if end == size:
            packed[to + size * lanes : to + (size + 1) * lanes] = 0


@part
def _between(a, b, t):
    return fma(b - a, t, a)


@part
def _convolve(x, at_x, weight, lane, lanes, place, shift, i):
    """Eight channels of one pixel of y."""
    y = spread8(0.0)
    for tap in range(9):
        at, down, right = 4 * tap * PIXELS + i, 2 * tap * PIXELS + i, (2 * tap + 1) * PIXELS + i
        a, b = load8(x, at_x + place[at] * lanes), load8(x, at_x + place[at + PIXELS] * lanes)
        c, d = load8(x, at_x + place[at + 2 * PIXELS] * lanes), load8(x, at_x + place[at + 3 * PIXELS] * lanes)
        t = spread8(shift[right])
        sample = _between(_between(a, b, t), _between(c, d, t), spread8(shift[down]))
        y = fma(sample, load8(weight, tap * lanes + lane), y)
    return y


@part
def _write_out(out, lanes, y, ys, image, c, start, count):
    at = image * ys[0] + start * ys[3]
    done = count // 8 * 8 if ys[3] == 1 else 0
    for channel in range(0, c // 8 * 8, 8):
        for i in range(0, done, 8):
            turn(out, i * lanes + channel, lanes, y, at + channel * ys[1] + i, ys[1])
    for channel in range(c):
        for i in range(done if channel < c // 8 * 8 else 0, count):
            y[at + channel * ys[1] + i * ys[3]] = out[i * lanes + channel]


@compiled
def deform(first, last, x, offset, weight, y, ys, c, h, w, bands):
    """y of the bands first … last - 1; a band is a share of one image's blocks."""
    size, lanes = h * w, len(weight) // 9
    line, out = np.zeros(LINE + WIDTH, np.float32), np.zeros(PIXELS * lanes, np.float32)
    place, shift = np.zeros(36 * PIXELS, np.int32), np.zeros(18 * PIXELS, np.float32)
    for task in range(first, last):
        image = task // bands
        begin, end = _share(size, task % bands, bands)
        for start in range(begin, end, PIXELS):
            count = min(PIXELS, end - start)
            _locate(offset, image * 18 * size, start, count, h, w, line, place, shift)
            for lane in range(0, lanes, LANES):
                at_x = image * (size + 1) * lanes + lane
                for i in range(count):
                    store(out, i * lanes + lane, _convolve(x, at_x, weight, lane, lanes, place, shift, i))
            _write_out(out, lanes, y, ys, image, c, start, count)


@part
def _add(target, at, a, b):
    """target += a · b."""
    store(target, at, fma(a, b, load8(target, at)))


@compiled
def deform_backward(first, last, x, offset, weight, gy, gx, goffset, gweight, h, w, bands):
    """The gradients' shares of the bands: gx and gweight of each band apart, goffset in its place."""
    size, lanes = h * w, len(weight) // 9
    line, by_weight = np.zeros(LINE + WIDTH, np.float32), np.zeros(9 * lanes, np.float32)
    place, shift = np.zeros(36 * PIXELS, np.int32), np.zeros(18 * PIXELS, np.float32)
    for task in range(first, last):
        image, at_gx = task // bands, task * (size + 1) * lanes
        begin, end = _share(size, task % bands, bands)
        for start in range(begin, end, PIXELS):
            count = min(PIXELS, end - start)
            _locate(offset, image * 18 * size, start, count, h, w, line, place, shift)
            by_weight[:] = 0
            for i in range(count):
                at_x = image * (size + 1) * lanes
                at_gy = at_x + (start + i) * lanes
                for tap in range(9):
                    at_offset = (image * 18 + 2 * tap) * size + start + i
                    goffset[at_offset], goffset[at_offset + size] = _spread_back(
                        x, weight, gy, gx, by_weight, at_x, at_gy, at_gx, place, shift, tap, i, lanes
                    )
            for k in range(9 * lanes):
                gweight[task * 9 * lanes + k] += by_weight[k]


@part
def _spread_back(x, weight, gy, gx, by_weight, at_x, at_gy, at_gx, place, shift, tap, i, lanes):
    """One tap of one pixel: adds to gx and by_weight; returns the gradients of its two offsets."""
    at = 4 * tap * PIXELS + i
    a, b = place[at] * lanes, place[at + PIXELS] * lanes
    c, d = place[at + 2 * PIXELS] * lanes, place[at + 3 * PIXELS] * lanes
    down, right = spread8(shift[2 * tap * PIXELS + i]), spread8(shift[(2 * tap + 1) * PIXELS + i])
    up, left = spread8(1.0) - down, spread8(1.0) - right
    by_row, by_column = spread8(0.0), spread8(0.0)
    for lane in range(0, lanes, LANES):
        xa, xb = load8(x, at_x + a + lane), load8(x, at_x + b + lane)
        xc, xd = load8(x, at_x + c + lane), load8(x, at_x + d + lane)
        top, bottom = _between(xa, xb, right), _between(xc, xd, right)
        g = load8(gy, at_gy + lane)
        _add(by_weight, tap * lanes + lane, g, _between(top, bottom, down))
        g = g * load8(weight, tap * lanes + lane)
        by_row = fma(g, bottom - top, by_row)
        by_column = fma(g, _between(xb - xa, xd - xc, down), by_column)
        _add(gx, at_gx + a + lane, g, up * left)
        _add(gx, at_gx + b + lane, g, up * right)
        _add(gx, at_gx + c + lane, g, down * left)
        _add(gx, at_gx + d + lane, g, down * right)
    return total(by_row), total(by_column)
