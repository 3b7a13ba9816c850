"""Chains on the CPU while training: plain torch, but for what it is slow at.

Convolutions with groups, dilation, or fewer than eight outputs are compiled: torch takes their gradients at 1 to 7
GFLOP/s a core, others at 30. So are those of 3×3 with at most eight channels on either side, for half of torch's
time on wide images, layer norms, and pooling, a mean as a convolution. Convolutions of 1×1 are products of
matrices, whose gradients take a tenth of the time. A batch norm joined with its activation was tried and won
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.blocks import ROWS
from ascseg_cli.kernels.chain import reference
from ascseg_cli.kernels.chain.cpu import dense_rows, run_passes
from ascseg_cli.kernels.chain.cpu_plan import convolution, passes
from ascseg_cli.kernels.chain.plan import is_pooling
from ascseg_cli.kernels.chain.steps import HighPass
from ascseg_cli.kernels.compiled import Kernel, flat, launch

by_maximum = Kernel("chain.cpu_kernels_backward", "by_maximum")
by_norm = Kernel("chain.cpu_kernels_backward", "by_norm")
by_weight = Kernel("chain.cpu_kernels_backward", "by_weight")

_STRIPS = 8  # shares of an image whose sums are kept apart: whatever the threads, one order of adding


def chain(x: Tensor, steps: Sequence[nn.Module], other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 on the CPU."""
    for step in steps:
        x = _step(x, step, other)
    return x


def _step(x: Tensor, step: Any, other: Tensor | None) -> Tensor:
    if isinstance(step, nn.Linear) or _is_pointwise(step):
        return _pointwise(x, step.weight.flatten(1), step.bias)
    if _is_slow(step):
        bias = x.new_zeros(step.out_channels) if step.bias is None else step.bias
        return _Convolution.apply(x, step.weight, bias, int(step.dilation[0]), step.groups)
    if isinstance(step, nn.LayerNorm) and step.weight is not None and step.bias is not None:
        return _Norm.apply(x, step.weight, step.bias, step)
    if is_pooling(step, nn.MaxPool2d, 2) or is_pooling(step, nn.MaxPool2d, 3):
        return _Maximum.apply(x, step)
    if isinstance(step, HighPass) or is_pooling(step, nn.AvgPool2d, 3):
        return _Convolution.apply(
            x, _window(x, isinstance(step, HighPass)), x.new_zeros(x.shape[1]), 1, x.shape[1]
        )
    return reference.chain(x, [step], other)


def side_by_side(x: Tensor, chains: Sequence[Sequence[nn.Module]]) -> Tensor:
    """See `kernels.chain.side_by_side`. Chains that begin by resizing x alike share its result."""
    return reference.side_by_side(x, chains, run=chain)


def _is_pointwise(step: nn.Module) -> bool:
    if not isinstance(step, nn.Conv2d) or step.kernel_size != (1, 1) or step.groups != 1:
        return False
    return step.stride == (1, 1) and step.padding == (0, 0)


def _is_slow(step: nn.Module) -> bool:
    if not isinstance(step, nn.Conv2d) or step.kernel_size == (1, 1) or step.padding_mode != "zeros":
        return False
    size, dilation = step.kernel_size[0], step.dilation[0]
    border = dilation * (size - 1) // 2
    square = step.kernel_size == (size, size) and step.dilation == (dilation, dilation) and size % 2 == 1
    known = square and step.stride == (1, 1) and step.padding == (border, border) and border <= 16
    narrow = size == 3 and min(step.in_channels, step.out_channels) <= 8
    hard = step.groups > 1 or dilation > 1 or step.out_channels < 8 or narrow
    return known and hard and step.groups in (1, step.out_channels)


def _window(x: Tensor, high_pass: bool) -> Tensor:
    """The weights of a mean over 3×3 neighbours, or of what is left without it: (c, 1, 3, 3)."""
    weight = x.new_full((x.shape[1], 1, 3, 3), 1 / 9)
    if high_pass:
        weight.neg_()[:, :, 1, 1] += 1
    return weight


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight (c', c) times every pixel of x (b, c, h, w), plus bias (c',): (b, c', h, w)."""
    pixels, weights = x.flatten(2), weight.expand(len(x), -1, -1)
    y = torch.bmm(weights, pixels) if bias is None else torch.baddbmm(bias[:, None], weights, pixels)
    return y.unflatten(2, x.shape[2:])


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: nn.MaxPool2d) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size = step.kernel_size
        return run_passes(x, passes([step], x.shape[1], 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        gx = torch.zeros_like(x, memory_format=torch.contiguous_format)
        operands = (*flat(dense_rows(x)), *flat(dense_rows(gradient)), flat(gx)[0])
        planes = len(x) * x.shape[1] if x.numel() else 0
        launch(by_maximum, planes, *operands, ctx.size, *x.shape[1:])
        return gx, None


class _Norm(torch.autograd.Function):
    """Layer normalisation over the channels of each pixel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, step: nn.LayerNorm) -> Tensor:
        prepared = passes([step], x.shape[1], 0)
        ctx.save_for_backward(x)
        ctx.numbers = prepared[0].numbers
        return run_passes(x, prepared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x,) = ctx.saved_tensors
        b, c, h, w = x.shape
        strips = min(_STRIPS, max(1, h))
        gx, sums = x.new_empty(x.shape), x.new_zeros(b * strips, c, 2, dtype=torch.float64)
        operands = (*flat(dense_rows(x)), *flat(dense_rows(gradient)), ctx.numbers, flat(gx)[0], flat(sums)[0])
        launch(by_norm, b * strips if x.numel() else 0, *operands, c, h, w, strips)
        by_weight, by_bias = sums.sum(0).to(x.dtype).unbind(1)
        return gx, by_weight, by_bias, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.form = dilation, groups
        return run_passes(x, [convolution(weight, bias, dilation, groups)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_w, by_b = ctx.needs_input_grad[:3]
        return (
            _input_gradient(gradient, weight, *ctx.form) if by_x else None,
            _weight_gradient(x, gradient, weight, *ctx.form) if by_w else None,
            gradient.sum(3).sum((0, 2), dtype=torch.float64).to(gradient.dtype) if by_b else None,
            None,
            None,
        )


def _input_gradient(gradient: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
    """A convolution of the gradient with the weights turned by half a turn, inputs and outputs exchanged."""
    turned = weight.detach().flip(2, 3)
    if groups == 1:
        return run_passes(gradient, [convolution(turned.transpose(0, 1), None, dilation, 1)])
    out, each, size, _ = weight.shape
    spread = gradient.repeat_interleave(each, 1) if each > 1 else gradient
    return run_passes(spread, [convolution(turned.reshape(out * each, 1, size, size), None, dilation, out * each)])


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
    h, w = x.shape[2:]
    strips = min(_STRIPS, max(1, -(-h // ROWS)))
    sums = x.new_zeros(len(x) * strips, weight.numel(), dtype=torch.float64)
    head = convolution(weight, None, dilation, groups).code
    operands = [part for t in (x, gradient) for part in flat(dense_rows(t))]
    launch(by_weight, len(sums) if x.numel() else 0, *operands, head, flat(sums)[0], h, w, strips)
    return sums.sum(0).to(weight.dtype).view_as(weight)
