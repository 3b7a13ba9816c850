"""Dense convolutions on the GPU for training, between batch norms that are never applied on their own.

A layer normalises and activates its input while loading it, and gives the next one the statistics of its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.kernels.chain.layers import pointwise
from ascseg_cli.kernels.chain.layers.dense_plan import Plan, Shape, tile_plan, weight_plan
from ascseg_cli.kernels.chain.layers.norm import (
    Normalisation,
    Running,
    layer_gradients,
    partial_sums,
    statistics_from,
)
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.cuda.pixels import new_pixels, pitch, pixels, together

_HERE = Path(__file__).parent
_ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}


def dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    dilation: int = 1,
    norm: Normalisation | None = None,
    activation: str = "none",
    batch: bool = False,
    running: Running | None = None,
) -> tuple[Tensor, Tensor | None]:
    """y = conv(activation(normalised x)) + bias, stride 1, size kept; and the statistics of y, if wanted.

    x           (b, ci, h, w)    float32; channels-last, perhaps a slice of more channels, else it is copied
    weight      (co, ci, k, k)   k = 1, 3, 5 or 7; taps `dilation` (1 to 4) apart
    bias        (co,) or None    with `batch` its gradient is zero: a norm that follows takes any constant away
    norm        of x, with its statistics; None: x is taken as it is
    activation  "none", "relu" or "gelu", after the norm; the padding is zero after it
    running     the norm that follows; moved in place, if `batch`
    returns (b, co, h, w) channels-last; (2, co) mean and biased variance if `batch`, else None
    """
    layer = _Layer(dilation, _ACTIVATIONS[activation], norm is not None, norm.eps if norm else 0.0, batch)
    given = (norm.statistics, norm.weight, norm.bias) if norm else (None, None, None)
    return _Dense.apply(x, weight, bias, *given, layer, running)


@dataclass(frozen=True)
class _Layer:
    """What a layer is, beside its tensors."""

    dilation: int
    activation: int
    normed: bool
    eps: float
    batch: bool

    def constants(self) -> dict[str, int]:
        return {"ACTIVATION": self.activation, "NORMED": int(self.normed)}

    def shape(self, x: Tensor, weight: Tensor) -> Shape:
        (b, ci, h, w), (co, _, k, _) = x.shape, weight.shape
        return Shape(b, h, w, ci, co, k, self.dilation if k > 1 else 1).flat()


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        statistics: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        layer: _Layer,
        running: Running | None,
    ) -> tuple[Tensor, Tensor | None]:
        x, weight = pixels(x), weight.contiguous()
        norm = (statistics, norm_weight, norm_bias)
        y, own = _forward(x, weight, bias, norm, layer, running)
        ctx.layer = layer
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *norm, *((y, own) if layer.batch else (None, None)))
        return y, own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstatistics: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, statistics, norm_weight, norm_bias, y, own = ctx.saved_tensors
        if dy is None and dstatistics is None:
            return (None,) * 8
        layer, needs, norm = ctx.layer, ctx.needs_input_grad, (statistics, norm_weight, norm_bias)
        out = _Output.of(dy, dstatistics, y, own, x)
        shape = layer.shape(x, weight)
        if pointwise.suits(shape.ci, shape.co, shape.k, together(x), out.vec()):
            return *_all_gradients(out, x, weight, norm, layer, needs), None, None
        dx, partials = None, None
        if needs[0] or any(needs[3:6]):
            dx, partials = _input_gradient(out, x, weight, norm, layer, any(needs[3:6]))
        slabs = _weight_gradient(out, x, weight, norm, layer, needs[2] and not layer.batch)
        return *_finished(partials, slabs, dx, weight, norm, layer, needs), None, None


_Norm = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class _Output:
    """The gradients of a layer's raw result z and of its statistics; both themselves if the latter has one."""

    dy: Tensor
    z: Tensor | None
    statistics: Tensor | None
    dstatistics: Tensor | None

    @classmethod
    def of(cls, dy: Tensor | None, dstatistics: Tensor | None, z: Tensor, own: Tensor, x: Tensor) -> _Output:
        dy = torch.zeros_like(z) if dy is None else pixels(dy)
        if dstatistics is None:
            return cls(dy, None, None, None)
        return cls(dy, z, own, dstatistics.contiguous())

    def vec(self) -> int:
        return min(together(self.dy), 4 if self.z is None else together(self.z))


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: _Norm, layer: _Layer, running: Running | None
) -> tuple[Tensor, Tensor | None]:
    shape = layer.shape(x, weight)
    y = new_pixels(x, shape.co)
    constants = layer.constants() | {"BATCH": int(layer.batch)}
    if pointwise.suits(shape.ci, shape.co, shape.k, together(x), together(y)):
        pixel_count = shape.b * shape.h * shape.w
        launch = pointwise.forward_launch(pixel_count, shape.ci, shape.co)
        partials = partial_sums(x, launch.blocks, shape.co) if layer.batch else None
        given = (x, pitch(x), *norm, layer.eps, weight, bias, y, partials, pixel_count)
        pointwise.forward(launch, constants | {"CI": shape.ci, "CO": shape.co}, *given)
    else:
        plan = tile_plan(shape, together(x))
        partials = partial_sums(x, plan.grid[0], shape.co) if layer.batch else None
        run = _launch("dense.cu", "dense_forward", plan, constants)
        run(x, pitch(x), *norm, layer.eps, weight, bias, y, partials, shape.h, shape.w)
    if partials is None:
        return y, None
    if y.numel() == 0:
        return y, x.new_zeros(2, shape.co)
    return y, statistics_from(partials, y.numel() // shape.co, bias, running)


def _all_gradients(
    out: _Output, x: Tensor, weight: Tensor, norm: _Norm, layer: _Layer, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight, bias, and the norm's statistics, weight and bias, in one pass."""
    shape = layer.shape(x, weight)
    count, biased = shape.b * shape.h * shape.w, needs[2] and not layer.batch
    launch = pointwise.backward_launch(count, shape.ci, shape.co)
    dx = new_pixels(x, shape.ci) if needs[0] else None
    summed = layer.normed and any(needs[3:6])
    partials = partial_sums(x, launch.blocks, shape.ci) if summed else None
    slabs = x.new_empty(launch.blocks, weight.numel() + (shape.co if biased else 0))
    flags = {"BATCH": int(out.z is not None), "SUMMED": int(summed), "BIASED": int(biased)}
    constants = layer.constants() | flags | {"CI": shape.ci, "CO": shape.co}
    given = (out.dy, pitch(out.dy), out.z, out.statistics, out.dstatistics, float(count), weight, x, pitch(x))
    pointwise.backward(launch, constants, *given, *norm, layer.eps, dx, partials, slabs, count)
    return _finished(partials, slabs, dx, weight, norm, layer, needs)


def _finished(
    partials: Tensor | None,
    slabs: Tensor,
    dx: Tensor | None,
    weight: Tensor,
    norm: _Norm,
    layer: _Layer,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight, bias, and the norm's statistics, weight and bias, from sums of all blocks."""
    statistics, norm_weight, norm_bias = norm
    normalisation = None
    if statistics is not None and norm_weight is not None and norm_bias is not None:
        normalisation = Normalisation(statistics, norm_weight, norm_bias, layer.eps)
    n = weight.numel()
    sums, dnorm = layer_gradients(partials, normalisation, slabs, n + len(weight) - slabs.shape[1])
    given = (dx, sums[:n].view_as(weight), sums[n:], *dnorm)
    return tuple(g if need else None for g, need in zip(given, needs, strict=False))


def _input_gradient(
    out: _Output, x: Tensor, weight: Tensor, norm: _Norm, layer: _Layer, summed: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, and every block's sums for the norm's gradients, if `summed`."""
    shape = layer.shape(x, weight)
    dx = new_pixels(x, shape.ci)
    plan = tile_plan(shape.transposed(), out.vec())
    partials = partial_sums(x, plan.grid[0], shape.ci) if summed else None
    constants = {"BATCH": int(out.z is not None), "SUMMED": int(summed), "X_VEC": together(x)}
    gradient = _launch("dense_input.cu", "dense_input_gradient", plan, layer.constants() | constants)
    given = (out.dy, pitch(out.dy), out.z, out.statistics, out.dstatistics, float(shape.b * shape.h * shape.w))
    gradient(*given, weight, x, pitch(x), *norm, layer.eps, dx, partials, shape.h, shape.w)
    if partials is not None and x.numel() == 0:
        partials.zero_()
    return dx, partials


def _weight_gradient(out: _Output, x: Tensor, weight: Tensor, norm: _Norm, layer: _Layer, biased: bool) -> Tensor:
    """Every slab's share of the gradient of the weights, and behind it of the bias if `biased`."""
    shape = layer.shape(x, weight)
    plan = weight_plan(shape, together(x), out.vec())
    slabs, count = plan.grid[0], weight.numel() + (shape.co if biased else 0)
    partials = x.new_empty(slabs, count)
    constants = {"BATCH": int(out.z is not None), "BIASED": int(biased)}
    gradient = _launch("dense_weight.cu", "dense_weight_gradient", plan, layer.constants() | constants)
    given = (out.dy, pitch(out.dy), out.z, out.statistics, out.dstatistics, float(shape.b * shape.h * shape.w))
    gradient(x, pitch(x), *norm, layer.eps, *given, partials, shape.b, shape.h, shape.w)
    return partials


def _launch(source: str, name: str, plan: Plan, constants: dict[str, int]) -> Any:
    compiled = kernel(_HERE / source, name, **plan.constants, **constants)

    def run(*arguments: Tensor | int | float | None) -> None:
        compiled(plan.grid, plan.block, *arguments, shared=plan.shared)

    return run
