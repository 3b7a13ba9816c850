"""The steps of a chain that torch has no module for. None of them has parameters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class HighPass(nn.Module):
    """x less its mean over 3×3 neighbours, of which those outside count as zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        return x - F.avg_pool2d(x, 3, 1, 1)


class Combination(nn.Module):
    """A step that takes the chain's other operand: (b, c, h, w); c may differ from 1 where the chain has 1."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """x and other -> (b, c, h, w)."""
        raise NotImplementedError


class Add(Combination):
    """x + other."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + other


class Gate(Combination):
    """x · other + other."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x * other + other


class SoftGate(Combination):
    """x · σ(other) + other."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x * other.sigmoid() + other


class Boost(Combination):
    """other · x + x, with one number of `other` (b, c, 1, 1) a channel."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return other * x + x
