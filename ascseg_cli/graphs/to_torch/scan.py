"""The selective scan in operators that `torch.export` writes down as a graph: no loop over tokens.

Eight tokens at a time are scanned side by side, then the ends of eight such blocks, and so on: six levels of eight
steps are enough for 256×256 tokens. Decays are multiplied and never divided by, so it is safe for any Δ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8


def selective_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, levels: int) -> Tensor:
    """See `description.Operations.selective_scan`; 8^levels tokens or fewer."""
    x, delta = x.transpose(1, 2), delta.transpose(1, 2)  # (rows, e, l) -> (rows, l, e)
    into, out = F.linear(x, B).unsqueeze(2), F.linear(x, C).unsqueeze(2)  # (rows, l, 1, n)
    decay = torch.exp(delta.unsqueeze(3) * A)  # (rows, l, e, n)
    states = linear_recurrence(decay, (delta * x).unsqueeze(3) * into, levels)
    return (states * out).sum(3).transpose(1, 2)


def linear_recurrence(decay: Tensor, drive: Tensor, levels: int) -> Tensor:
    """s_k = decay_k · s_(k−1) + drive_k from s_0 = 0, along dimension 1 of (rows, l, e, n)."""
    l = decay.shape[1]
    decays, drives = (_blocks(t).unbind(2) for t in (decay, drive))  # eight of (rows, blocks, e, n)
    states, survivals = [drives[0]], [decays[0]]
    for k in range(1, BLOCK):
        states.append(decays[k] * states[-1] + drives[k])
        survivals.append(decays[k] * survivals[-1])
    within = torch.stack(states, 2)  # (rows, blocks, 8, e, n)
    if levels > 1:
        ends = linear_recurrence(survivals[-1], states[-1], levels - 1)  # (rows, blocks, e, n)
        before = F.pad(ends, (0, 0, 0, 0, 1, 0))[:, :-1]
        within = within + torch.stack(survivals, 2) * before.unsqueeze(2)
    return within.flatten(1, 2)[:, :l]


def _blocks(t: Tensor) -> Tensor:
    """(rows, l, e, n) -> (rows, blocks, 8, e, n), with zeros behind the last token."""
    return F.pad(t, (0, 0, 0, 0, 0, (-t.shape[1]) % BLOCK)).unflatten(1, (-1, BLOCK))


def levels_for(tokens: int) -> int:
    """How many levels so many tokens need."""
    levels = 1
    while BLOCK**levels < tokens:
        levels += 1
    return levels
