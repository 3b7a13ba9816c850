"""The operations of `description` as torch operators, few and large, so that the exported graph stays short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.graphs.description import GROUPS
from ascseg_cli.graphs.folding import EPSILON, Affine, Kernel
from ascseg_cli.graphs.to_torch.scan import levels_for, selective_scan


class TorchOperations:
    """See `description.Operations`.

    weights  becomes the keeper of all weights, at the first run; later runs find them there
    tokens   the most that the scan may meet
    """

    def __init__(self, weights: nn.Module, tokens: int) -> None:
        self._weights = weights
        self._levels = levels_for(tokens)

    def _weight(self, name: str, values: np.ndarray) -> Tensor:
        key = name.replace(".", "_")
        if key not in self._weights._buffers:
            self._weights.register_buffer(key, torch.from_numpy(values.astype(np.float32)))
        return self._weights.get_buffer(key)

    def conv(self, x: Tensor, k: Kernel, name: str, *, groups: int = 1, dilation: int = 1) -> Tensor:
        weight, bias = (self._weight(f"{name}.{n}", v) for n, v in vars(k).items())
        return F.conv2d(x, weight, bias, padding=dilation * (k.size - 1) // 2, dilation=dilation, groups=groups)

    def scaled(self, x: Tensor, norm: Affine, name: str) -> Tensor:
        scale, shift = (self._weight(f"{name}.{n}", v[:, None, None]) for n, v in vars(norm).items())
        return x * scale + shift

    def standardised(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], eps=EPSILON).movedim(-1, 1)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def relu(self, x: Tensor) -> Tensor:
        return x.relu()

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def softplus(self, x: Tensor) -> Tensor:
        return F.softplus(x)

    def double(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def halve(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)

    def highest(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 1, 1)

    def overall(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True)

    def joined(self, xs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(xs), 1)

    def deformed(self, x: Tensor, offset: Tensor, weight: np.ndarray, name: str) -> Tensor:
        """All taps at once: four gathers, not four for each tap."""
        h, w = x.shape[2:]
        tap = self._weight("taps", np.arange(9.0).reshape(9, 1, 1))
        row = offset[:, 0::2] + (tap // 3 - 1) + torch.arange(h).view(-1, 1)  # (b, 9, h, w)
        column = offset[:, 1::2] + (tap % 3 - 1) + torch.arange(w)
        top, left = row.floor(), column.floor()
        down, right = row - top, column - left
        sampled = (
            _pixels(x, top, left, (1 - down) * (1 - right))
            + _pixels(x, top, left + 1, (1 - down) * right)
            + _pixels(x, top + 1, left, down * (1 - right))
            + _pixels(x, top + 1, left + 1, down * right)
        )  # (b, c, 9, h, w)
        return (sampled * self._weight(name, weight).reshape(-1, 9, 1, 1)).sum(2)

    def to_rows(self, x: Tensor, d: int) -> Tensor:
        return x.flatten(2).unflatten(1, (GROUPS, d)).flatten(0, 1)

    def to_map(self, rows: Tensor, like: Tensor) -> Tensor:
        return rows.reshape(like.shape)

    def linear(self, rows: Tensor, weight: np.ndarray, name: str) -> Tensor:
        return torch.matmul(self._weight(name, weight), rows)

    def halves(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        first, second = rows.chunk(2, 1)
        return first, second

    def causal(self, rows: Tensor, weight: np.ndarray, bias: np.ndarray, name: str) -> Tensor:
        taps, summand = self._weight(f"{name}.weight", weight), self._weight(f"{name}.bias", bias)
        return F.conv1d(F.pad(rows, (3, 0)), taps, summand, groups=len(weight))

    def along(self, rows: Tensor, factor: np.ndarray, summand: np.ndarray, name: str) -> Tensor:
        by, plus = (self._weight(f"{name}.{n}", v[:, None]) for n, v in (("by", factor), ("plus", summand)))
        return rows * by + plus

    def selective_scan(
        self, x: Tensor, delta: Tensor, A: np.ndarray, B: np.ndarray, C: np.ndarray, name: str
    ) -> Tensor:
        a, b, c = (self._weight(f"{name}.{letter}", v) for letter, v in (("A", A), ("B", B), ("C", C)))
        return selective_scan(x, delta, a, b, c, self._levels)


def _pixels(x: Tensor, row: Tensor, column: Tensor, share: Tensor) -> Tensor:
    """(b, c, 9, h, w): share times x (b, c, h, w) at whole rows and columns (b, 9, h, w), zero outside."""
    c, h, w = x.shape[1:]
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    index = torch.where(inside, row.long() * w + column.long(), 0).flatten(1)  # (b, 9·h·w)
    found = x.flatten(2).gather(2, index.unsqueeze(1).expand(-1, c, -1)).unflatten(2, row.shape[1:])
    return found * (share * inside).unsqueeze(1)
