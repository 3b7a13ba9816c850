"""The training loss in plain torch: any device, any dtype, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(low: Sequence[Tensor], target: Tensor) -> Tensor:
    """See `kernels.segmentation_loss.segmentation_loss`."""
    return torch.stack([head_loss(_enlarged(z, target), target) for z in low]).sum()


def head_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of one head whose logits have the target's size."""
    return 0.5 * _cross_entropy(logits, target) + 0.5 * _dice_loss(logits.sigmoid(), target)


def _enlarged(z: Tensor, target: Tensor) -> Tensor:
    if z.shape == target.shape:
        return z
    return F.interpolate(z, target.shape[2:], mode="bilinear", align_corners=True)


def _cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    """From logits, since 1 − p has no digits left in float32 where p is near 1."""
    log_p = F.logsigmoid(z).clamp_min(-100)
    log_q = F.logsigmoid(-z).clamp_min(-100)
    return -(t * log_p + (1 - t) * log_q).mean()


def _dice_loss(p: Tensor, t: Tensor) -> Tensor:
    overlap, total = (p * t).sum((1, 2, 3)), p.sum((1, 2, 3)) + t.sum((1, 2, 3))
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()
