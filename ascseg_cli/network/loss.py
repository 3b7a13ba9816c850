"""The training loss: binary cross-entropy and soft Dice at each of the four heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.segmentation_loss import reference, segmentation_loss

__all__ = ["deep_supervision_loss", "head_loss", "segmentation_loss"]


def deep_supervision_loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Σ over heads of ½·BCE + ½·(1 − mean over images of (2·Σpt + 1)/(Σp + Σt + 1)).

    BCE is the mean over all pixels of the batch, its logarithms not below −100; the sums run over one image.
    Training takes `segmentation_loss` of the network's `low_logits`: the same without enlarged maps.

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
    return reference.head_loss(logits, target)
