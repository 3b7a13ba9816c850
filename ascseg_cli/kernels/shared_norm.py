"""Batch normalisation over the images of several processes: torch's own works between GPUs only.

Where a network has such norms, its chains and gates run by torch's layers: the fused ones know one process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as processes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import BackendError


class SharedNorm(nn.BatchNorm2d):
    """In training, the batch is that of all processes together; they must hold equally many images each."""

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps)
        count = _count(x)
        momentum = momentum_of(self)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        return y


def momentum_of(norm: nn.BatchNorm2d) -> float:
    """How far a training pass moves the running values. Raises BackendError for torch's None, a mean over all."""
    if norm.momentum is None:
        raise BackendError(
            "batch norms with momentum None run on the backend reference alone",
            "set momentum to 1 / (batches seen + 1) before each pass: the same mean",
        )
    return float(norm.momentum)


def share_norms(model: nn.Module) -> None:
    """Make every batch norm of a model one over all processes; the modules stay the same objects."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm


def are_shared(norms: Iterable[nn.Module]) -> bool:
    """Whether one of these norms is."""
    return any(isinstance(norm, SharedNorm) for norm in norms)


class _Normalise(torch.autograd.Function):
    """y = weight · (x − mean) / √(variance + eps) + bias; mean and biased variance (c,) too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        count = _count(x)
        mean = _summed(x.sum((0, 2, 3))) / count
        centred = x - _spread(mean)
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        scale = (variance + eps).rsqrt()
        unit = centred.mul_(_spread(scale))
        ctx.save_for_backward(unit, weight, scale)
        ctx.mark_non_differentiable(mean, variance)
        return unit * _spread(weight) + _spread(bias), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, scale = ctx.saved_tensors
        own = torch.stack([dy.sum((0, 2, 3)), (dy * unit).sum((0, 2, 3))])
        of_bias, of_weight = _summed(own.clone()) / _count(dy)
        dx = (dy - _spread(of_bias) - unit * _spread(of_weight)) * _spread(weight * scale)
        return dx, own[1], own[0], None


def _count(x: Tensor) -> int:
    """Numbers of a channel in all processes."""
    return x.numel() // x.shape[1] * processes.get_world_size()


def _summed(numbers: Tensor) -> Tensor:
    processes.all_reduce(numbers)
    return numbers


def _spread(channels: Tensor) -> Tensor:
    return channels[:, None, None]
