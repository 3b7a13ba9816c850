"""The depthwise deformable convolution in plain torch, by gathering: any device, any dtype, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_depthwise`."""
    h, w = x.shape[2:]
    rows = torch.arange(h, device=x.device, dtype=x.dtype).view(1, h, 1)
    columns = torch.arange(w, device=x.device, dtype=x.dtype).view(1, 1, w)
    y = torch.zeros_like(x)
    for k in range(9):
        row = rows + (k // 3 - 1) + offset[:, 2 * k]  # (b, h, w)
        column = columns + (k % 3 - 1) + offset[:, 2 * k + 1]
        y = y + weight[:, 0, k // 3, k % 3].view(1, -1, 1, 1) * _bilinear(x, row, column)
    return y


def _bilinear(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x (b, c, h, w) sampled at row, column (b, h, w), in pixels -> (b, c, h, w)."""
    top, left = row.detach().floor(), column.detach().floor()
    down, right = (row - top).unsqueeze(1), (column - left).unsqueeze(1)
    return (
        _pixel(x, top, left) * (1 - down) * (1 - right)
        + _pixel(x, top, left + 1) * (1 - down) * right
        + _pixel(x, top + 1, left) * down * (1 - right)
        + _pixel(x, top + 1, left + 1) * down * right
    )


def _pixel(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The value of x (b, c, h, w) at whole rows and columns (b, h, w), zero outside."""
    b, c, h, w = x.shape
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    row, column = (torch.where(inside, t, 0).long() for t in (row, column))  # float32 can't index 16 Mpx
    index = (row * w + column).flatten(1).unsqueeze(1).expand(b, c, -1)
    return x.flatten(2).gather(2, index).view(b, c, *row.shape[1:]) * inside.unsqueeze(1).to(x.dtype)
