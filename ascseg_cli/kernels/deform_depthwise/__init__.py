"""The depthwise deformable convolution: arguments checked, backend picked."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.chain import Chain, chain
from ascseg_cli.kernels.shared_norm import are_shared

__all__ = ["deform_by", "deform_depthwise"]


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Depthwise 3×3 convolution whose taps are moved by learnt offsets.

    y[c, p] = sum over taps k of weight[c, k] · bilinear(x[c], p + tap[k] + offset[k, p]); each of the four
    neighbours of a sample that lies outside x counts as zero.

    x       (b, c, h, w)
    offset  (b, 18, h, w)  pixels; channel 2k is the row shift of tap k (row-major), 2k + 1 its column shift
    weight  (c, 1, 3, 3)
    returns (b, c, h, w)   x's dtype
    Raises ShapeError, BackendError. Source: Dai et al. 2017, eq. 2, one offset group, no modulation.
    """
    _check(x, offset, weight)
    module = importlib.import_module(f"{__name__}.{backend.for_operator('deform_depthwise', x)}")
    return module.deform_depthwise(x, offset, weight)


def deform_by(x: Tensor, steps: Chain, weight: Tensor) -> Tensor:
    """`deform_depthwise(x, chain(x, steps), weight)`; a backend may keep the offsets unnormalised in between."""
    name = backend.for_operator("deform_depthwise", x)
    if (
        name == "gpu"
        and (torch.is_grad_enabled() or any(norm.training for norm in steps.norms))
        and not are_shared(steps.norms)
    ):
        return importlib.import_module(f"{__name__}.gpu").deform_by(x, steps, weight)
    return deform_depthwise(x, chain(x, steps), weight)


def _check(x: Tensor, offset: Tensor, weight: Tensor) -> None:
    if x.dim() != 4:
        raise ShapeError(f"x is {tuple(x.shape)}; it must be (b, c, h, w)")
    b, c, h, w = x.shape
    for name, tensor, shape in (("offset", offset, (b, 18, h, w)), ("weight", weight, (c, 1, 3, 3))):
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} is {tuple(tensor.shape)}; with x {tuple(x.shape)} it must be {shape}")
        if tensor.device != x.device or tensor.dtype != x.dtype:
            raise ShapeError(f"{name} is {tensor.dtype} on {tensor.device}; x is {x.dtype} on {x.device}")
