"""The forward pass of Mamba's mixer where TF32 is allowed: how the kernels of `warps.cu` are launched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.kernels.cuda import Kernel, kernel
from ascseg_cli.kernels.mamba_mixer.gpu_forward import between_chunks, link, plain
from ascseg_cli.kernels.mamba_mixer.layout import Layout, odd4, up

_SOURCE = Path(__file__).with_name("warps.cu")
_WARPS, _BLOCKS = 4, 4  # in a block; blocks a multiprocessor should hold
_ENOUGH, _FEW = 4096, 2048  # warps: two rounds of an H100's; fewer aren't worth it
_STATES = 16


def fits(layout: Layout) -> bool:
    """Whether the kernels are written for such weights."""
    return layout.r == 1 and layout.n == _STATES and layout.e % 4 == 0 and layout.channels <= 32


def forward(t: Tensor, weights: Sequence[Tensor], layout: Layout, length: int, residual: bool) -> Tensor:
    """y (b, l, c) in t's dtype.

    length    tokens of a chunk, a multiple of 8
    residual  whether t is added
    """
    b, l, c = t.shape
    t = plain(t)
    chunks = -(-l // length)
    y, starts, sizes = t.new_empty(b, l, c), None, (b, l, length, chunks)
    grid = (-(-b * -(-chunks // _segments(layout)) // _WARPS), layout.blocks)
    shared = _WARPS * _memory(layout)
    if chunks > 1:
        starts, totals = between_chunks(t, layout, chunks)
        ends = _kernel("chunk_ends", layout, t, residual)
        ends(grid, 32 * _WARPS, t, *t.stride(), *weights, starts, totals, *sizes, shared=shared)
        link(weights[6], starts, totals, layout, backward=False)
    replay = _kernel("replay", layout, t, residual)
    replay(grid, 32 * _WARPS, t, *t.stride(), *weights, starts, y, *sizes, shared=shared)
    return y


def length_for(b: int, l: int, layout: Layout) -> int | None:
    """Tokens of a chunk, as many as leave enough warps; None where the kernels of `forward.cu` are better."""
    if not fits(layout):
        return None
    warps = {length: b * -(-l // (length * _segments(layout))) * layout.blocks for length in (128, 64, 32)}
    return next((length for length, n in warps.items() if n >= _ENOUGH), 32 if warps[32] >= _FEW else None)


def _segments(layout: Layout) -> int:
    """Chunks of a warp."""
    return 32 // layout.channels


def _memory(layout: Layout) -> int:
    """Bytes of a warp, PER_WARP in `warps.cu`."""
    slots = _segments(layout) * layout.together
    steps = 4 if slots >= 4 else 8  # tokens of a tile
    return 4 * (up(steps * slots * layout.d) + up(steps * slots, 16) * (odd4(layout.e) + 40))


def _kernel(name: str, layout: Layout, t: Tensor, residual: bool) -> Kernel:
    constants = layout.constants | {"S": _STATES, "WARPS": _WARPS, "BLOCKS": _BLOCKS, "RESIDUAL": int(residual)}
    return kernel(_SOURCE, name, HALF=int(t.dtype == torch.bfloat16), **constants)
