"""Convolutions: over neighbours compiled, of 1×1 as products of matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.blocks import ROWS
from ascseg_cli.kernels.chain.cpu import dense_rows, run_passes
from ascseg_cli.kernels.chain.cpu_layers import STRIPS
from ascseg_cli.kernels.chain.cpu_plan import convolution
from ascseg_cli.kernels.compiled import Kernel, flat, launch

by_weight = Kernel("chain.cpu_kernels_backward", "by_weight")


def is_pointwise(step: nn.Module) -> bool:
    """Whether a step is a convolution within pixels, each output of all inputs."""
    if not isinstance(step, nn.Conv2d) or step.kernel_size != (1, 1) or step.groups != 1:
        return False
    return step.stride == (1, 1) and step.padding == (0, 0)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight (c', c) times every pixel of x (b, c, h, w), plus bias (c',): (b, c', h, w)."""
    pixels, weights = x.flatten(2), weight.expand(len(x), -1, -1)
    y = torch.bmm(weights, pixels) if bias is None else torch.baddbmm(bias[:, None], weights, pixels)
    return y.unflatten(2, x.shape[2:])


def is_slow(step: nn.Module) -> bool:
    """Whether a step is a convolution that torch takes longer for than `convolve`."""
    if not isinstance(step, nn.Conv2d) or step.kernel_size == (1, 1) or step.padding_mode != "zeros":
        return False
    size, dilation = step.kernel_size[0], step.dilation[0]
    border = dilation * (size - 1) // 2
    square = step.kernel_size == (size, size) and step.dilation == (dilation, dilation) and size % 2 == 1
    known = square and step.stride == (1, 1) and step.padding == (border, border) and border <= 16
    narrow = size == 3 and min(step.in_channels, step.out_channels) <= 8
    if step.groups > 1 and step.in_channels > step.out_channels and dilation > 1:
        return False
    hard = step.groups > 1 or dilation > 1 or step.out_channels < 8 or narrow
    return known and hard and step.groups in (1, step.out_channels)


def convolve(x: Tensor, step: nn.Conv2d) -> Tensor:
    """A convolution over neighbours that keeps the size; groups 1 or one for each output."""
    bias = x.new_zeros(step.out_channels) if step.bias is None else step.bias
    return _Convolution.apply(x, step.weight, bias, int(step.dilation[0]), step.groups)


def windowed(x: Tensor, high_pass: bool) -> Tensor:
    """The mean over 3×3 neighbours of x (b, c, h, w), or what is left of x without it."""
    c = x.shape[1]
    weight = x.new_full((c, 1, 3, 3), 1 / 9)
    if high_pass:
        weight.neg_()[:, :, 1, 1] += 1
    return _Convolution.apply(x, weight, x.new_zeros(c), 1, c)


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
    return run_passes(gradient, [convolution(turned.flatten(0, 1)[:, None], None, dilation, groups)])


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
    h, w = x.shape[2:]
    strips = min(STRIPS, max(1, -(-h // ROWS)))
    sums = x.new_zeros(len(x) * strips, weight.numel(), dtype=torch.float64)
    head = convolution(weight, None, dilation, groups).code
    operands = [part for t in (x, gradient) for part in flat(dense_rows(t))]
    launch(by_weight, len(sums) if x.numel() else 0, *operands, head, flat(sums)[0], h, w, strips)
    return sums.sum(0).to(weight.dtype).view_as(weight)
