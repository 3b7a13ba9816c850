"""Depthwise and grouped convolutions on the GPU for training, between batch norms that are never applied alone.

Every output channel has input channels of its own, so there is little arithmetic: the kernels are made to read
each number once, and to give all gradients from one reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import (
    Normalisation,
    Running,
    norm_gradients,
    partial_sums,
    statistics_from,
)
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.cuda.pixels import new_pixels, pitch, pixels, together

_HERE = Path(__file__).parent
_ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}
_BLOCKS = 120  # about as many as a large GPU has multiprocessors
_TY = 4  # threads of a block below each other

Norm = tuple[Tensor | None, Tensor | None, Tensor | None]
Gradients = tuple[Tensor | None, ...]


def grouped(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    norm: Normalisation | None = None,
    activation: str = "none",
    batch: bool = False,
    running: Running | None = None,
) -> tuple[Tensor, Tensor | None]:
    """y = conv(activation(normalised x)) + bias with a group for each output channel; and the statistics of y.

    Channel o of y sees channels g·o .. g·o + g − 1 of x. Stride 1, size kept, dilation 1.

    x           (b, g·co, h, w)  float32; channels-last, perhaps a slice of more channels, else it is copied
    weight      (co, g, k, k)    k odd, 7 at most; g = 1 (depthwise) to 4
    bias        (co,) or None    with `batch` its gradient is zero: a norm that follows takes any constant away
    norm        of x, with its statistics; None: x is taken as it is
    activation  "none", "relu" or "gelu", after the norm; the padding is zero after it
    running     the norm that follows; moved in place, if `batch`
    returns (b, co, h, w) channels-last; (2, co) mean and biased variance if `batch`, else None
    Raises ShapeError.
    """
    _check(x, weight)
    given = (norm.statistics, norm.weight, norm.bias) if norm else (None, None, None)
    layer = _Layer(activation, norm is not None, norm.eps if norm else 0.0, batch)
    return _Grouped.apply(x, weight, bias, *given, layer, running)


def _check(x: Tensor, weight: Tensor) -> None:
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32", "use --backend auto")
    co, g, k, across = weight.shape
    if not (1 <= g <= 4 and k == across and k in (1, 3, 5, 7)):
        raise ShapeError(f"weight is {tuple(weight.shape)}; it must be (co, 1 to 4, k, k), k = 1, 3, 5 or 7")
    if x.dim() != 4 or x.shape[1] != g * co:
        raise ShapeError(
            f"x is {tuple(x.shape)}; with weight {tuple(weight.shape)} it must be (b, {g * co}, h, w)"
        )


@dataclass(frozen=True)
class _Layer:
    """What a layer is, beside its tensors."""

    activation: str
    normed: bool
    eps: float
    batch: bool


@dataclass(frozen=True)
class _Plan:
    """How a convolution is cut; `grouped.cuh` says what a unit is."""

    b: int
    h: int
    w: int
    co: int
    g: int
    k: int

    @classmethod
    def of(cls, x: Tensor, weight: Tensor) -> _Plan:
        b, _, h, w = x.shape
        return cls(b, h, w, *weight.shape[:3])

    @property
    def units(self) -> int:
        """Units of a block: two of four channels, as many as memory reads at a time, or eight outputs."""
        if self.g == 1:
            return 1 if self.co <= 4 else 2
        return next(units for units in (1, 2, 4, 8) if units >= min(self.co, 8))

    @property
    def columns(self) -> int:
        columns = min(64 // self.units, 32)
        while columns > 8 and columns >= 2 * self.w:
            columns //= 2
        return columns

    @property
    def groups(self) -> int:
        """Blocks that share the channels."""
        return -(-(-(-self.co // 4) if self.g == 1 else self.co) // self.units)

    @property
    def pixels(self) -> int:
        """Of a thread, below each other: as many as leave work for the whole GPU."""
        for each in (8, 4, 2):
            if self._tiles(each) * self.groups >= _BLOCKS and _TY * each < 2 * self.h:
                return each
        return 1

    @property
    def tiles(self) -> int:
        return self._tiles(self.pixels)

    def _tiles(self, each: int) -> int:
        return self.b * -(-self.w // self.columns) * -(-self.h // (_TY * each))

    @property
    def threads(self) -> int:
        return self.units * self.columns * _TY

    @property
    def halo_tile(self) -> int:
        """Units in a tile with its halo."""
        return (_TY * self.pixels + self.k - 1) * (self.columns + self.k - 1) * self.units

    def constants(self) -> dict[str, int]:
        return {"K": self.k, "G": self.g, "UNITS": self.units, "TX": self.columns, "S": self.pixels}

    def shared(self) -> int:
        """Bytes for the forward kernel."""
        outs = 4 if self.g == 1 else 1
        return max(16 * (self.halo_tile + self.k**2 * self.units), 8 * outs * self.threads)

    def gradient_shared(self, numbers: int, summed: bool) -> int:
        """Bytes for the backward kernel, in which `numbers` are summed up for every channel of x."""
        tile = 16 * self.halo_tile if self.g == 1 else 16 * -(-self.halo_tile // 4)
        inputs = 16 * _TY * self.pixels * self.columns * self.units
        weight_sums = 4 * numbers * 4 * self.units * -(-self.threads // 32)
        first = 16 * self.k**2 * self.units + (32 * self.threads if summed else 0)
        return first + max(tile + inputs, weight_sums)


class _Grouped(torch.autograd.Function):
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
    def backward(ctx: Any, dy: Tensor | None, dstatistics: Tensor | None) -> Gradients:
        if dy is None and dstatistics is None:
            return (None,) * 8
        x, weight, statistics, norm_weight, norm_bias, y, own = ctx.saved_tensors
        norm, needs = (statistics, norm_weight, norm_bias), ctx.needs_input_grad
        incoming = _Incoming(None if dy is None else pixels(dy), y, own, dstatistics)
        biased = needs[2] and not ctx.layer.batch
        dx, dnorm, dweight, dbias = _gradients(incoming, x, weight, norm, ctx.layer, _Wanted(needs, biased))
        if needs[2] and ctx.layer.batch:
            dbias = weight.new_zeros(weight.shape[0])
        return dx, dweight, dbias, *dnorm, None, None


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm, layer: _Layer, running: Running | None
) -> tuple[Tensor, Tensor | None]:
    plan, co = _Plan.of(x, weight), weight.shape[0]
    y = new_pixels(x, co)
    partials = partial_sums(x, plan.tiles, co) if layer.batch else None
    constants = {
        "ACTIVATION": _ACTIVATIONS[layer.activation],
        "NORMED": int(layer.normed),
        "BATCH": int(layer.batch),
    }
    constants |= {"X_VEC": together(x), "Y_VEC": 4 if co % 4 == 0 else 1}
    run = kernel(_HERE / "grouped.cu", "grouped", **plan.constants(), **constants)
    given = (x, pitch(x), *norm, float(layer.eps), weight, bias, y, partials, plan.h, plan.w, co)
    run((plan.tiles, plan.groups), plan.threads, *given, shared=plan.shared())
    if partials is None:
        return y, None
    if not y.numel():
        partials.zero_()
    count = plan.b * plan.h * plan.w
    return y, statistics_from(partials, count, bias, running if count else None)


@dataclass(frozen=True)
class _Incoming:
    """Gradients of y and of its statistics, and both themselves if there are statistics."""

    dy: Tensor | None
    y: Tensor | None
    statistics: Tensor | None
    dstatistics: Tensor | None


class _Wanted:
    """Which gradients are."""

    def __init__(self, needs: tuple[bool, ...], biased: bool) -> None:
        self.x, self.norm, self.bias = needs[0], any(needs[3:6]), biased
        self.weight = needs[1] or biased


def _gradients(
    incoming: _Incoming, x: Tensor, weight: Tensor, norm: Norm, layer: _Layer, wanted: _Wanted
) -> tuple[Tensor | None, Gradients, Tensor | None, Tensor | None]:
    """Those of x, of the norm (statistics, weight, bias), of the weights and the bias."""
    plan, ci, (co, _, k, _) = _Plan.of(x, weight), x.shape[1], weight.shape
    numbers = k * k + wanted.bias
    dx = new_pixels(x, ci) if wanted.x else None
    norm_sums = partial_sums(x, plan.tiles, ci) if wanted.norm else None
    weight_sums = x.new_empty(plan.tiles, ci * numbers, dtype=torch.float64) if wanted.weight else None
    dy, corrected = incoming.dy, incoming.dstatistics is not None
    constants = {
        "ACTIVATION": _ACTIVATIONS[layer.activation],
        "NORMED": int(layer.normed),
        "BATCH": int(corrected),
    }
    constants |= {"WANT_X": int(wanted.x or wanted.norm), "WANT_W": int(wanted.weight), "BIASED": int(wanted.bias)}
    constants |= {"SUMMED": int(wanted.norm), "X_VEC": together(x), "DX_VEC": 4 if ci % 4 == 0 else 1}
    constants |= {"DY_VEC": 1 if dy is None else together(dy), "Y_VEC": 4 if co % 4 == 0 else 1}
    run = kernel(_HERE / "grouped_gradient.cu", "grouped_gradient", **plan.constants(), **constants)
    given = (dy, 0 if dy is None else pitch(dy), incoming.y, incoming.statistics, incoming.dstatistics)
    outputs = (dx, norm_sums, weight_sums, plan.h, plan.w, co)
    count = float(plan.b * plan.h * plan.w)
    arguments = (*given, count, weight, x, pitch(x), *norm, float(layer.eps), *outputs)
    shared = plan.gradient_shared(numbers, wanted.norm)
    run((plan.tiles, plan.groups), plan.threads, *arguments, shared=shared)
    dweight, dbias = _weight_gradients(weight_sums, weight, wanted.bias)
    return dx, _norm_gradients(norm_sums, norm, layer, x), dweight, dbias


def _norm_gradients(sums: Tensor | None, norm: Norm, layer: _Layer, x: Tensor) -> Gradients:
    statistics, weight, bias = norm
    if sums is None or statistics is None or weight is None or bias is None:
        return None, None, None
    if not x.numel():
        sums.zero_()
    return norm_gradients(sums, Normalisation(statistics, weight, bias, layer.eps))


def _weight_gradients(sums: Tensor | None, weight: Tensor, biased: bool) -> tuple[Tensor | None, Tensor | None]:
    if sums is None:
        return None, None
    (co, g, k, _), blocks = weight.shape, sums.shape[0]
    dweight, dbias = torch.empty_like(weight), weight.new_empty(co) if biased else None
    finish = kernel(_HERE / "grouped_finish.cu", "finish_weights")
    numbers = -(-sums.shape[1] // 32)
    finish((numbers,), 1024, sums, blocks, co * g, k * k, g, int(biased), dweight, dbias, shared=1024 * 8)
    return dweight, dbias
