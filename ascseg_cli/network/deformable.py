"""DCB, the Deformable Convolution Block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.kernels.deform_depthwise import deform_depthwise
from ascseg_cli.network.layers import conv


class DepthwiseDeformable(nn.Module):
    """The nine weights of each channel; the offsets come from outside."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c, 1, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # nn.Conv2d's default

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """x (b, c, h, w), offset (b, 18, h, w) in pixels -> (b, c, h, w)."""
        return deform_depthwise(x, offset, self.weight)


class DeformableUnit(nn.Module):
    """Offsets from the features themselves, sampling, and a 1×1 convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.offset = nn.Sequential(conv(c, 18, 3), nn.BatchNorm2d(18))
        self.deform = DepthwiseDeformable(c)
        self.balance = nn.Sequential(conv(c, c, 1), nn.BatchNorm2d(c))

    def forward(self, p: Tensor) -> Tensor:
        """p (b, c, h, w) -> (b, c, h, w)."""
        return F.gelu(self.balance(self.deform(p, self.offset(p))))


class DeformableConvolutionBlock(nn.Module):
    """DCB(f) = GELU(BN(conv 1(q))) · f + f, where q samples p = GELU(BN(conv 1(f))) at learnt offsets."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pro = nn.Sequential(conv(c, c, 1), nn.BatchNorm2d(c))
        self.deform = DeformableUnit(c)

    def forward(self, f: Tensor) -> Tensor:
        """f (b, c, h, w) -> (b, c, h, w)."""
        return self.deform(F.gelu(self.pro(f))) * f + f
