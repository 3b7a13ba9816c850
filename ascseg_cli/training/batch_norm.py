"""Batch normalisation for training on a GPU, whose sums are split over pixels as well as channels.

cuDNN gives each channel to one block, which leaves most of a GPU idle at 8 channels and 65,536 pixels an image:
more than half of a training step. These are plain torch reductions instead, on any device, in any dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PIXELS = (0, 2, 3)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same parameters, names and results, and another order of summation."""

    @classmethod
    def replace_in(cls, model: nn.Module) -> None:
        """Turn every `nn.BatchNorm2d` of a model into this class; parameters and buffers stay the same objects."""
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> the same shape, normalised by the batch in training, else by the running values."""
        if not self.training or self.momentum is None or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        y, mean, variance = _BatchNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            n = x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / max(n - 1, 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return y


class _BatchNorm(torch.autograd.Function):
    """y = (x − mean)·inv·weight + bias, inv = (variance + eps)^−½, both over batch and pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x, _PIXELS, correction=0)
        inv = torch.rsqrt(variance + eps)
        scale = weight * inv
        ctx.save_for_backward(x, scale, mean, inv)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(_wide(bias - mean * scale), x, _wide(scale)), mean, variance

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With x̂ = (x − mean)·inv: dbias = Σg, dweight = Σg·x̂, dx = scale·(g − Σg/n − x̂·Σ(g·x̂)/n)."""
        x, scale, mean, inv = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        centred = x - _wide(mean)  # before any sum: afterwards the mean's share cancels digits away
        d_bias, d_weight = g.sum(_PIXELS), (g * centred).sum(_PIXELS) * inv
        start, slope = -scale * d_bias / n, -scale * inv * d_weight / n
        d_x = torch.addcmul(torch.addcmul(_wide(start), centred, _wide(slope)), g, _wide(scale))
        return d_x, d_weight, d_bias, None


def _wide(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]  # (c) -> (c, 1, 1)
