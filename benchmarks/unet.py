"""U-Net with 31 million parameters, the usual rival: 64 to 1,024 channels, two 3×3 convolutions at each size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 1024)


class UNet(nn.Module):
    """(b, 3, h, w), sides multiples of 16 -> logits (b, 1, h, w). Source: Ronneberger et al. 2015, padded, BN."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip((3, *WIDTHS), WIDTHS))
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1]))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.up = nn.ModuleList(_twice(i, o) for i, o in pairs)
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for enlarge, block, skipped in zip(self.enlarge, self.up, kept[-2::-1]):
            x = block(torch.cat([skipped, enlarge(x)], 1))
        return self.head(x)


def _twice(into: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (into, out):
        layers += [nn.Conv2d(i, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
