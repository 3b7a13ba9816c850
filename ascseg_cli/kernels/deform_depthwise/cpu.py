"""The deformable convolution compiled for the CPU: how its operands are laid out and its kernels launched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.blocks import LANES, PIXELS
from ascseg_cli.kernels.compiled import Kernel, flat, launch, split

deform = Kernel("deform_depthwise.cpu_kernels", "deform")
deform_backward = Kernel("deform_depthwise.cpu_kernels", "deform_backward")
pack = Kernel("deform_depthwise.cpu_kernels", "pack")


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_depthwise`; float32 on the CPU, images below 2^24 px a side."""
    h, w = x.shape[2:]
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the cpu backend takes torch.float32", "use --backend auto")
    if max(h, w) >= 2**24 or h * w >= 2**30:  # beyond, float32 misses whole numbers, int32 the sum of two indices
        raise ShapeError(
            f"x is {h}×{w} px; the cpu backend takes 2^30 px at most, below 2^24 a side", "use --backend reference"
        )
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, offset, weight)):
        return _Deform.apply(x, offset, weight)
    return _forward(x, offset, weight)


class _Deform(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, offset, weight)
        return _forward(x, offset, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, weight = ctx.saved_tensors
        gradients = _backward(x, offset, weight, gradient)
        return tuple(g if wanted else None for g, wanted in zip(gradients, ctx.needs_input_grad))


def _forward(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    b, c, h, w = x.shape
    y = _like(x)
    bands = split(b, -(-h * w // PIXELS))
    operands = _pixels(x), flat(offset.contiguous())[0], _taps(weight)
    launch(deform, b * bands if x.numel() else 0, *operands, *flat(y), c, h, w, bands)
    return y


def _backward(x: Tensor, offset: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, offset and weight. Each task scatters into a plane of its own: no races, one order."""
    b, c, h, w = x.shape
    bands = split(b, -(-h * w // PIXELS))
    lanes = -(-c // LANES) * LANES
    gx = x.new_zeros(b, bands, h * w + 1, lanes)
    goffset = torch.zeros_like(offset, memory_format=torch.contiguous_format)
    gweight = x.new_zeros(b * bands, 9, lanes, dtype=torch.float64)
    operands = _pixels(x), flat(offset.contiguous())[0], _taps(weight), _pixels(gradient)
    results = (flat(t)[0] for t in (gx, goffset, gweight))
    launch(deform_backward, b * bands if x.numel() else 0, *operands, *results, h, w, bands)
    planes = gx[:, 0] if bands == 1 else gx.sum(1)  # (b, h·w + 1, lanes)
    by_weight = gweight.sum(0)[:, :c].to(x.dtype).T.reshape(weight.shape)
    return _like(x).copy_(planes[:, :-1, :c].transpose(1, 2).view(x.shape)), goffset, by_weight


def _like(x: Tensor) -> Tensor:
    """An empty tensor of x's shape, channels-last if x is."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


def _pixels(x: Tensor) -> Any:
    """x (b, c, h, w) as (b, h·w + 1, channels): whole vectors of channels, and zeros for all outside."""
    b, c, h, w = x.shape
    lanes, bands = -(-c // LANES) * LANES, split(b, -(-h * w // PIXELS))
    packed = flat(x.new_empty(b, h * w + 1, lanes))[0]
    launch(pack, b * bands if x.numel() else 0, *flat(x.flatten(2)), packed, c, lanes, h * w, bands)
    return packed


def _taps(weight: Tensor) -> Any:
    """weight (c, 1, 3, 3) as (tap, channels), whole vectors of channels."""
    c = weight.shape[0]
    packed = weight.new_zeros(9, -(-c // LANES) * LANES)
    packed[:, :c] = weight.detach().reshape(c, 9).T
    return flat(packed)[0]
