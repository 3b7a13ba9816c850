"""Mamba's mixer on CUDA GPUs: how the kernels of `forward.cu` are launched."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.cuda import Kernel, kernel
from ascseg_cli.kernels.mamba_mixer import reference
from ascseg_cli.kernels.mamba_mixer.layout import Layout

_SOURCE = Path(__file__).with_name("forward.cu")


def mamba_mixer(
    t: Tensor,
    in_proj: Tensor,
    conv: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
    groups: int = 1,
) -> Tensor:
    """See `kernels.mamba_mixer.mamba_mixer`. Float32, and bfloat16 tokens where no gradient is wanted."""
    if t.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"t is {t.dtype}; the gpu backend takes float32 and bfloat16", "use --backend auto")
    weights = (in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj)
    layout = Layout(groups, t.shape[2] // groups, dt_proj.shape[1], A_log.shape[1])
    if t.numel() == 0 or A_log.numel() == 0 or dt_proj.shape[1] == 0 or not layout.fits:
        return reference.mamba_mixer(t, *weights, groups=groups)
    return _forward(t, [w.float().contiguous() for w in weights], layout)[0]


def _forward(
    t: Tensor, weights: list[Tensor], layout: Layout, length: int | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y (b, l, c) and, of more than one chunk, what `between_chunks` has room for."""
    b, l, c = t.shape
    t = plain(t)
    length = length or layout.length(b, l)
    chunks = -(-l // length)
    y, starts, totals = t.new_empty(b, l, c), None, None
    grid, sizes = (b * chunks, layout.blocks), (l, length, chunks)
    if chunks > 1:
        starts, totals = between_chunks(t, layout, chunks)
        ends = forward_kernel("chunk_ends", layout, t)
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
    replay = forward_kernel("replay", layout, t)
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
    run = forward_kernel("link_chunks", layout, ends)
    run(grid, 512, A_log, ends, totals, chunks, int(backward), shared=2 * 512 * 4)


def forward_kernel(name: str, layout: Layout, t: Tensor) -> Kernel:
    return kernel(_SOURCE, name, HALF=int(t.dtype == torch.bfloat16), **layout.constants)
