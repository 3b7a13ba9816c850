"""Doubling by bilinear interpolation, and maxima of neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.chain.cpu import dense_rows, run_passes
from ascseg_cli.kernels.chain.cpu_plan import passes
from ascseg_cli.kernels.compiled import Kernel, flat, launch

by_doubling = Kernel("chain.cpu_kernels_backward", "by_doubling")
by_maximum = Kernel("chain.cpu_kernels_backward", "by_maximum")


def double(x: Tensor, step: nn.Module) -> Tensor:
    """x (b, c, h, w) enlarged by 2, corners aligned."""
    return _Double.apply(x, step)


def maximum(x: Tensor, step: nn.MaxPool2d) -> Tensor:
    """The largest of 2×2 numbers, halved, or of 3×3 neighbours; its gradient goes to the first of equals."""
    return _Maximum.apply(x, step)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: nn.Module) -> Tensor:
        return run_passes(x, passes([step], x.shape[1], 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        b, c, h, w = gradient.shape
        gx = gradient.new_empty(b, c, h // 2, w // 2)
        launch(
            by_doubling, b * c if gx.numel() else 0, *flat(dense_rows(gradient)), flat(gx)[0], c, h // 2, w // 2
        )
        return gx, None


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
