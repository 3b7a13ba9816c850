"""DCB, the Deformable Convolution Block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascseg_cli.kernels.chain import Chain, Gate, chain
from ascseg_cli.kernels.deform_depthwise import deform_depthwise
from ascseg_cli.network.layers import Fused, conv


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
        self.offset = Fused(conv(c, 18, 3), nn.BatchNorm2d(18))
        self.deform = DepthwiseDeformable(c)
        self.balance = nn.Sequential(conv(c, c, 1), nn.BatchNorm2d(c))
        self._gate = Chain(*self.balance, nn.GELU(), Gate())

    def forward(self, p: Tensor, f: Tensor) -> Tensor:
        """p, f (b, c, h, w) -> GELU(BN(conv 1(q))) · f + f (b, c, h, w), where q samples p."""
        return chain(self.deform(p, self.offset(p)), self._gate, f)


class DeformableConvolutionBlock(nn.Module):
    """DCB(f) = GELU(BN(conv 1(q))) · f + f, where q samples p = GELU(BN(conv 1(f))) at learnt offsets."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pro = Fused(conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU())
        self.deform = DeformableUnit(c)

    def forward(self, f: Tensor) -> Tensor:
        """f (b, c, h, w) -> (b, c, h, w)."""
        return self.deform(self.pro(f), f)
