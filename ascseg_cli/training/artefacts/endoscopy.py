"""What an endoscope shows beside tissue: glare of its own lamp, and the box that its screen puts into a corner."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.training.draws import Draws, plane

_SPOTS = 12
_LETTER = 4  # side of the specks that stand for writing, px


def highlights(x: Tensor, draws: Draws) -> Tensor:
    """Up to twelve white spots about one place, as wet tissue throws the lamp's light back."""
    middle_row, middle_column, spread, density, hardness = draws.between(
        (-0.6, 0.6), (-0.6, 0.6), (0.1, 0.8), (0.2, 1), (1, 6)
    )
    row, column, angle, size, shape, luck = draws.between(
        (-1, 1), (-1, 1), (0, math.pi), (0.01, 0.07), (1, 3), (0, 1), each=_SPOTS
    )
    rows, columns = plane(*x.shape[2:], x.device)
    down, right = rows - (middle_row + row * spread), columns - (middle_column + column * spread)
    cos, sin = angle.cos() / size, angle.sin() / size
    long, short = (right * cos + down * sin) / shape, down * cos - right * sin
    light = (1 - long.square() - short.square()).mul_(hardness).clamp_(0, 1).mul_(luck < density)
    return x + (0.98 - x) * light.amax(1, keepdim=True)


def box(x: Tensor, draws: Draws) -> Tensor:
    """An opaque box with writing in a corner."""
    down, right, high, wide, red, green, blue, written = draws.between(
        (-1, 1), (-1, 1), (0.2, 0.7), (0.3, 0.8), (0, 0.2), (0, 0.7), (0, 0.3), (0, 0.4)
    )
    rows, columns = plane(*x.shape[2:], x.device)
    inside = (rows * down.sign() > 1 - high) & (columns * right.sign() > 1 - wide)
    specks = draws.uniform(1, x.shape[2] // _LETTER, x.shape[3] // _LETTER)
    writing = F.interpolate(specks, x.shape[2:]) < written
    shown = torch.cat([red, green, blue], 1).masked_fill(writing, 0.9)
    return torch.where(inside, shown, x)
