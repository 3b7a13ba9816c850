"""DCB, the Deformable Convolution Block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.chain import Chain, Gate, chain
from ascseg_cli.kernels.deform_block import Folded, deform_block
from ascseg_cli.kernels.deform_depthwise import deform_by, deform_depthwise
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
        self._offsets = Chain(*self.offset)
        self._gate = Chain(*self.balance, nn.GELU(), Gate())
        self._folded = Folded(self.offset, self.deform, self.balance)

    def forward(self, p: Tensor, f: Tensor) -> Tensor:
        """p, f (b, c, h, w) -> GELU(BN(conv 1(q))) · f + f (b, c, h, w), where q samples p."""
        if _is_watched(self.offset) or _is_watched(self.deform):
            return chain(self.deform(p, self.offset(p)), self._gate, f)
        return chain(deform_by(p, self._offsets, self.deform.weight), self._gate, f)

    def at_once(self, p: Tensor, f: Tensor, m: Tensor) -> Tensor:
        """m + self(p, f), in evaluation and without gradients."""
        return deform_block(p, f, m, *self._folded.weights())

    def can_run_at_once(self, p: Tensor) -> bool:
        """Whether that is faster, and no gradient, no statistics of the batch and no step by itself are wanted."""
        if torch.is_grad_enabled() or backend.for_operator("deform_block", p, half=True) != "gpu":
            return False
        return not self._folded.batch_statistics() and not any(_is_watched(module) for module in self.modules())


def _is_watched(module: nn.Module) -> bool:
    """Whether someone has asked to see the module's calls."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class DeformableConvolutionBlock(nn.Module):
    """DCB(f) = GELU(BN(conv 1(q))) · f + f, where q samples p = GELU(BN(conv 1(f))) at learnt offsets."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pro = Fused(conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU())
        self.deform = DeformableUnit(c)

    def forward(self, f: Tensor) -> Tensor:
        """f (b, c, h, w) -> (b, c, h, w)."""
        return self.deform(self.pro(f), f)

    def added_to(self, m: Tensor, f: Tensor) -> Tensor:
        """m + DCB(f); m, f (b, c, h, w)."""
        if _is_watched(self) or not self.deform.can_run_at_once(f):
            return m + self(f)
        return self.deform.at_once(self.pro(f), f, m)
