"""Mamba compiled for the CPU: how its weights are laid out and its kernels launched."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.blocks import CHUNK, WIDTH
from ascseg_cli.kernels.compiled import Kernel, flat, launch, split
from ascseg_cli.kernels.mamba_mixer.rows import grouped

leave = Kernel("mamba_mixer.cpu_kernels", "leave")
mix = Kernel("mamba_mixer.cpu_kernels", "mix")
mix_backward = Kernel("mamba_mixer.cpu_kernels_backward", "mix_backward")

Places = tuple[int, ...]
Sizes = tuple[int, int, int, int]


@grouped
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
) -> Tensor:
    """See `kernels.mamba_mixer.mamba_mixer`; float32 on the CPU.

    A row of the batch is a task; where threads are more, each takes some of a row's inner channels.
    """
    if t.dtype != torch.float32:
        raise ShapeError(f"t is {t.dtype}; the cpu backend takes torch.float32", "use --backend auto")
    (e, n), r = A_log.shape, dt_proj.shape[1]
    missing = max(1, -(-n // WIDTH)) * WIDTH - n  # whole vectors: a state with B = 0 stays zero
    low, B, C = x_proj.split([r, n, n])
    wide = [F.pad(m, (0, missing)) for m in (-A_log.exp(), B.T, C.T)]
    parts = (in_proj, conv, conv_bias, low, dt_proj, dt_bias, *wide, D, out_proj)
    weights = torch.cat([part.reshape(-1) for part in parts])  # differentiable: backward takes it apart again
    places = tuple(accumulate((part.numel() for part in parts[:-1]), initial=0))
    sizes = t.shape[2], e, n + missing, r
    if torch.is_grad_enabled() and (t.requires_grad or weights.requires_grad):
        return _Mix.apply(t, weights, places, sizes)
    return _forward(t, weights, places, sizes, keep=False)[0]


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, weights: Tensor, places: Places, sizes: Sizes) -> Tensor:
        y, carries = _forward(t, weights, places, sizes, keep=True)
        ctx.save_for_backward(t, weights, carries)
        ctx.layout = places, sizes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        t, weights, carries = ctx.saved_tensors
        return *_backward(t, weights, carries, gradient, *ctx.layout), None, None


def _planar(t: Tensor) -> Tensor:
    """An empty tensor of t's shape (b, l, d) with tokens side by side, as images lie."""
    b, l, d = t.shape
    return t.new_empty(b, d, l).transpose(1, 2)


def _forward(t: Tensor, weights: Tensor, places: Places, sizes: Sizes, keep: bool) -> tuple[Tensor, Tensor]:
    """y (b, l, d), and if wanted the states at the start of each chunk, (b, chunks, e, n)."""
    (b, l, d), (_, e, n, _) = t.shape, sizes
    y, carries = _planar(t), t.new_empty(b, -(-l // CHUNK) if keep else 0, e, n)
    parts = 1 if b >= torch.get_num_threads() else split(b, e)
    wide = t.new_empty(b if parts > 1 else 0, e, l).transpose(1, 2)
    rows, numbers = b if y.numel() else 0, flat(weights)[0]
    results = *flat(y), *flat(wide), flat(carries)[0]
    launch(mix, rows * parts, *flat(t), numbers, places, *results, keep, l, *sizes, parts)
    if parts > 1:
        launch(leave, rows * -(-l // CHUNK), *flat(wide), numbers, places, *flat(y), l, d, e)
    return y, carries


def _backward(
    t: Tensor, weights: Tensor, carries: Tensor, gradient: Tensor, places: Places, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """The gradients of t and of the weights; each row sums the weights' on its own, so the order is fixed."""
    b, l, _ = t.shape
    gt, gweights = _planar(t), t.new_zeros(b, len(weights), dtype=torch.float64)
    inputs = (*flat(t), *flat(gradient), flat(weights)[0], places, flat(carries)[0])
    tasks = b if gt.numel() else 0
    launch(mix_backward, tasks, *inputs, *flat(gt), flat(gweights)[0], l, *sizes)
    return gt, gweights.sum(0).to(weights.dtype)
