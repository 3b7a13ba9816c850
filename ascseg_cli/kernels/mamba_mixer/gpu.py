"""Mamba's mixer on CUDA GPUs, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.mamba_mixer import gpu_warps, reference
from ascseg_cli.kernels.mamba_mixer.gpu_forward import forward
from ascseg_cli.kernels.mamba_mixer.gpu_gradients import mixer_gradients
from ascseg_cli.kernels.mamba_mixer.layout import TILE, Layout
from ascseg_cli.kernels.precision import tf32_allowed


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
    """See `kernels.mamba_mixer.mamba_mixer`. Float32, and bfloat16 tokens where no gradient is wanted.

    Gradients are bit-equal in every run.
    """
    given = (in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj)
    return _mixed(t, given, groups, residual=False)


def residual_mixer(t: Tensor, *weights: Tensor, groups: int = 1) -> Tensor:
    """t + mamba_mixer(t, *weights, groups), in the same kernels where no gradient is wanted."""
    return _mixed(t, weights, groups, residual=True)


def _mixed(t: Tensor, given: Sequence[Tensor], groups: int, residual: bool) -> Tensor:
    if t.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"t is {t.dtype}; the gpu backend takes float32 and bfloat16", "use --backend auto")
    layout = Layout(groups, t.shape[2] // groups, given[4].shape[1], given[6].shape[1])
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (t, *given))
    if why := _refusal(t.dtype, layout, wanted):
        backend.announce_reference("mamba_mixer", why)
    weights = [w.float().contiguous() for w in given]
    if why or t.numel() == 0:
        y = reference.mamba_mixer(t, *given, groups=groups)
    elif wanted:
        y = _Mix.apply(t, layout, *weights)
    elif length := _length_for_warps(t, layout):
        return gpu_warps.forward(t, weights, layout, length, residual)
    else:
        y = forward(t, weights, layout, layout.length(len(t), t.shape[1]))[0]
    return y + t if residual else y


def _length_for_warps(t: Tensor, layout: Layout) -> int | None:
    """Tokens of a chunk in `warps.cu`; None where another kernel is to run."""
    rounds = t.dtype == torch.bfloat16 or tf32_allowed()
    return gpu_warps.length_for(len(t), t.shape[1], layout) if rounds else None


def _refusal(dtype: torch.dtype, layout: Layout, wanted: bool) -> str:
    """Why the kernels can't take such tokens and weights; empty where they can."""
    if not layout.fits:
        sizes = f"{layout.d} channels a group, {layout.n} states and rank {layout.r}"
        return f"{sizes} don't fit into a GPU's shared memory"
    return f"the gpu backend has no gradients of {dtype}" if wanted and dtype != torch.float32 else ""


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, layout: Layout, *weights: Tensor) -> Tensor:
        y, starts, totals = forward(t, weights, layout, TILE)
        ctx.save_for_backward(t, starts, totals, *weights)
        ctx.layout = layout
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        t, starts, totals, *weights = ctx.saved_tensors
        if dy is None:
            return (None,) * (2 + len(weights))
        dt, gradients = mixer_gradients(dy, t, weights, starts, totals, ctx.layout)
        wanted = ctx.needs_input_grad[2:]
        of_weights = (g if want else None for g, want in zip(gradients, wanted))
        return dt if ctx.needs_input_grad[0] else None, None, *of_weights
