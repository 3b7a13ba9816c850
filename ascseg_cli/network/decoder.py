"""CNSD, the Cross-scale Noise Suppression Decoder, and FAC, the connector that joins it to the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.network.aggregation import MultiScaleFeatureAggregation
from ascseg_cli.network.focus import SalientFocusModule
from ascseg_cli.network.layers import conv
from ascseg_cli.network.variants import Channels


class NoiseSuppressionDecoder(nn.Module):
    """CNSD(x) = ReLU(SFM(MSFA(x)) + x)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.msfa = MultiScaleFeatureAggregation(c)
        self.sf = SalientFocusModule(c)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return F.relu(self.sf(self.msfa(x)) + x)


class FeatureAlignmentConnector(nn.Module):
    """FAC: σ(BN(conv 1(up 2(d)))) · σ(e) + e."""

    def __init__(self, deep: int, c: int) -> None:
        super().__init__()
        up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.pro = nn.Sequential(up2, conv(deep, c, 1), nn.BatchNorm2d(c))

    def forward(self, d: Tensor, e: Tensor) -> Tensor:
        """d (b, deep, h/2, w/2), e (b, c, h, w) -> (b, c, h, w)."""
        return torch.sigmoid(self.pro(d)) * torch.sigmoid(e) + e


class Decoder(nn.Module):
    """From the coarsest stage to the finest; index 0 is the finest."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.cnsd = nn.ModuleList(NoiseSuppressionDecoder(c) for c in channels)
        self.fac = nn.ModuleList(FeatureAlignmentConnector(channels[i + 1], channels[i]) for i in range(3))

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """e1..e4 -> d1..d4, each of the shape of its e."""
        d = self.cnsd[3](encoded[3])
        decoded = [d]
        for i in (2, 1, 0):
            d = self.cnsd[i](self.fac[i](d, encoded[i]))
            decoded.insert(0, d)
        return decoded
