"""The selective scan of the mamba_ssm package (extra `cuda`), for those who have it built."""

from __future__ import annotations

from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor

from ascseg_cli.kernels.selective_scan import reference


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
    """See `kernels.selective_scan.selective_scan`. The package wants the tokens last; it copies what isn't so."""
    if x.numel() == 0 or A.numel() == 0:
        return reference.selective_scan(x, delta, A, B, C, D, z, delta_bias)
    y = selective_scan_fn(
        x.transpose(1, 2),  # (b, l, e) -> (b, e, l)
        delta.transpose(1, 2),
        A,
        B.transpose(1, 2).unsqueeze(1),  # (b, l, n) -> (b, 1, n, l)
        C.transpose(1, 2).unsqueeze(1),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
        delta_softplus=True,
    )
    return y.transpose(1, 2)  # (b, e, l) -> (b, l, e)
