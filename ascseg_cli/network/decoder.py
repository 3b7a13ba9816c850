"""CNSD, the Cross-scale Noise Suppression Decoder, and FAC, the connector that joins it to the encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ascseg_cli.kernels.chain import Add, Chain, SoftGate, chain
from ascseg_cli.network.aggregation import MultiScaleFeatureAggregation
from ascseg_cli.network.focus import SalientFocusModule
from ascseg_cli.network.layers import conv, double
from ascseg_cli.network.variants import Channels


class NoiseSuppressionDecoder(nn.Module):
    """CNSD(x) = ReLU(SFM(MSFA(x)) + x)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.msfa = MultiScaleFeatureAggregation(c)
        self.sf = SalientFocusModule(c)
        self._close = Chain(Add(), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return chain(self.sf(self.msfa(x)), self._close, x)


class FeatureAlignmentConnector(nn.Module):
    """FAC: σ(BN(conv 1(up 2(d)))) · σ(e) + e."""

    def __init__(self, deep: int, c: int) -> None:
        super().__init__()
        self.pro = nn.Sequential(double(), conv(deep, c, 1), nn.BatchNorm2d(c))
        doubling, *convolution = self.pro
        self._chain = Chain(*self.pro, nn.Sigmoid(), SoftGate())
        self._small = Chain(*convolution, doubling, nn.Sigmoid(), SoftGate())

    def forward(self, d: Tensor, e: Tensor) -> Tensor:
        """d (b, deep, h/2, w/2), e (b, c, h, w) -> (b, c, h, w).

        Where the norm takes no statistics, the convolution comes before the doubling, at a quarter of the cost:
        the exchange is exact, since the taps of bilinear sum to one.
        """
        steps = self._chain if any(norm.training for norm in self._chain.norms) else self._small
        return chain(d, steps, e)


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
