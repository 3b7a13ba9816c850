"""What lies on skin and in a dermatoscope: hairs, rulers, ink, and light that falls off towards the rim."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ascseg_cli.training.draws import Draws, Range, plane

_HAIRS = 12
_LONG_TICK = 5  # every fifth tick of a ruler is longer


def hairs(x: Tensor, draws: Draws) -> Tensor:
    """Up to twelve hairs, mostly dark."""
    (density,) = draws.between((0.2, 1))
    drawn = _strokes(x, draws, _HAIRS, width=(0.003, 0.009), length=(0.3, 1.2), density=density)
    tone, cover = draws.between((0, 0.35), (0.6, 1))
    return _painted(x, drawn * cover, torch.cat([tone + 0.08, tone + 0.03, tone], 1))


def ink(x: Tensor, draws: Draws) -> Tensor:
    """A line or two by a violet, blue or green pen."""
    drawn = _strokes(x, draws, 2, width=(0.015, 0.045), length=(0.2, 0.6), density=None)
    red, green, blue, cover = draws.between((0.05, 0.4), (0.05, 0.35), (0.25, 0.6), (0.5, 0.95))
    return _painted(x, drawn * cover, torch.cat([red, green, blue], 1))


def ruler(x: Tensor, draws: Draws) -> Tensor:
    """A row of dark or white ticks, anywhere but in the middle."""
    angle, place, spacing, width, length, tone, cover = draws.between(
        (0, 2 * math.pi), (0.45, 0.95), (0.05, 0.2), (0.004, 0.01), (0.04, 0.1), (-1, 2), (0.6, 1)
    )
    rows, columns = plane(*x.shape[2:], x.device)
    cos, sin = angle.cos(), angle.sin()
    along, across = (rows * cos + columns * sin) / spacing, columns * cos - rows * sin - place
    number = along.round()
    tick = _covered(x, width - (along - number).abs() * spacing)
    longer = torch.where(number % _LONG_TICK == 0, 2 * length, length)
    return _painted(x, tick * ((across > 0) & (across < longer)) * cover, tone.clamp(0, 1))


def vignette(x: Tensor, draws: Draws) -> Tensor:
    """Light that falls off from somewhere near the middle."""
    row, column, begin, width, depth = draws.between((-0.3, 0.3), (-0.3, 0.3), (0.2, 0.9), (0.4, 1), (0.3, 0.95))
    rows, columns = plane(*x.shape[2:], x.device)
    fall = (((rows - row).square() + (columns - column).square()).sqrt() - begin).div_(width).clamp_(0, 1)
    return x * (1 - depth * fall.square() * (3 - 2 * fall))


def _strokes(
    x: Tensor, draws: Draws, count: int, *, width: Range, length: Range, density: Tensor | None
) -> Tensor:
    """How far `count` arcs cover each pixel, (k, 1, h, w) in 0..1. Width and length are half ones.

    density  share of the arcs that are drawn, else all
    """
    row, column, angle, radius, half, reach, luck = draws.between(
        (-1, 1), (-1, 1), (0, 2 * math.pi), (0.4, 3), width, length, (0, 1), each=count
    )
    if density is not None:
        half = half.masked_fill(luck > density, -1)
    rows, columns = plane(*x.shape[2:], x.device)
    centre_row, centre_column = row + radius * angle.sin(), column + radius * angle.cos()
    distance = ((rows - centre_row).square() + (columns - centre_column).square()).sqrt_().sub_(radius).abs_()
    near = (rows - row).square() + (columns - column).square() < reach.square()
    return _covered(x, half - distance).mul_(near).amax(1, keepdim=True)


def _covered(x: Tensor, inside: Tensor) -> Tensor:
    """From how far a pixel's centre lies inside a shape to how much of the pixel the shape covers."""
    return (inside * (x.shape[3] / 2) + 0.5).clamp_(0, 1)


def _painted(x: Tensor, cover: Tensor, colour: Tensor) -> Tensor:
    """x under a paint of one colour (k, 3 or 1, 1, 1) that covers it by `cover` (k, 1, h, w)."""
    return x + (colour - x) * cover
