"""What ultrasound does to its pictures: speckle, shadows, brightness that changes with depth."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.training.draws import Draws, plane

_SHADOWS = 2


def speckle(x: Tensor, draws: Draws) -> Tensor:
    """Grain that grows with brightness, a few pixels coarse, wider than high."""
    (strength,) = draws.between((0.1, 0.5))
    h, w = x.shape[2:]
    grain = F.interpolate(draws.normal(1, h // 2, w // 4), (h, w), mode="bilinear", align_corners=False)
    return (x * (1 + strength * grain)).clamp(0, 1)


def shadow(x: Tensor, draws: Draws) -> Tensor:
    """One or two dark wedges that open downwards from some depth."""
    column, angle, width, top, blur, depth = draws.between(
        (-0.8, 0.8), (-0.3, 0.3), (0.05, 0.25), (-0.9, 0.4), (0.03, 0.2), (-0.4, 0.9), each=_SHADOWS
    )
    rows, columns = plane(*x.shape[2:], x.device)
    below = rows - top
    inside = (width * (1 + 0.3 * below) - (columns - column - angle * below).abs()).div_(blur).clamp_(0, 1)
    dark = inside * (below / 0.15).clamp_(0, 1) * depth.clamp_min(0)
    return x * (1 - dark.amax(1, keepdim=True))


def gain(x: Tensor, draws: Draws) -> Tensor:
    """Brighter or darker with depth, and in a band."""
    slope, band, place, height = draws.between((-0.7, 0.7), (-0.4, 0.4), (-1, 1), (0.1, 0.5))
    rows, _ = plane(*x.shape[2:], x.device)
    change = slope * rows + band * (-((rows - place) / height).square()).exp()
    return (x * change.exp()).clamp(0, 1)
