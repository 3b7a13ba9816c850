"""The depthwise deformable convolution as two Triton kernels.

A program takes a run of pixels, in neighbouring lanes, and a block of channels, in registers: a tap's offset and
its bilinear weights are computed once for all of them. Backward, each program works on one tap over several runs;
the gradient of x is scattered, in fixed point, so that the order of the atomic additions doesn't matter. The
gradients of offset and weight need no atomics. Strides aren't specialised: where the compiler sees no contiguity,
the first dimension of a tile, here the pixels, lies in neighbouring lanes.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

_PLAIN = [f"{name}_{part}" for name in ("x", "offset", "dy") for part in "bchw"] + ["c", "h", "w", "runs"]


@triton.jit
def _sample(offset, offset_c, at, row, column, k, h, w, exists, WIDE: tl.constexpr):
    """Where tap k falls: its upper left neighbour, the fractions, and which rows and columns lie inside.

    Rows and columns are compared as floats before they become integers: an offset may be huge or not finite.
    """
    offset += 2 * k * offset_c.to(tl.int64)
    r = (row + k // 3 - 1).to(tl.float32) + tl.load(offset + at, mask=exists, other=0.0)
    q = (column + k % 3 - 1).to(tl.float32) + tl.load(offset + offset_c + at, mask=exists, other=0.0)
    top, left = tl.floor(r), tl.floor(q)
    down, right = r - top, q - left
    above, below = exists & (top >= 0) & (top < h), exists & (top >= -1) & (top < h - 1)
    before, after = (left >= 0) & (left < w), (left >= -1) & (left < w - 1)
    near = (top >= -1) & (top < h) & (left >= -1) & (left < w)
    i, j = tl.where(near, top, 0.0).to(tl.int32), tl.where(near, left, 0.0).to(tl.int32)
    if WIDE:
        i, j = i.to(tl.int64), j.to(tl.int64)
    return i, j, down, right, above, below, before, after


@triton.jit
def _corners(x, i, j, step_h, step_w, above, below, before, after):
    """The four neighbours of each sample, zero outside: (pixels, channels) each."""
    at = x + i * step_h + j * step_w
    upper_left = tl.load(at, mask=above & before, other=0.0)
    upper_right = tl.load(at + step_w, mask=above & after, other=0.0)
    lower_left = tl.load(at + step_h, mask=below & before, other=0.0)
    lower_right = tl.load(at + step_h + step_w, mask=below & after, other=0.0)
    return upper_left, upper_right, lower_left, lower_right


@triton.jit(do_not_specialize=_PLAIN)
def forward(
    x, x_b, x_c, x_h, x_w, offset, offset_b, offset_c, offset_h, offset_w, weight, y, c, h, w,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)[None, :]
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    exists, real = pixel < h * w, channel < c
    known = tl.minimum(channel, c - 1)
    row, column = pixel // w, pixel % w
    if WIDE:
        row, column = row.to(tl.int64), column.to(tl.int64)
    at = row * offset_h + column * offset_w
    plane = x + image * x_b + known * x_c
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for k in range(9):
        i, j, down, right, above, below, before, after = _sample(
            offset + image * offset_b, offset_c, at, row, column, k, h, w, exists, WIDE
        )
        a, b, d, e = _corners(plane, i, j, x_h, x_w, above, below, before, after)
        value = (a * (1 - right) + b * right) * (1 - down) + (d * (1 - right) + e * right) * down
        total += tl.load(weight + known * 9 + k) * value
    tl.store(y + (image * c + channel) * (h * w) + pixel, total, mask=exists & real)


@triton.jit
def _add(at, value, mask):
    tl.atomic_add(at, value.to(tl.int64), mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=_PLAIN)
def backward(
    dy, dy_b, dy_c, dy_h, dy_w, x, x_b, x_c, x_h, x_w, offset, offset_b, offset_c, offset_h, offset_w,
    weight, scales, dx, doffset, dweight, c, h, w, runs,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dx (b, c, h, w), in fixed point, is added to; doffset (blocks, b, 18, h, w); dweight (programs, c, 9)."""
    image = tl.program_id(2).to(tl.int64)
    k, block = tl.program_id(1) % 9, tl.program_id(1) // 9
    channel = (block * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)[None, :]
    real, known = channel < c, tl.minimum(channel, c - 1)
    plane, target = x + image * x_b + known * x_c, dx + (image * c + channel) * (h * w)
    coefficient = tl.load(weight + known * 9 + k)
    scale, scaled = tl.load(scales), coefficient * tl.load(scales + 1)
    doffset += ((block * tl.num_programs(2) + image) * 18 + 2 * k) * (h * w)
    product = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for run in range(runs):
        pixel = (tl.program_id(0) * runs + run) * PIXELS + tl.arange(0, PIXELS)[:, None]
        exists = pixel < h * w
        row, column = pixel // w, pixel % w
        if WIDE:
            row, column = row.to(tl.int64), column.to(tl.int64)
        i, j, down, right, above, below, before, after = _sample(
            offset + image * offset_b, offset_c, row * offset_h + column * offset_w,
            row, column, k, h, w, exists, WIDE,
        )  # fmt: skip
        a, b, d, e = _corners(plane, i, j, x_h, x_w, above, below, before, after)
        slope = dy + image * dy_b + known * dy_c + row * dy_h + column * dy_w
        slope = tl.load(slope, mask=exists & real, other=0.0)
        product += slope * ((a * (1 - right) + b * right) * (1 - down) + (d * (1 - right) + e * right) * down)
        pull = slope * coefficient
        by_row = tl.sum(pull * ((d - a) * (1 - right) + (e - b) * right), axis=1)[:, None]
        by_column = tl.sum(pull * ((b - a) * (1 - down) + (e - d) * down), axis=1)[:, None]
        tl.store(doffset + pixel, by_row, mask=exists)
        tl.store(doffset + h * w + pixel, by_column, mask=exists)
        share = (slope * scale) * scaled
        at = target + i * w + j
        _add(at, share * (1 - down) * (1 - right), real & above & before)
        _add(at + 1, share * (1 - down) * right, real & above & after)
        _add(at + w, share * down * (1 - right), real & below & before)
        _add(at + w + 1, share * down * right, real & below & after)
    program = image * tl.num_programs(0) + tl.program_id(0)
    tl.store(dweight + (program * c + channel) * 9 + k, tl.sum(product, axis=0)[None, :], mask=real)
