"""SFM, the Salient Focus Module: denoising (DFB), then spatial (SAB), then channel attention (CAB)."""

from __future__ import annotations

from torch import Tensor, nn

from ascseg_cli.kernels.chain import Add, Boost, Chain, Gate, HighPass, chain, in_turn, side_by_side
from ascseg_cli.kernels.channel_gate import channel_gate
from ascseg_cli.network.layers import Fused, conv, depthwise


def _path(c: int, k: int) -> Fused:
    return Fused(depthwise(c, k), nn.BatchNorm2d(c), nn.GELU(), conv(c, c, 1), nn.BatchNorm2d(c))


class DenoisingFocusBlock(nn.Module):
    """DFB: s = BN(Σ of three depthwise paths of BN(x)); out = s · σ(BN(conv 1(s − avgpool 3(s)))) + s."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c)
        self.AP1 = _path(c, 7)
        self.AP2 = _path(c, 5)
        self.AP3 = _path(c, 3)
        self.norm2 = nn.BatchNorm2d(c)
        self.weight = nn.Sequential(conv(c, c, 1), nn.BatchNorm2d(c))
        self._enter = Chain(self.norm1)
        self._paths = Chain(*self.AP1), Chain(*self.AP2, Add()), Chain(*self.AP3, Add(), self.norm2)
        self._gate = Chain(HighPass(), *self.weight, nn.Sigmoid(), Gate())

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        s = in_turn(x, self._enter, self._paths)
        return chain(s, self._gate, s)


def _to_one_channel(pool: nn.Module, c: int) -> Fused:
    return Fused(
        pool, conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU(),
        conv(c, 1, 1), nn.BatchNorm2d(1),
    )  # fmt: skip


class SpatialAttentionBlock(nn.Module):
    """SAB: out = g · x + x, with one gate g a pixel from averaged and maximal neighbourhoods."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.ave = _to_one_channel(nn.AvgPool2d(3, 1, 1), c)
        self.max = _to_one_channel(nn.MaxPool2d(3, 1, 1), c)
        self._pooled = Chain(*self.ave), Chain(*self.max)
        self.conv = nn.Sequential(conv(2, 1, 7), nn.BatchNorm2d(1))
        self._gate = Chain(*self.conv, nn.Sigmoid(), Gate())

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        pooled = side_by_side(x, self._pooled)  # (b, 2, h, w)
        return chain(pooled, self._gate, x)


class ChannelAttentionBlock(nn.Module):
    """CAB: out = g · x + x, with one gate g a channel from the global maximum and mean."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = Fused(
            conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU(),
            conv(c, c, 1), nn.BatchNorm2d(c), nn.Sigmoid(),
        )  # fmt: skip
        self._boost = Chain(Boost())

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return chain(x, self._boost, channel_gate(x, self.conv))


class SalientFocusModule(nn.Module):
    """SFM = DFB, then SAB, then CAB."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(DenoisingFocusBlock(c), SpatialAttentionBlock(c), ChannelAttentionBlock(c))

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return self.attention(x)
