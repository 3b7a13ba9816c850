"""Batch normalisation with the activation after it, and layer normalisation."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.chain.cpu import dense_rows, run_passes
from ascseg_cli.kernels.chain.cpu_layers import STRIPS
from ascseg_cli.kernels.chain.cpu_plan import passes
from ascseg_cli.kernels.compiled import Kernel, flat, launch
from ascseg_cli.kernels.machine_code import Memory

layer_norm_backward = Kernel("chain.cpu_kernels_norm", "layer_norm_backward")
normalise = Kernel("chain.cpu_kernels_norm", "normalise")
normalise_backward = Kernel("chain.cpu_kernels_norm", "normalise_backward")


def takes_statistics(step: nn.Module, x: Tensor) -> bool:
    """Whether a step is a batch norm in training that `batch_norm` can run."""
    if type(step) is not nn.BatchNorm2d or not step.training or step.momentum is None:
        return False
    whole = step.weight is not None and step.running_mean is not None and step.weight.dtype == torch.float32
    return whole and x.numel() > x.shape[1]


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, activation: int) -> Tensor:
    """The norm of x (b, c, h, w) by its own statistics, and an activation by its code; running values move."""
    y, statistics = _BatchNorm.apply(x, norm.weight, norm.bias, norm.eps, activation)
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(statistics[0], norm.momentum)
        norm.running_var.lerp_(statistics[1], norm.momentum)
    return y


class _BatchNorm(torch.autograd.Function):
    """act(weight · (x - mean) / √(variance + eps) + bias), and what the kernel calls statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: int
    ) -> tuple[Tensor, Tensor]:
        b, c = x.shape[:2]
        x, y, statistics = dense_rows(x), x.new_empty(x.shape), x.new_empty(3, c)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.activation = activation
        ctx.mark_non_differentiable(statistics)
        operands = (*flat(x), flat(y)[0], flat(weight)[0], flat(bias)[0], _eps(eps), flat(statistics)[0])
        launch(normalise, c, *operands, activation, b, c, *_rows(x))
        return y, statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        b, c = x.shape[:2]
        gradient, gx, sums = dense_rows(gradient), x.new_empty(x.shape), x.new_empty(2, c)
        given = (flat(weight)[0], flat(bias)[0], flat(statistics)[0])
        operands = (*flat(x), *flat(gradient), *given, flat(gx)[0], flat(sums)[0])
        launch(normalise_backward, c, *operands, ctx.activation, b, c, *_rows(x, gradient))
        return gx, sums[0], sums[1], None, None


def _rows(*images: Tensor) -> tuple[int, int]:
    """A channel's rows in an image, and the numbers of each: a single row where nothing lies between them."""
    h, w = images[0].shape[2:]
    return (1, h * w) if all(h == 1 or image.stride(2) == w for image in images) else (h, w)


@functools.cache
def _eps(eps: float) -> Memory:
    return Memory.of(np.array([eps]))


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The norm over the channels of each pixel of x (b, c, h, w)."""
    return _LayerNorm.apply(x, norm.weight, norm.bias, norm)


class _LayerNorm(torch.autograd.Function):
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
        strips = min(STRIPS, max(1, h))
        gx, sums = x.new_empty(x.shape), x.new_zeros(b * strips, c, 2, dtype=torch.float64)
        operands = (*flat(dense_rows(x)), *flat(dense_rows(gradient)), ctx.numbers, flat(gx)[0], flat(sums)[0])
        launch(layer_norm_backward, b * strips if x.numel() else 0, *operands, c, h, w, strips)
        by_weight, by_bias = sums.sum(0).to(x.dtype).unbind(1)
        return gx, by_weight, by_bias, None
