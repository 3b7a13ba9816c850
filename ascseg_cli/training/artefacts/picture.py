"""What befalls any picture: motion, a frame, lost detail, compression, parts that can't be seen."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.training.draws import Draws, plane

_TAPS = 7  # of a motion blur
_HOLES = 3
_BLOCK = 8
# The tables that the JPEG standard suggests (ITU-T T.81, annex K), for a quality of 50.
_BRIGHTNESS = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_COLOUR = "17 18 24 47 18 21 26 66 24 26 56 99 47 66 99 99"  # the rest is 99


def frame(x: Tensor, draws: Draws) -> Tensor:
    """Black outside a circle or an octagon; x (k, 4, h, w), whose last channel, the mask, ends there too."""
    row, column, high, wide, corner, kind = draws.between(
        (-0.15, 0.15), (-0.15, 0.15), (0.85, 1.3), (0.85, 1.3), (1.2, 1.7), (0, 1)
    )
    rows, columns = plane(*x.shape[2:], x.device)
    down, right = ((rows - row) / high).abs(), ((columns - column) / wide).abs()
    octagon = torch.maximum(torch.maximum(down, right), (down + right) / corner)
    outside = torch.where(kind < 0.5, (down.square() + right.square()).sqrt(), octagon) - 1
    return x * (0.5 - outside * (x.shape[3] / 4)).clamp(0, 1)


def motion(x: Tensor, draws: Draws) -> Tensor:
    """The mean along a short line in any direction."""
    angle, reach = draws.between((0, math.pi), (0.01, 0.05))
    rows, columns = plane(*x.shape[2:], x.device)
    along = (
        torch.linspace(-1, 1, _TAPS, device=x.device, dtype=x.dtype).view(_TAPS, 1, 1) * reach
    )  # (k, taps, 1, 1)
    down, right = torch.broadcast_tensors(rows + along * angle.sin(), columns + along * angle.cos())
    grid = torch.stack([right, down], -1).flatten(1, 2)  # (k, taps, h, w, 2) -> (k, taps·h, w, 2)
    seen = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return seen.unflatten(2, (_TAPS, x.shape[2])).mean(2)


def coarse(x: Tensor, draws: Draws) -> Tensor:
    """Shrunk by up to four, and enlarged again."""
    h, w = x.shape[2:]
    factor = draws.number(1.3, 4)
    small = F.interpolate(x, (round(h / factor), round(w / factor)), mode="bilinear", antialias=True)
    return F.interpolate(small, (h, w), mode="bilinear", align_corners=False)


def jpeg(x: Tensor, draws: Draws) -> Tensor:
    """The loss of JPEG: blocks of 8×8 whose cosine coefficients are rounded, qualities 10 to 80."""
    k, _, h, w = x.shape
    cosines, tables, colours, pixels = _jpeg_constants(x.device)
    (coarseness,) = draws.between((math.log(0.4), math.log(5)))
    steps = tables * coarseness.exp()[..., None, None]
    blocks = (colours @ x.flatten(2)).view(k, 3, h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK).transpose(3, 4)
    rounded = ((cosines @ blocks @ cosines.T) / steps).round() * steps
    shown = (cosines.T @ rounded @ cosines).transpose(3, 4).reshape(k, 3, h * w)
    return (pixels @ shown).view(x.shape).clamp(0, 1)


def cutout(x: Tensor, draws: Draws) -> Tensor:
    """Up to three boxes of one shade each; what lies behind them still counts."""
    row, column, high, wide, tone = draws.between(
        (-1, 1), (-1, 1), (-0.05, 0.15), (-0.05, 0.15), (0, 1), each=_HOLES
    )
    rows, columns = plane(*x.shape[2:], x.device)
    outside = ((rows - row).abs() > high) | ((columns - column).abs() > wide)
    shade = tone.masked_fill(outside, -1).amax(1, keepdim=True)
    return torch.where(shade < 0, x, shade)


@lru_cache(4)
def _jpeg_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cosine transform (8, 8), the steps (3, 1, 1, 8, 8), RGB to YCbCr and back (3, 3)."""
    n = torch.arange(_BLOCK, dtype=torch.float64)
    cosines = (math.pi / _BLOCK * n[:, None] * (n + 0.5)).cos() * math.sqrt(2 / _BLOCK)
    cosines[0] /= math.sqrt(2)
    brightness = torch.tensor([float(step) for step in _BRIGHTNESS.split()]).view(_BLOCK, _BLOCK)
    colour = torch.full((_BLOCK, _BLOCK), 99.0)
    colour[:4, :4] = torch.tensor([float(step) for step in _COLOUR.split()]).view(4, 4)
    tables = torch.stack([brightness, colour, colour])[:, None, None] / 255
    colours = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]).double()
    made = cosines, tables, colours, torch.linalg.inv(colours)
    return tuple(one.to(device, torch.float32) for one in made)  # type: ignore[return-value]
