"""The training loss of logit maps that are smaller than the target: arguments checked, backend picked."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend

__all__ = ["segmentation_loss"]


def segmentation_loss(low: Sequence[Tensor], target: Tensor) -> Tensor:
    """Σ over heads of ½·BCE + ½·(1 − mean over images of (2·Σpt + 1)/(Σp + Σt + 1)), p = σ(z enlarged).

    A head's map z is enlarged to the target's size, bilinear with align_corners=True. BCE is the mean over all
    pixels of the batch, its logarithms not below −100; the sums run over one image.

    low     (b, 1, h/s, w/s) each, one to four, each with an s of its own
    target  (b, 1, h, w)     0..1, dtype of the maps; gets no gradient
    returns a scalar
    Raises ShapeError, BackendError. Source: the authors' training loss.
    """
    _check(low, target)
    module = importlib.import_module(f"{__name__}.{backend.for_operator('segmentation_loss', target)}")
    return module.segmentation_loss(low, target.detach())


def _check(low: Sequence[Tensor], target: Tensor) -> None:
    if target.dim() != 4 or target.shape[1] != 1:
        raise ShapeError(f"the target is {tuple(target.shape)}; it must be (b, 1, h, w)")
    if not 1 <= len(low) <= 4:
        raise ShapeError(f"{len(low)} logit maps were given; there must be one to four")
    b, _, h, w = target.shape
    for z in low:
        s = h // max(z.shape[2], 1) if z.dim() == 4 else 0
        if z.dim() != 4 or z.shape[:2] != (b, 1) or (z.shape[2] * s, z.shape[3] * s) != (h, w):
            raise ShapeError(
                f"logits are {tuple(z.shape)}, the target is {tuple(target.shape)}; "
                "both sides of an image must be the same whole number of times larger in the target"
            )
        if z.device != target.device or z.dtype != target.dtype:
            raise ShapeError(
                f"logits are {z.dtype} on {z.device}; the target is {target.dtype} on {target.device}"
            )
