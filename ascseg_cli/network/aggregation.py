"""MSFA, Multi-Scale Feature Aggregation: eight dilated branches at three sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.network.layers import conv, up

DILATIONS = (1, 2, 3, 4, 1, 3, 1, 3)  # branches 1–4 at the size of x, 5–6 at twice, 7–8 at half of it


class Branch(nn.Module):
    """conv 3 with a dilation, BN, ReLU, conv 1, BN: c channels to c/2."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.extract = nn.Sequential(conv(c, c // 2, 3, dilation=dilation), nn.BatchNorm2d(c // 2))
        self.integrate = nn.Sequential(conv(c // 2, c // 2, 1), nn.BatchNorm2d(c // 2))

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c/2, h, w)."""
        return self.integrate(F.relu(self.extract(x)))


class MultiScaleFeatureAggregation(nn.Module):
    """Eight branches, concatenated in order, then a grouped conv 3 and a conv 1."""

    def __init__(self, c: int) -> None:
        super().__init__()
        for number, dilation in enumerate(DILATIONS, 1):
            self.add_module(f"cfe{number}", Branch(c, dilation))
        self.extract = nn.Sequential(
            conv(4 * c, c, 3, groups=c), nn.BatchNorm2d(c), nn.ReLU(),
            conv(c, c, 1), nn.BatchNorm2d(c),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w), h and w even -> (b, c, h, w)."""
        branch = [self.get_submodule(f"cfe{number}") for number in range(1, 9)]
        same = [b(x) for b in branch[:4]]
        large, small = up(x, 2), F.max_pool2d(x, 2)
        finer = [F.max_pool2d(b(large), 2) for b in branch[4:6]]
        coarser = [up(b(small), 2) for b in branch[6:]]
        return self.extract(torch.cat(same + finer + coarser, 1))  # (b, 4c, h, w) -> (b, c, h, w)
