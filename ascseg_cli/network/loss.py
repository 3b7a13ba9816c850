"""The training loss: binary cross-entropy and soft Dice at each of the four heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.errors import ShapeError


def deep_supervision_loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Σ over heads of ½·BCE + ½·(1 − mean over images of (2·Σpt + 1)/(Σp + Σt + 1)).

    BCE is the mean over all pixels of the batch, its logarithms not below −100; the sums run over one image.

    logits  (b, 1, h, w) each
    target  (b, 1, h, w)  0..1, the logits' dtype
    returns a scalar
    Raises ShapeError. Source: the authors' training loss.
    """
    return torch.stack([head_loss(z, target) for z in logits]).sum()


def head_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of one head; shapes and errors as in `deep_supervision_loss`."""
    if logits.shape != target.shape:
        raise ShapeError(f"logits are {tuple(logits.shape)}, the target is {tuple(target.shape)}; they must agree")
    return 0.5 * _cross_entropy(logits, target) + 0.5 * _dice_loss(logits.sigmoid(), target)


def _cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    """From logits, since 1 − p has no digits left in float32 where p is near 1."""
    log_p = F.logsigmoid(z).clamp_min(-100)
    log_q = F.logsigmoid(-z).clamp_min(-100)
    return -(t * log_p + (1 - t) * log_q).mean()


def _dice_loss(p: Tensor, t: Tensor) -> Tensor:
    overlap, total = (p * t).sum((1, 2, 3)), p.sum((1, 2, 3)) + t.sum((1, 2, 3))
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()
