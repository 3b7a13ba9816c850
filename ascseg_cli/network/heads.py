"""The four prediction heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ascseg_cli.network.layers import Fused, conv, up
from ascseg_cli.network.variants import Channels


class Head(nn.Module):
    """conv 1 to one channel, then upsampling: the exchange is exact, since the taps of bilinear sum to one."""

    def __init__(self, c: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.pro = Fused(conv(c, 1, 1))

    def low(self, d: Tensor) -> Tensor:
        """d (b, c, h/scale, w/scale) -> logits of that size, (b, 1, h/scale, w/scale)."""
        return self.pro(d)

    def forward(self, d: Tensor) -> Tensor:
        """d (b, c, h/scale, w/scale) -> logits (b, 1, h, w)."""
        return up(self.low(d), self.scale)


class Heads(nn.Module):
    """One head for each decoder stage; the first is the prediction."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        for i, c in enumerate(channels):
            self.add_module(f"ph{i + 1}", Head(c, 2**i))

    def first(self, decoded: Sequence[Tensor]) -> Tensor:
        """d1..d4 -> the prediction's logits (b, 1, h, w)."""
        return self.get_submodule("ph1")(decoded[0])

    def low(self, decoded: Sequence[Tensor]) -> list[Tensor]:
        """d1..d4 -> four logit maps, each of the size of its d; `forward` gives them enlarged."""
        return [cast(Head, self.get_submodule(f"ph{i + 1}")).low(d) for i, d in enumerate(decoded)]

    def forward(self, decoded: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """d1..d4 -> four logit maps (b, 1, h, w)."""
        first, second, third, fourth = (self.get_submodule(f"ph{i + 1}")(d) for i, d in enumerate(decoded))
        return first, second, third, fourth
