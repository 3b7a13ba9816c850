"""Mamba in plain torch around the operator `selective_scan`: any device, any dtype, differentiable."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.kernels.mamba_mixer.rows import grouped
from ascseg_cli.kernels.selective_scan import selective_scan


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
    """See `kernels.mamba_mixer.mamba_mixer`."""
    if t.dtype != in_proj.dtype:  # bfloat16 tokens, float32 weights
        weights = (in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj)
        return mamba_mixer(t.to(in_proj.dtype), *weights).to(t.dtype)
    l, n, rank = t.shape[1], A_log.shape[1], dt_proj.shape[1]
    x, z = F.linear(t, in_proj).chunk(2, -1)  # (b, l, e) each
    x = F.conv1d(x.transpose(1, 2), conv, conv_bias, padding=3, groups=len(conv))[..., :l]  # causal: (b, e, l)
    x = F.silu(x).transpose(1, 2)  # (b, l, e)
    delta, B, C = F.linear(x, x_proj).split([rank, n, n], -1)
    delta = F.linear(delta, dt_proj)  # (b, l, r) -> (b, l, e); its bias is added in the scan
    y = selective_scan(x, delta, -A_log.exp(), B, C, D, z, dt_bias)
    return F.linear(y, out_proj)
