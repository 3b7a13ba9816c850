"""A chain in plain torch, module after module: any device, any dtype, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ascseg_cli.kernels.chain.steps import Combination


def chain(x: Tensor, steps: Sequence[nn.Module], other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`."""
    for step in steps:
        if isinstance(step, Combination):
            x = step(x, other)
        elif isinstance(step, (nn.LayerNorm, nn.Linear)):
            x = step(x.movedim(1, -1)).movedim(-1, 1)  # (b, c, h, w) -> (b, h, w, c) and back
        else:
            x = step(x)
    return x


def side_by_side(x: Tensor, chains: Sequence[Sequence[nn.Module]], run: Callable[..., Tensor] = chain) -> Tensor:
    """See `kernels.chain.side_by_side`. Chains that begin by resizing x alike share its result."""
    resized: dict[str, Tensor] = {}
    results = []
    for steps in chains:
        begun = x
        if isinstance(steps[0], (nn.Upsample, nn.MaxPool2d)):
            key = repr(steps[0])
            begun = resized[key] = resized[key] if key in resized else run(x, steps[:1])
            steps = steps[1:]
        results.append(run(begun, steps))
    return torch.cat(results, 1)
