"""Groups of channels as rows of the batch: for backends whose mixer knows no groups."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor


def grouped(mixer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`mixer` over each group of channels by itself, the groups passed as rows: views, where t's strides allow.

    t        (b, l, groups·d) -> (b·groups, l, d)
    returns  (b·groups, l, d) -> (b, l, groups·d)
    """

    @functools.wraps(mixer)
    def over_groups(t: Tensor, *weights: Tensor, groups: int = 1) -> Tensor:
        if groups == 1:
            return mixer(t, *weights)
        rows = t.unflatten(2, (groups, t.shape[2] // groups)).transpose(1, 2).flatten(0, 1)
        y = mixer(rows, *weights)
        return y.unflatten(0, (len(t), groups)).transpose(1, 2).flatten(2)

    return over_groups
