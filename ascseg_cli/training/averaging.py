"""Averaged weights: a running mean of the weights over training, steadier than the last ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ascseg_cli.network.asc_seg import ASCSeg
from ascseg_cli.network.loss import segmentation_loss
from ascseg_cli.training.batches import Batches

_Model = TypeVar("_Model", bound=nn.Module)

_JUDGED = 4  # one in so many batches is enough to tell two losses apart


class AveragedWeights(Generic[_Model]):
    """A copy of a model that follows it, by the decay min(decay, (1 + step) / (10 + step)).

    The ramp matters: with a constant .999 a run of a thousand steps would mostly average its own random start.
    Batch-norm running values don't follow: before use, `settle_statistics` finds those of the averaged weights.
    """

    def __init__(self, model: _Model, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self.model.requires_grad_(False).eval()
        self.decay = decay
        self._own: list[Tensor] = list(self.model.parameters())
        self._followed: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the followed model as it is after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._own, self._followed, 1 - decay)
        mark_changed(self._own)


def mark_changed(tensors: Iterable[Tensor]) -> None:
    """Count a change of each tensor, as torch's own operators do.

    On a GPU neither lists of tensors changed together, nor our kernels, nor recorded steps count, and what is
    prepared from weights for evaluation is made anew only where the count says so.
    """
    for tensor in tensors:
        torch.autograd.graph.increment_version(tensor)


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running values of every batch norm to their mean over `batches` of network input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    for done, batch in enumerate(batches):
        for norm in norms:
            norm.momentum = 1 / (done + 1)  # torch's None, a mean over all batches, isn't known to every backend
        model(batch)
    mark_changed(model.buffers())
    model.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def settle_statistics(model: ASCSeg, batches: Batches, count: int) -> None:
    """Set the running values to those of images as they are, or of augmented ones: whichever suits the weights.

    Those of images as they are fit what finished weights will see. But of few images that look alike they vary
    next to nothing, unlike anything in training, and the network overshoots on any other image. So the loss on
    images as they are decides.

    count  batches of each kind
    """
    recompute_statistics(model, (images for images, _ in batches.plain(count)))
    loss, kept = _mean_loss(model, batches, count), [buffer.clone() for buffer in model.buffers()]
    recompute_statistics(model, batches.typical(count))
    if not _mean_loss(model, batches, count) < loss:
        for buffer, value in zip(model.buffers(), kept):
            buffer.copy_(value)


@torch.no_grad()
def _mean_loss(model: ASCSeg, batches: Batches, count: int) -> float:
    some = max(2, count // _JUDGED)
    losses = [segmentation_loss(model.low_logits(x), targets) for x, targets in batches.plain(some)]
    mean = torch.stack(losses).mean()
    batches.team.add_up([mean])
    return float(mean)
