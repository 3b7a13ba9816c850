"""The depthwise deformable convolution on CUDA GPUs, as two Triton kernels.

A program takes a run of pixels, in neighbouring lanes, and a block of channels, in registers: a tap's offset and
its bilinear weights are computed once for all of them. Backward, each program works on one tap over several runs;
the gradient of x is scattered, in fixed point, so that the order of the atomic additions doesn't matter: gradients
are the same to the bit in every run. The gradients of offset and weight need no atomics.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.deform_depthwise import reference

_PIXELS = 128
_CHANNELS = 16
_RUNS = 8  # of pixels, for each program of the backward kernel
_PLAIN = [f"{name}_{part}" for name in ("x", "offset", "dy") for part in "bchw"] + ["c", "h", "w", "runs"]


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_depthwise`. Float32 only; a gradient is the same to the bit in every run."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32", "use --backend auto")
    if x.numel() == 0:
        return reference.deform_depthwise(x, offset, weight)
    return _Deform.apply(x, offset, weight)


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
def _forward(
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
def _add(at, value, mask, FIXED: tl.constexpr):
    if FIXED:
        value = value.to(tl.int64)
    tl.atomic_add(at, value, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=_PLAIN)
def _backward(
    dy, dy_b, dy_c, dy_h, dy_w, x, x_b, x_c, x_h, x_w, offset, offset_b, offset_c, offset_h, offset_w,
    weight, scales, dx, doffset, dweight, c, h, w, runs,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """dx (b, c, h, w), added to, times scales; doffset (channel blocks, b, 18, h, w); dweight (programs, c, 9)."""
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
            offset + image * offset_b, offset_c, row * offset_h + column * offset_w, row, column, k, h, w, exists, WIDE
        )
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
        _add(at, share * (1 - down) * (1 - right), real & above & before, FIXED)
        _add(at + 1, share * (1 - down) * right, real & above & after, FIXED)
        _add(at + w, share * down * (1 - right), real & below & before, FIXED)
        _add(at + w + 1, share * down * right, real & below & after, FIXED)
    program = image * tl.num_programs(0) + tl.program_id(0)
    tl.store(dweight + (program * c + channel) * 9 + k, tl.sum(product, axis=0)[None, :], mask=real)


def _fixed_point(dy: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Factors for dy and weight that make their products fixed-point numbers, and the factor that takes sums back.

    A pixel gets at most 9·h·w shares of at most max|dy| · max|weight|; their sum stays below 2^62. Nothing waits for
    the GPU. Where dy or weight isn't finite, no share can be told from another and the whole gradient becomes NaN.
    """
    bits = 61 - (9 * dy.shape[2] * dy.shape[3]).bit_length()
    largest = torch.stack([dy.abs().amax(), weight.abs().amax()])
    exponent = torch.frexp(largest).exponent  # largest < 2^exponent
    one = torch.ones_like(largest)
    scales = torch.ldexp(one, torch.stack([-exponent[0], bits - exponent[1]]))
    back = torch.ldexp(torch.ldexp(one[0], exponent[0] - bits), exponent[1]) + 0.0 * largest.sum()
    return scales, back


class _Deform(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        weight = weight.contiguous()
        y = x.new_empty(x.shape)
        b, c, h, w = x.shape
        channels = min(_CHANNELS, triton.next_power_of_2(c))
        grid = (triton.cdiv(h * w, _PIXELS), triton.cdiv(c, channels), b)
        with torch.cuda.device_of(x):
            _forward[grid](
                x, *x.stride(), offset, *offset.stride(), weight, y, c, h, w,
                CHANNELS=channels, PIXELS=_PIXELS, WIDE=_wide(x, offset), num_warps=4
            )  # fmt: skip
        ctx.save_for_backward(x, offset, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, offset, weight = ctx.saved_tensors
        b, c, h, w = x.shape
        channels = min(_BLOCK, triton.next_power_of_2(c))
        blocks, programs = triton.cdiv(c, channels), triton.cdiv(h * w, _PIXELS * _RUNS)
        dx = torch.zeros_like(x, dtype=torch.int64 if _FIXED else None, memory_format=torch.contiguous_format)
        doffset, dweight = x.new_empty(blocks, b, 18, h, w), x.new_empty(b * programs, *weight.shape)
        with torch.cuda.device_of(x):
            scales, back = _fixed_point(dy, weight)
            if not _FIXED: scales = torch.ones_like(scales)
            _backward[(programs, 9 * blocks, b)](
                dy, *dy.stride(), x, *x.stride(), offset, *offset.stride(), weight, scales, dx, doffset, dweight,
                c, h, w, _RUNS, CHANNELS=channels, PIXELS=_PIXELS, WIDE=_wide(x, offset, dy), num_warps=4, FIXED=_FIXED
            )  # fmt: skip
            return dx * back if _FIXED else dx, doffset[0] if blocks == 1 else doffset.sum(0), dweight.sum(0)

_FIXED=True
_BLOCK=16

def _wide(*images: Tensor) -> bool:
    """Whether an offset inside a plane needs 64 bits."""
    return any(sum((s - 1) * abs(d) for s, d in zip(t.shape[2:], t.stride()[2:])) >= 2**31 for t in images)
