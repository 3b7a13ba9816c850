"""SFM, the Salient Focus Module: denoising (DFB), then spatial (SAB), then channel attention (CAB)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.network.layers import conv, depthwise


def _path(c: int, k: int) -> nn.Sequential:
    return nn.Sequential(depthwise(c, k), nn.BatchNorm2d(c), nn.GELU(), conv(c, c, 1), nn.BatchNorm2d(c))


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

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        q = self.norm1(x)
        s = self.norm2(self.AP1(q) + self.AP2(q) + self.AP3(q))
        high_pass = s - F.avg_pool2d(s, 3, 1, 1)
        return s * torch.sigmoid(self.weight(high_pass)) + s


def _to_one_channel(pool: nn.Module, c: int) -> nn.Sequential:
    return nn.Sequential(
        pool, conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU(),
        conv(c, 1, 1), nn.BatchNorm2d(1),
    )  # fmt: skip


class SpatialAttentionBlock(nn.Module):
    """SAB: out = g · x + x, with one gate g a pixel from averaged and maximal neighbourhoods."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.ave = _to_one_channel(nn.AvgPool2d(3, 1, 1), c)
        self.max = _to_one_channel(nn.MaxPool2d(3, 1, 1), c)
        self.conv = nn.Sequential(conv(2, 1, 7), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        g = torch.sigmoid(self.conv(torch.cat([self.ave(x), self.max(x)], 1)))  # (b, 1, h, w)
        return g * x + x


class ChannelAttentionBlock(nn.Module):
    """CAB: out = g · x + x, with one gate g a channel from the global maximum and mean."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(c, c, 1), nn.BatchNorm2d(c), nn.GELU(),
            conv(c, c, 1), nn.BatchNorm2d(c),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        highest = x.flatten(2).max(2).values  # adaptive_max_pool2d is 6 % of a training step on a GPU
        s = (highest + x.mean((2, 3)))[:, :, None, None]  # (b, c, 1, 1)
        return torch.sigmoid(self.conv(s)) * x + x


class SalientFocusModule(nn.Module):
    """SFM = DFB, then SAB, then CAB."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(DenoisingFocusBlock(c), SpatialAttentionBlock(c), ChannelAttentionBlock(c))

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return self.attention(x)
