"""Mamba compiled for the CPU, without gradients: how its operands are laid out and its kernel launched."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.compiled import flat, launch
from ascseg_cli.kernels.lanes import WIDTH
from ascseg_cli.kernels.mamba_mixer.cpu_kernels import mix
from ascseg_cli.kernels.mamba_mixer.rows import grouped


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
    """See `kernels.mamba_mixer.mamba_mixer`; float32 on the CPU. A row of the batch is a thread's share."""
    if t.dtype != torch.float32:
        raise ShapeError(f"t is {t.dtype}; the cpu backend takes torch.float32", "use --backend auto")
    (b, l, d), (e, n), r = t.shape, A_log.shape, dt_proj.shape[1]
    y = t.new_empty(b, d, l).transpose(1, 2)
    missing = max(1, -(-n // WIDTH)) * WIDTH - n  # whole vectors: a state with B = 0 stays zero
    low, B, C = x_proj.split([r, n, n])
    weights = (in_proj, conv, conv_bias, low, dt_proj, dt_bias)
    wide = [F.pad(m, (0, missing)) for m in (-A_log.exp(), B.T, C.T)]
    operands = [flat(m.contiguous())[0] for m in (*weights, *wide, D, out_proj)]
    launch(mix, b if y.numel() else 0, *flat(t), *operands, *flat(y), l, d, e, n + missing, r)
    return y
