"""The pieces that every block is made of, built so that state-dict names are the authors'."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.kernels.chain import Chain, chain


def conv(into: int, out: int, k: int, *, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """k×k convolution with bias and stride 1 that keeps the size."""
    return nn.Conv2d(into, out, k, padding=dilation * (k - 1) // 2, groups=groups, dilation=dilation)


def depthwise(c: int, k: int) -> nn.Conv2d:
    """k×k depthwise convolution with bias and stride 1 that keeps the size."""
    return conv(c, c, k, groups=c)


def double() -> nn.Upsample:
    """(b, c, h, w) -> (b, c, 2h, 2w), bilinear with align_corners=True."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


class Fused(nn.Sequential):
    """Modules one after another, run by the operator `chain`."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__(*steps)
        self._chain = Chain(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c', h', w')."""
        return chain(x, self._chain)


def up(x: Tensor, scale: int) -> Tensor:
    """x (b, c, h, w) -> (b, c, scale·h, scale·w), bilinear with align_corners=True."""
    if scale == 1:
        return x
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=True)
