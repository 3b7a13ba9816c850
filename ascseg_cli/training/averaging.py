"""Averaged weights: a running mean of the weights over training, steadier than the last ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class AveragedWeights:
    """A copy of a model that follows it, by the decay min(decay, (1 + step) / (10 + step)).

    The ramp matters: with a constant .999 a run of a thousand steps would mostly average its own random start.
    Batch-norm running values follow in the same way; `recompute_statistics` makes them exact.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self._own, self._followed = _floats(self.model), _floats(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the followed model as it is after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._own, self._followed, 1 - decay)


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running values of every batch norm to their mean over `batches` of network input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for batch in batches:
        model(batch)
    model.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def _floats(model: nn.Module) -> list[Tensor]:
    return [t for t in model.state_dict(keep_vars=True).values() if t.is_floating_point()]
