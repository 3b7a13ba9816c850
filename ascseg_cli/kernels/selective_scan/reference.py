"""The selective scan in plain torch: any device, any dtype, differentiable, and the measure for the others.

The recurrence runs over all chunks of √l tokens side by side, and then over the ends of the chunks: 2√l steps
in Python in place of l. It multiplies decays and never divides by them, so it is safe for any Δ.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """See `kernels.selective_scan.selective_scan`."""
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, delta, A, B, C = (t.float() for t in (x, delta, A, B, C))
        D, z, delta_bias = (None if t is None else t.float() for t in (D, z, delta_bias))
    step = F.softplus(delta if delta_bias is None else delta + delta_bias)
    decay = torch.exp(step.unsqueeze(-1) * A)  # (b, l, e, n)
    drive = (step * x).unsqueeze(-1) * B.unsqueeze(2)  # (b, l, e, n)
    y = (_linear_recurrence(decay, drive) * C.unsqueeze(2)).sum(-1)  # (b, l, e, n) -> (b, l, e)
    if D is not None:
        y = y + D * x
    if z is not None:
        y = y * F.silu(z)
    return y.to(dtype)


def _linear_recurrence(decay: Tensor, drive: Tensor) -> Tensor:
    """s_k = decay_k · s_(k-1) + drive_k from s_0 = 0, along dimension 1 of (b, l, e, n)."""
    b, l, e, n = decay.shape
    if l == 0:
        return decay * drive  # empty, and still a function of both
    length = math.isqrt(l - 1) + 1
    chunks = -(-l // length)
    padding = (0, 0, 0, 0, 0, chunks * length - l)
    # unbind, not indexing: the gradient of an index is a whole tensor of zeros for each step
    decays = F.pad(decay, padding).view(b, chunks, length, e, n).unbind(2)
    drives = F.pad(drive, padding).view(b, chunks, length, e, n).unbind(2)
    states, survivals = [drives[0]], [decays[0]]
    for k in range(1, length):
        states.append(decays[k] * states[-1] + drives[k])
        survivals.append(decays[k] * survivals[-1])
    carries = [torch.zeros_like(drive[:, 0])]
    for survival, state in zip(survivals[-1].unbind(1), states[-1].unbind(1)):
        carries.append(survival * carries[-1] + state)
    within = torch.stack(states, 2)  # (b, chunks, length, e, n)
    whole = within + torch.stack(survivals, 2) * torch.stack(carries[:-1], 1).unsqueeze(2)
    return whole.view(b, chunks * length, e, n)[:, :l]
