"""The depthwise deformable convolution on CUDA GPUs: how its kernels are cut and launched.

Gradients are the same to the bit in every run: see `deform_input.cu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain.layers.norm import Normalisation, norm_gradients
from ascseg_cli.kernels.chain.layers.run import unfinished
from ascseg_cli.kernels.cuda import Argument, kernel
from ascseg_cli.kernels.deform_depthwise import reference
from ascseg_cli.kernels.deform_depthwise.gpu_shares import SUM_THREADS, WARPS, Gathering, Pixels, Shares

_FOLDER = Path(__file__).parent
_Gradients = tuple[Tensor | None, ...]


def deform_depthwise(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_depthwise`. Float32; gradients are bit-equal in every run."""
    return deform(x, offset, weight)


def deform_by(x: Tensor, steps: Chain, weight: Tensor) -> Tensor:
    """See `kernels.deform_depthwise.deform_by`."""
    offset, norm = unfinished(x, steps)
    return deform(x, offset, weight, norm)


def deform(x: Tensor, offset: Tensor, weight: Tensor, offset_norm: Normalisation | None = None) -> Tensor:
    """`deform_depthwise` with offsets that may still have to be normalised.

    x            (b, c, h, w)    float32
    offset       (b, 18, h, w)
    weight       (c, 1, 3, 3)
    offset_norm  applied to offset first; its tensors get gradients too
    returns      (b, c, h, w)    channels-last
    Raises ShapeError.
    """
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32", "use --backend auto")
    norm = offset_norm
    if x.numel() == 0:
        return reference.deform_depthwise(x, offset if norm is None else _normalised(offset, norm), weight)
    parts = (None, None, None) if norm is None else (norm.statistics, norm.weight, norm.bias)
    return _Deform.apply(x, offset, weight, *parts, 0.0 if norm is None else norm.eps)


def _normalised(offset: Tensor, norm: Normalisation) -> Tensor:
    mean, variance = norm.statistics.view(2, 1, -1, 1, 1)
    scale, bias = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    return (offset - mean) * torch.rsqrt(variance + norm.eps) * scale + bias


@dataclass(frozen=True)
class _Operands:
    """What forward and backward read."""

    x: Pixels
    offset: Pixels
    weight: Tensor
    norm: Normalisation | None

    @property
    def norm_arguments(self) -> tuple[Argument, ...]:
        n = self.norm
        return (None, None, None, 0.0) if n is None else (n.statistics, n.weight, n.bias, float(n.eps))


class _Deform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offset: Tensor, weight: Tensor,
        statistics: Tensor | None, gamma: Tensor | None, beta: Tensor | None, eps: float,
    ) -> Tensor:  # fmt: skip
        operands = _operands(x, offset, weight, statistics, gamma, beta, eps)
        ctx.save_for_backward(operands.x.tensor, operands.offset.tensor, weight, statistics, gamma, beta)
        ctx.eps = eps
        return _forward(operands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> _Gradients:
        operands = _operands(*ctx.saved_tensors, ctx.eps)
        return (*_backward(operands, Pixels.of(dy), ctx.needs_input_grad), None)


def _operands(x: Tensor, offset: Tensor, weight: Tensor, *norm: Any) -> _Operands:
    known = None if norm[0] is None else Normalisation(*norm)
    return _Operands(Pixels.of(x), Pixels.of(offset), weight.contiguous(), known)


def _forward(operands: _Operands) -> Tensor:
    b, c, h, w = operands.x.shape
    shares = Shares.of(c, operands.x)
    run = kernel(_FOLDER / "deform.cu", "deform", **shares.constants, NORM=int(operands.norm is not None))
    y = operands.x.tensor.new_empty(b, h, w, c).permute(0, 3, 1, 2)
    grid = -(-h * w // (WARPS * shares.pixels)), shares.slices, b
    given = (*operands.x.arguments, *operands.offset.arguments, operands.weight, *operands.norm_arguments)
    run(grid, 32 * WARPS, *given, y, h, w, shared=shares.shared)
    return y


def _backward(operands: _Operands, dy: Pixels, wanted: tuple[bool, ...]) -> _Gradients:
    """The gradients of x, offset, weight, and of statistics, weight and bias of the normalisation."""
    b, c, h, w = operands.x.shape
    gathering = Gathering.of(b, c, h, w, dy)
    marks = dy.tensor.new_zeros(1 + b * gathering.tiles, dtype=torch.int64) if wanted[0] else None
    doffset, by_weight, by_norm = _at_the_source(operands, dy, marks, gathering)
    dx = _gathered(operands, dy, marks, gathering) if marks is not None else None
    of_norm: _Gradients = (None, None, None)
    if operands.norm is not None and any(wanted[3:6]):
        of_norm = norm_gradients(by_norm, operands.norm)
    return dx, doffset, by_weight.view(c, 1, 3, 3), *of_norm


def _at_the_source(
    operands: _Operands, dy: Pixels, marks: Tensor | None, gathering: Gathering
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of offset (b, 18, h, w) and weight (c · 9,), partial sums for the norm; fills the marks."""
    b, c, h, w = operands.x.shape
    shares = Shares.of(c, operands.x, dy)
    rounds = shares.rounds(b, h * w)
    blocks = -(-h * w // (WARPS * shares.pixels * rounds))
    like = dy.tensor
    doffset = like.new_empty(shares.slices, b, h, w, 18)
    by_weight = like.new_empty(b * blocks, c * 9, dtype=torch.float64)
    by_norm = like.new_empty(shares.slices * b * blocks, 2, 18, dtype=torch.float64)
    constants = shares.constants | gathering.tiling | {"NORM": int(operands.norm is not None)}
    run = kernel(_FOLDER / "deform_gradients.cu", "deform_gradients", **constants)
    given = (*dy.arguments, *operands.x.arguments, *operands.offset.arguments, operands.weight)
    results = (doffset, by_weight, by_norm, marks, h, w, rounds)
    grid = blocks, shares.slices, b
    run(grid, 32 * WARPS, *given, *operands.norm_arguments, *results, shared=shares.shared_for_sums)
    dweight = like.new_empty(c * 9)
    add = kernel(_FOLDER / "deform_gradients.cu", "add_rows", **constants)
    add((-(-c * 9 // 32),), SUM_THREADS, by_weight, b * blocks, c * 9, dweight, shared=8 * SUM_THREADS)
    total = doffset[0] if shares.slices == 1 else doffset.sum(0)
    return total.permute(0, 3, 1, 2), dweight, by_norm


def _gathered(operands: _Operands, dy: Pixels, marks: Tensor, gathering: Gathering) -> Tensor:
    """The gradient of x, from the samples that fall on each tile."""
    b, c, h, w = operands.x.shape
    flags = {"NORM": int(operands.norm is not None), "PAIRS": int(operands.offset.divisible(2))}
    run = kernel(_FOLDER / "deform_input.cu", "deform_input", **gathering.constants, **flags)
    dx = dy.tensor.new_empty(b, h, w, c).permute(0, 3, 1, 2)
    given = (*dy.arguments, *operands.offset.arguments, operands.weight, *operands.norm_arguments)
    grid = gathering.tiles, gathering.slices, b
    run(grid, gathering.threads, *given, marks, dx, h, w, shared=gathering.shared)
    return dx
