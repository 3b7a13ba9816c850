"""ASE, the Adaptive Structure Encoder: four stages of IPCB, then PMB and DCB side by side."""

from __future__ import annotations

from torch import Tensor, nn

from ascseg_cli.kernels.chain import Chain, chain
from ascseg_cli.network.deformable import DeformableConvolutionBlock
from ascseg_cli.network.layers import Fused, conv
from ascseg_cli.network.mamba import ParallelMambaBlock
from ascseg_cli.network.variants import Channels


def inverted_pyramid(into: int, c: int) -> Fused:
    """IPCB: conv 7, conv 3, conv 1, each with BN and ReLU; (b, into, h, w) -> (b, c, h, w)."""
    return Fused(
        conv(into, c, 7), nn.BatchNorm2d(c), nn.ReLU(),
        conv(c, c, 3), nn.BatchNorm2d(c), nn.ReLU(),
        conv(c, c, 1), nn.BatchNorm2d(c), nn.ReLU(),
    )  # fmt: skip


class EncoderBlock(nn.Module):
    """One stage: f = IPCB(x), e = PMB(f) + DCB(f)."""

    def __init__(self, into: int, c: int) -> None:
        super().__init__()
        self.ipc = inverted_pyramid(into, c)
        self.pm = ParallelMambaBlock(c)
        self.dc = DeformableConvolutionBlock(c)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, into, h, w) -> (b, c, h, w)."""
        f = self.ipc(x)
        return self.dc.added_to(self.pm(f), f)


class Encoder(nn.Module):
    """Four encoder blocks, each at half the size of the one before."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.eb1 = EncoderBlock(3, channels[0])
        self.eb2 = EncoderBlock(channels[0], channels[1])
        self.eb3 = EncoderBlock(channels[1], channels[2])
        self.eb4 = EncoderBlock(channels[2], channels[3])
        self._halve = Chain(nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (b, 3, h, w) -> e1 (b, C1, h, w), e2 (b, C2, h/2, w/2), e3 (h/4), e4 (h/8)."""
        e1 = self.eb1(x)
        e2 = self.eb2(chain(e1, self._halve))
        e3 = self.eb3(chain(e2, self._halve))
        e4 = self.eb4(chain(e3, self._halve))
        return e1, e2, e3, e4
