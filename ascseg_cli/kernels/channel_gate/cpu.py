"""The channel gate on the CPU: without gradients its pooling is compiled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascseg_cli.kernels.chain.cpu import check_dtype, dense_rows
from ascseg_cli.kernels.channel_gate import reference
from ascseg_cli.kernels.compiled import Kernel, flat, launch

pool = Kernel("channel_gate.cpu_kernels", "pool")


def channel_gate(x: Tensor, gate: nn.Sequential) -> Tensor:
    """See `kernels.channel_gate.channel_gate`; float32 on the CPU."""
    check_dtype(x)
    if torch.is_grad_enabled():
        return reference.channel_gate(x, gate)
    b, c, h, w = x.shape
    s = x.new_empty(b, c, 1, 1)
    launch(pool, b * c, *flat(dense_rows(x)), flat(s)[0], c, h, w)
    return gate(s)
