"""The whole network: encoder, decoder, heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.decoder import Decoder
from ascseg_cli.network.encoder import Encoder
from ascseg_cli.network.heads import Heads
from ascseg_cli.network.variants import VARIANTS, check_channels

Maps = tuple[Tensor, Tensor, Tensor, Tensor]


class ASCSeg(nn.Module):
    """Adaptive Structure Alignment and Cross-scale Decoding for Medical Image Segmentation, 2025.

    channels  of the four stages, each divisible by 4
    Raises ShapeError.
    """

    def __init__(self, channels: Sequence[int] = VARIANTS["tiny"]) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        self.encoder = Encoder(self.channels)
        self.decoder = Decoder(self.channels)
        self.final = Heads(self.channels)

    @classmethod
    def from_weights(cls, path: str | Path) -> ASCSeg:
        """The network of a weights file, on the CPU, in float32 and evaluation mode. Raises WeightsError."""
        return cls.from_checkpoint(checkpoint.read(Path(path)))

    @classmethod
    def from_checkpoint(cls, content: checkpoint.Checkpoint) -> ASCSeg:
        """The network of a weights file already read, in evaluation mode."""
        network = cls(content.metadata.channels)
        state = {name: torch.from_numpy(tensor.copy()) for name, tensor in content.tensors.items()}
        network.load_state_dict(state, strict=False)  # `checkpoint.read` has checked every name and shape
        return network.eval()

    def forward(self, x: Tensor) -> Maps:
        """x (b, 3, h, w), h and w multiples of 16 -> four logit maps (b, 1, h, w). Raises ShapeError."""
        self._check(x)
        return self.final(self.decoder(self.encoder(x)))

    def low_logits(self, x: Tensor) -> list[Tensor]:
        """x (b, 3, h, w) as `forward` -> logit maps not yet enlarged: (b, 1, h, w), (h/2), (h/4), (h/8)."""
        self._check(x)
        return self.final.low(self.decoder(self.encoder(x)))

    def heads(self, x: Tensor) -> Maps:
        """x (b, 3, h, w) as `forward` -> four probability maps (b, 1, h, w); the first is the prediction."""
        first, second, third, fourth = (z.sigmoid() for z in self(x))
        return first, second, third, fourth

    def probability(self, x: Tensor) -> Tensor:
        """x (b, 3, h, w) as `forward` -> the prediction, (b, 1, h, w); the other heads aren't computed."""
        self._check(x)
        return self.final.first(self.decoder(self.encoder(x))).sigmoid()

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != 3:
            raise ShapeError(f"the input is {tuple(x.shape)}; it must be (b, 3, h, w)")
        b, _, h, w = x.shape
        if min(h, w) < 16 or h % 16 or w % 16:
            wanted = f"{max(1, -(-h // 16)) * 16}×{max(1, -(-w // 16)) * 16}"
            raise ShapeError(f"the input is {h}×{w} px; both must be multiples of 16; pad it to {wanted}")
        if self.training and b < 2:
            raise ShapeError(
                "a training batch holds 1 image; batch normalisation of the channel attention needs 2 or more"
            )
