"""Batch normalisation while training, with the activation after it: how the CPU's kernels are launched.

torch takes it channel by channel, three to five times as long, and the activation apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.chain import cpu_kernels as k
from ascseg_cli.kernels.chain.cpu_kernels_norm import FIGURES, gradient, gradient_sums, moments, normalise
from ascseg_cli.kernels.compiled import flat, launch

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: k.RELU, nn.GELU: k.GELU, nn.Sigmoid: k.SIGMOID}
_NONE = k.AFFINE  # no activation


def can_normalise(norm: nn.Module, x: Tensor) -> bool:
    """Whether `batch_norm` does what `norm` would, and gains by it: not for the few pixels of a channel gate."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.shape[2] * x.shape[3] >= 64
    )


def batch_norm(x: Tensor, norm: Any, activation: nn.Module | None) -> Tensor:
    """activation(norm(x)) by the statistics of x (b, c, h, w), which move the running ones as in torch."""
    kind = _NONE if activation is None else ACTIVATIONS[type(activation)]
    y, mean, variance = _Norm.apply(x, norm.weight, norm.bias, norm.eps, kind)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.num_batches_tracked.add_(1)
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = _planes(x)
        mean, variance = _statistics(x)
        inverse = (variance + eps).rsqrt()
        figures = torch.zeros(len(mean), FIGURES)
        figures[:, :3] = torch.stack([mean, inverse * weight.double(), bias.double()], 1)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        b, c, h, w = x.shape
        launch(normalise, b * c, *flat(x), flat(y)[0], flat(figures)[0], kind, c, h * w)
        ctx.save_for_backward(x, figures, inverse)
        ctx.kind = kind
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, figures, inverse = ctx.saved_tensors
        b, c, h, w = x.shape
        gy, g = _planes(gy), torch.empty_like(x, memory_format=torch.contiguous_format)
        sums = torch.zeros(b, c, 2, dtype=torch.float64)
        operands = (*flat(x), *flat(gy), flat(g)[0], flat(figures)[0], flat(sums)[0])
        launch(gradient_sums, b * c, *operands, ctx.kind, c, h * w)
        by_shift, by_centred = sums.sum(0).unbind(1)  # Σ g and Σ g (x - mean), (c,) each
        scale, count = figures[:, 1].double(), b * h * w
        figures[:, 3:] = torch.stack([scale * by_centred * inverse.square() / count, scale * by_shift / count], 1)
        launch(gradient, b * c, *flat(x), flat(g)[0], flat(figures)[0], c, h * w)
        return g, (by_centred * inverse).float(), by_shift.float(), None, None


def _planes(x: Tensor) -> Tensor:
    """x with every channel of every image dense."""
    dense = x.stride(3) == 1 and x.stride(2) == x.shape[3]
    return x if dense else x.contiguous()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel in float64, from the distances to the channel's first pixel."""
    b, c, h, w = x.shape
    figures = torch.zeros(c, FIGURES)
    figures[:, 0] = x[0, :, 0, 0]
    sums = torch.zeros(b, c, 2, dtype=torch.float64)
    launch(moments, b * c, *flat(x), flat(figures)[0], flat(sums)[0], c, h * w)
    shift, squares = (sums.sum(0) / (b * h * w)).unbind(1)
    return figures[:, 0] + shift, (squares - shift.square()).clamp_min(0)
