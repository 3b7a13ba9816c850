"""The second half of a deformable convolution block in plain torch, around the operator `deform_depthwise`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.kernels.deform_depthwise import deform_depthwise


def deform_block(p: Tensor, f: Tensor, m: Tensor | None, *weights: Tensor) -> Tensor:
    """See `kernels.deform_block.deform_block`; any device, any dtype, differentiable."""
    offset_weight, offset_bias, weight, balance_weight, balance_bias = (t.to(p.dtype) for t in weights)
    offset = F.conv2d(p, offset_weight, offset_bias, padding=1)  # (b, 18, h, w)
    q = deform_depthwise(p, offset, weight)
    e = F.gelu(F.conv2d(q, balance_weight, balance_bias)) * f + f
    return e if m is None else m + e
