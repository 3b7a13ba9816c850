"""The whole of Mamba between its input and output tokens: arguments checked, backend picked."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend

__all__ = ["mamba_mixer"]


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
    residual: bool = False,
) -> Tensor:
    """Tokens mixed along the sequence, each group of d channels by itself and by the same weights.

    x, z = in_proj t; x = SiLU(causal conv x); Δ, B, C = x_proj x; Δ = dt_proj Δ; out_proj of the scan's result.

    t                   (b, l, groups·d)  any strides; bfloat16 (weights so or float32): sums in float32
    in_proj             (2e, d)        x's rows, then z's
    conv, conv_bias     (e, 1, 4), (e,)
    x_proj              (r + 2n, e)    rows of Δ, B, C
    dt_proj, dt_bias    (e, r), (e,)
    A_log, D            (e, n), (e,)   A = -exp(A_log)
    out_proj            (d, e)
    residual            whether t is added to the result
    returns             (b, l, groups·d)  t's dtype
    Raises ShapeError, BackendError. Source: Gu and Dao 2023, section 3.4; scan as in `selective_scan`.
    """
    weights = (in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj)
    _check(t, groups, *weights)
    name = backend.for_operator("mamba_mixer", t, half=not torch.is_grad_enabled())
    module = importlib.import_module(f"{__name__}.{name}")
    if residual and hasattr(module, "residual_mixer"):
        return module.residual_mixer(t, *weights, groups=groups)
    y = module.mamba_mixer(t, *weights, groups=groups)
    return y + t if residual else y


def _check(t: Tensor, groups: int, *weights: Tensor) -> None:
    if t.dim() != 3 or weights[6].dim() != 2 or weights[4].dim() != 2:
        raise ShapeError(f"t is {tuple(t.shape)}; it must be (b, l, groups·d), A_log (e, n) and dt_proj (e, r)")
    if groups < 1 or t.shape[2] % groups:
        raise ShapeError(f"t is {tuple(t.shape)}; its channels can't be split into {groups} groups")
    d, (e, n), r = t.shape[2] // groups, weights[6].shape, weights[4].shape[1]
    dtypes = (torch.bfloat16, torch.float32) if t.dtype == torch.bfloat16 else (t.dtype,)
    shapes = [(2 * e, d), (e, 1, 4), (e,), (r + 2 * n, e), (e, r), (e,), (e, n), (e,), (d, e)]
    names = ("in_proj", "conv", "conv_bias", "x_proj", "dt_proj", "dt_bias", "A_log", "D", "out_proj")
    for name, tensor, shape in zip(names, weights, shapes):
        if tuple(tensor.shape) != shape:
            raise ShapeError(
                f"{name} is {tuple(tensor.shape)}; with t {tuple(t.shape)} and {groups} groups it must be {shape}"
            )
        if tensor.device != t.device or tensor.dtype != weights[0].dtype or tensor.dtype not in dtypes:
            raise ShapeError(f"{name} is {tensor.dtype} on {tensor.device}; t is {t.dtype} on {t.device}")
