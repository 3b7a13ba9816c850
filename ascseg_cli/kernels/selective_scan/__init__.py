"""The selective scan of Mamba: arguments checked, backend picked."""

from __future__ import annotations

import importlib

from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend

__all__ = ["selective_scan"]


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """The output of a selective state-space model over a sequence of tokens.

    Δ = softplus(delta + delta_bias);  s_k = exp(Δ_k A) s_(k-1) + Δ_k B_k x_k with s_0 = 0;
    y_k = (C_k · s_k + D x_k) · SiLU(z_k).

    x, delta, z    (b, l, e)   any strides; z None: no gate
    A              (e, n)      negative
    B, C           (b, l, n)   any strides
    D, delta_bias  (e,)        None: zero
    returns        (b, l, e)   x's dtype; the state is never less than float32
    Raises ShapeError, BackendError. Source: Gu and Dao 2023, algorithm 2; A is not shared among channels.
    """
    _check(x, delta, A, B, C, D, z, delta_bias)
    module = importlib.import_module(f"{__name__}.{backend.for_operator('selective_scan', x)}")
    return module.selective_scan(x, delta, A, B, C, D, z, delta_bias)


def _check(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
) -> None:
    if x.dim() != 3 or A.dim() != 2:
        raise ShapeError(f"x is {tuple(x.shape)}, A is {tuple(A.shape)}; they must be (b, l, e) and (e, n)")
    b, l, e = x.shape
    n = A.shape[1]
    wanted = {
        "delta": (delta, (b, l, e)),
        "A": (A, (e, n)),
        "B": (B, (b, l, n)),
        "C": (C, (b, l, n)),
        "D": (D, (e,)),
        "z": (z, (b, l, e)),
        "delta_bias": (bias, (e,)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ShapeError(
                f"{name} is {tuple(tensor.shape)}; with x {tuple(x.shape)} and n = {n} it must be {shape}"
            )
        if tensor.device != x.device or tensor.dtype != x.dtype:
            raise ShapeError(f"{name} is {tensor.dtype} on {tensor.device}; x is {x.dtype} on {x.device}")
