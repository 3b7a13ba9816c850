"""Layer normalisation of an image's channels on the GPU; the backward pass computes mean and deviation again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.pixels import Launch, Pixels, finished, float32, fresh, width
from ascseg_cli.kernels.cuda import Argument, kernel

_SOURCE = Path(__file__).with_name("layernorm.cu")
_WARP, _EACH = 32, 8  # threads that may share a pixel; fours of channels for each, at most
_Gradients = tuple[Tensor | None, ...]


def layer_normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float, other: Tensor | None = None) -> Tensor:
    """y = (s − mean) / √(variance + eps) · weight + bias, s = x + other, moments over a pixel's channels.

    x             (b, c, h, w)
    weight, bias  (c,)
    other         (b, c, h, w) or None
    returns       (b, c, h, w), channels-last
    Raises ShapeError.
    """
    float32(x, weight, bias, other)
    if other is not None and other.shape != x.shape:
        raise ShapeError(f"other is {tuple(other.shape)}; it must be as x, {tuple(x.shape)}")
    if not weight.shape == bias.shape == (x.shape[1],):
        raise ShapeError(f"weight is {tuple(weight.shape)}, bias {tuple(bias.shape)}; x has {x.shape[1]} channels")
    y: Tensor = _LayerNormed.apply(x, weight, bias, other, eps)
    return y


class _Shares:
    """How the pixels of some images are shared out to threads."""

    def __init__(self, x: Pixels, *more: Pixels | None) -> None:
        b, self.c, h, w = x.tensor.shape
        self.vec = width(x, *more)
        units = self.c // self.vec
        self.lanes = min(units & -units, _WARP)  # so that no thread has fewer than another
        if self.vec == 1 or units > _EACH * self.lanes:
            self.lanes = min(1 << (units - 1).bit_length(), _WARP)
        self.launch = Launch(b, h * w, self.lanes * self.vec, self.vec)
        self.padded = -(-self.c // (self.lanes * self.vec)) * self.lanes * self.vec

    def constants(self, other: bool, backward: bool, sums: bool) -> dict[str, int]:
        flags = {"OTHER": int(other), "BACKWARD": int(backward), "SUMS": int(sums)}
        return {"C": self.c, "LANES": self.lanes, "VEC": self.vec} | flags


def _arguments(image: Pixels | None) -> tuple[Argument, ...]:
    return (image.tensor, image.pitch) if image else (None, 0)


class _LayerNormed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, eps: float) -> Tensor:
        image, more = Pixels.of(x), None if other is None else Pixels.of(other)
        weight, bias, eps = weight.contiguous(), bias.contiguous(), float(eps)
        shares, y = _Shares(image, more), fresh(x, *x.shape)
        launch = shares.launch
        run = kernel(_SOURCE, "layernorm_forward", **shares.constants(more is not None, False, False))
        given = (*_arguments(image), *_arguments(more), weight, bias, eps)
        run(launch.grid, launch.threads, *given, y, launch.pixels)
        ctx.eps = eps
        ctx.save_for_backward(image.tensor, None if more is None else more.tensor, weight)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None) -> _Gradients:
        if dy is None:
            return (None,) * 5
        x, other, weight = ctx.saved_tensors
        image, more = Pixels.of(x), None if other is None else Pixels.of(other)
        wants_x, *wanted, wants_other, _ = ctx.needs_input_grad
        dx = fresh(x, *x.shape) if wants_x or wants_other else None
        of_weight, of_bias = _run(image, more, weight, ctx.eps, Pixels.of(dy), dx, any(wanted))
        dother = dx if wants_other else None
        return (
            dx if wants_x else None,
            of_weight if wanted[0] else None,
            of_bias if wanted[1] else None,
            dother,
            None,
        )


def _run(
    image: Pixels, more: Pixels | None, weight: Tensor, eps: float, dy: Pixels, dx: Tensor | None, sums: bool
) -> _Gradients:
    """The backward kernel: writes dx, and gives the gradients of weight and bias if `sums`."""
    shares = _Shares(image, more, dy)
    launch, padded = shares.launch, shares.padded
    partials = weight.new_empty(launch.rows, 2 * padded, dtype=torch.float64) if sums else None
    run = kernel(_SOURCE, "layernorm_backward", **shares.constants(more is not None, True, sums))
    given = (*_arguments(dy), *_arguments(image), *_arguments(more), weight, eps, dx)
    run(launch.grid, launch.threads, *given, launch.pixels, partials, shared=launch.scratch)
    if partials is None:
        return None, None
    both = finished(partials, 1, launch.rows)[0]
    return both[: shares.c], both[padded : padded + shares.c]
