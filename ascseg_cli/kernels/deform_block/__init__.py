"""The second half of a deformable convolution block as one operator: arguments checked, backend picked."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.deform_block.folding import Folded

__all__ = ["Folded", "deform_block"]


def deform_block(
    p: Tensor,
    f: Tensor,
    m: Tensor | None,
    offset_weight: Tensor,
    offset_bias: Tensor,
    weight: Tensor,
    balance_weight: Tensor,
    balance_bias: Tensor,
) -> Tensor:
    """e = GELU(conv 1 (q)) · f + f + m, where q samples p at the offsets that conv 3 finds in p.

    p, f, m                       (b, c, h, w)                  float32 or bfloat16; m may be None
    offset_weight, offset_bias    (18, c, 3, 3), (18,)          float32; normalisations are folded in: see `Folded`
    weight                        (c, 1, 3, 3)                  of the deformable convolution
    balance_weight, balance_bias  (c, c, 1, 1), (c,)
    returns                       (b, c, h, w)                  p's dtype
    Raises ShapeError, BackendError. Sampling as in `deform_depthwise`.
    """
    weights = (offset_weight, offset_bias, weight, balance_weight, balance_bias)
    _check(p, f, m, *weights)
    name = "reference" if torch.is_grad_enabled() else backend.for_operator("deform_block", p, half=True)
    return importlib.import_module(f"{__name__}.{name}").deform_block(p, f, m, *weights)


def _check(p: Tensor, f: Tensor, m: Tensor | None, *weights: Tensor) -> None:
    if p.dim() != 4:
        raise ShapeError(f"p is {tuple(p.shape)}; it must be (b, c, h, w)")
    for name, image in (("f", f), ("m", p if m is None else m)):
        if image.shape != p.shape:
            raise ShapeError(f"{name} is {tuple(image.shape)}; it must be as p: {tuple(p.shape)}")
        if image.device != p.device or image.dtype != p.dtype:
            raise ShapeError(f"{name} is {image.dtype} on {image.device}; p is {p.dtype} on {p.device}")
    c = p.shape[1]
    shapes = [(18, c, 3, 3), (18,), (c, 1, 3, 3), (c, c, 1, 1), (c,)]
    names = ("offset_weight", "offset_bias", "weight", "balance_weight", "balance_bias")
    for name, tensor, shape in zip(names, weights, shapes):
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} is {tuple(tensor.shape)}; with p {tuple(p.shape)} it must be {shape}")
        if tensor.device != p.device:
            raise ShapeError(f"{name} is on {tensor.device}; p is on {p.device}")
