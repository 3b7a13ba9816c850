"""The depthwise deformable convolution on CUDA GPUs through Triton: how its kernels are cut and launched.

Gradients are the same to the bit in every run: see `gpu_kernels.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.deform_depthwise import gpu_kernels, reference

_PIXELS = 128  # these three are the best of those timed on an H200 for variant tiny, 8 images
_CHANNELS = 8  # at most, in a program
_RUNS = 4  # of pixels, for each program of the backward kernel


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_depthwise`. Float32; gradients are bit-equal in every run."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32", "use --backend auto")
    if x.numel() == 0:
        return reference.deform_depthwise(x, offset, weight)
    return _Deform.apply(x, offset, weight)


def _fixed_point(dy: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Factors for dy and weight that make their products fixed-point numbers, and the factor that takes sums back.

    A pixel gets at most 9·h·w shares of at most max|dy| · max|weight|; their sum stays below 2^62. Nothing waits
    for the GPU. If dy or weight isn't finite, the whole gradient of x becomes NaN.
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
            gpu_kernels.forward[grid](
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
        channels = min(_CHANNELS, triton.next_power_of_2(c))
        blocks, programs = triton.cdiv(c, channels), triton.cdiv(h * w, _PIXELS * _RUNS)
        dx = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
        doffset, dweight = x.new_empty(blocks, b, 18, h, w), x.new_empty(b * programs, *weight.shape)
        with torch.cuda.device_of(x):
            scales, back = _fixed_point(dy, weight)
            gpu_kernels.backward[(programs, 9 * blocks, b)](
                dy, *dy.stride(), x, *x.stride(), offset, *offset.stride(), weight, scales, dx, doffset, dweight,
                c, h, w, _RUNS, CHANNELS=channels, PIXELS=_PIXELS, WIDE=_wide(x, offset, dy), num_warps=4
            )  # fmt: skip
            return dx * back, doffset[0] if blocks == 1 else doffset.sum(0), dweight.sum(0)


def _wide(*images: Tensor) -> bool:
    """Whether an offset inside a plane needs 64 bits."""
    return any(sum((s - 1) * abs(d) for s, d in zip(t.shape[2:], t.stride()[2:])) >= 2**31 for t in images)
