"""The gradient of Mamba's mixer on CUDA GPUs: how the kernels of `backward.cu` are launched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ascseg_cli.kernels.cuda import Argument, Kernel, kernel
from ascseg_cli.kernels.mamba_mixer.gpu_forward import between_chunks, link, plain
from ascseg_cli.kernels.mamba_mixer.layout import BACK, TILE, Layout

_SOURCE = Path(__file__).with_name("backward.cu")


def mixer_gradients(
    dy: Tensor, t: Tensor, weights: Sequence[Tensor], starts: Tensor | None, totals: Tensor | None, layout: Layout
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of t, (b, l, c), and of the weights.

    starts, totals  of `forward` with chunks of one tile
    """
    b, l, c = t.shape
    dy, t, chunks = plain(dy), plain(t), -(-l // TILE)
    adjoints = None if totals is None else _adjoints(dy, t, weights, totals, layout)
    dt, halo = t.new_empty(b, l, c), t.new_empty(b, chunks, BACK, c)
    workers = layout.workers(b * chunks)
    partials = t.new_empty(workers * layout.blocks, layout.parameters)
    given = (
        t,
        *t.stride(),
        dy,
        *dy.stride(),
        *weights,
        starts,
        adjoints,
        dt,
        halo,
        partials,
        l,
        chunks,
        b * chunks,
    )
    run = _kernel("gradients", layout)
    run((workers, layout.blocks), layout.threads, *given, shared=layout.gradients_memory)
    return dt, _finished(partials, halo, dt, weights, layout)


def _adjoints(dy: Tensor, t: Tensor, weights: Sequence[Tensor], totals: Tensor, layout: Layout) -> Tensor:
    """The adjoint of the states after each chunk."""
    b, l, _ = t.shape
    chunks = totals.shape[2]
    adjoints, _ = between_chunks(t, layout, chunks)
    ends = _kernel("adjoint_ends", layout)
    given: tuple[Argument, ...] = (t, *t.stride(), dy, *dy.stride(), *weights)
    grid = b * chunks, layout.blocks
    ends(grid, layout.threads, *given, adjoints, l, chunks, shared=layout.adjoint_memory)
    link(weights[6], adjoints, totals, layout, backward=True)
    return adjoints


def _finished(
    partials: Tensor, halo: Tensor, dt: Tensor, weights: Sequence[Tensor], layout: Layout
) -> list[Tensor]:
    """The weights' gradients from every block's share; dt gets what chunks hand to the tokens before them."""
    b, chunks, back, c = halo.shape
    sums = partials.new_empty(layout.parameters)
    summing, count = -(-layout.parameters // 32), b * (chunks - 1) * back * c
    finish = _kernel("finish", layout)
    grid = (summing + -(-count // 256),)
    finish(grid, 256, partials, len(partials), sums, halo, dt, summing, dt.shape[1], chunks, c, count, shared=2048)
    parts = sums.split([w.numel() for w in weights])
    return [part.view_as(w) for part, w in zip(parts, weights)]


def _kernel(name: str, layout: Layout) -> Kernel:
    return kernel(_SOURCE, name, HALF=0, WIDE=int(layout.wide), **layout.constants)
