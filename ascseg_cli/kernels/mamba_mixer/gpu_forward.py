"""The forward pass of Mamba's mixer on CUDA GPUs: how the kernels of `forward.cu` are launched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.kernels.cuda import Kernel, kernel
from ascseg_cli.kernels.mamba_mixer.layout import Layout

_SOURCE = Path(__file__).with_name("forward.cu")


def forward(
    t: Tensor, weights: Sequence[Tensor], layout: Layout, length: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y (b, l, c) and, of more than one chunk, what `between_chunks` has room for.

    length  tokens of a chunk, a multiple of `TILE`
    """
    b, l, c = t.shape
    t = plain(t)
    chunks = -(-l // length)
    y, starts, totals = t.new_empty(b, l, c), None, None
    grid, sizes = (b * chunks, layout.blocks), (l, length, chunks)
    if chunks > 1:
        starts, totals = between_chunks(t, layout, chunks)
        ends = _kernel("chunk_ends", layout, t)
        ends(
            grid,
            layout.threads,
            t,
            *t.stride(),
            *weights,
            starts,
            totals,
            *sizes,
            shared=layout.ends_memory(length),
        )
        link(weights[6], starts, totals, layout, backward=False)
    replay = _kernel("replay", layout, t)
    given = (t, *t.stride(), *weights, starts, y)
    replay(grid, layout.threads, *given, *sizes, shared=layout.replay_memory(length))
    return y, starts, totals


def plain(t: Tensor) -> Tensor:
    """t with strides that 32 bits hold."""
    return t if all(stride < 2**31 for stride in t.stride()) else t.contiguous()


def between_chunks(t: Tensor, layout: Layout, chunks: int) -> tuple[Tensor, Tensor]:
    """Room for what is handed from chunk to chunk: states and ΣΔ."""
    shape = (len(t), layout.blocks, chunks, layout.channels)
    states = t.new_empty(*shape, layout.padded, dtype=torch.float32)
    return states, t.new_empty(shape, dtype=torch.float32)


def link(A_log: Tensor, ends: Tensor, totals: Tensor, layout: Layout, backward: bool) -> None:
    """In place: what each chunk adds -> what comes to it."""
    b, blocks, chunks, channels, n = ends.shape
    grid = (-(-channels * n // 16), b * blocks)
    run = _kernel("link_chunks", layout, ends)
    threads = 16 * min(32, 2 ** ((chunks + 1) // 2 - 1).bit_length())  # each takes two chunks or more
    run(grid, threads, A_log, ends, totals, chunks, int(backward), shared=2 * threads * 4)


def _kernel(name: str, layout: Layout, t: Tensor) -> Kernel:
    return kernel(_SOURCE, name, HALF=int(t.dtype == torch.bfloat16), **layout.constants)
