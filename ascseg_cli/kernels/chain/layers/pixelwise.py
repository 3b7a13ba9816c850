"""On the GPU: normalise, activate, combine with other images and gather statistics, in one pass over memory.

Nothing of this is kept for the gradient but the operands: the backward pass computes the rest again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from ascseg_cli.kernels.chain.layers.pixels import (
    ACTIVATIONS,
    Launch,
    Pixels,
    finished,
    float32,
    fresh,
    norm_arguments,
    norm_of,
    norm_parts,
    width,
)
from ascseg_cli.kernels.cuda import Argument, kernel

_SOURCE = Path(__file__).with_name("pixelwise.cu")
_COMBINATIONS = {"none": 0, "gate": 1, "soft_gate": 2, "boost": 3}  # as in pixelwise.cu
_Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class _Settings:
    activation: str
    combine: str
    then: str
    batch: bool
    eps: float = 0.0
    running: Running | None = None

    def constants(self, vec: int, spread: bool, plus: bool, backward: bool, sums: bool) -> dict[str, int]:
        ways = {"ACTIVATION": ACTIVATIONS[self.activation], "THEN": ACTIVATIONS[self.then]}
        flags = {"SPREAD": spread, "PLUS": plus, "BATCH": self.batch, "BACKWARD": backward, "SUMS": sums}
        return {"VEC": vec, "COMBINE": _COMBINATIONS[self.combine], **ways} | {k: int(v) for k, v in flags.items()}


def applied(
    x: Tensor,
    *,
    norm: Normalisation | None = None,
    activation: str = "none",
    combine: str = "none",
    other: Tensor | None = None,
    plus: Tensor | None = None,
    then: str = "none",
    batch: bool = False,
    running: Running | None = None,
) -> tuple[Tensor, Tensor | None]:
    """y = then(combination of v and other, + plus), where v = activation(normalised x); and y's statistics.

    x           (b, c, h, w); or (b, 1, h, w) against c channels of other
    activation  none, relu, gelu or sigmoid
    combine     none: v · add: v + o · gate: v·o + o · soft_gate: v·σ(o) + o · boost: o·v + v
    other       o, (b, c, h, w); for boost (b, c, 1, 1)
    plus        (b, c, h, w) or None; not with add
    then        none, relu or sigmoid
    batch       whether statistics (2, c) of y are wanted, for a batch norm that follows
    running     that batch norm's running values, moved in place
    returns     y (b, c, h, w), channels-last, and statistics or None
    Raises ShapeError.
    """
    if combine == "add":
        combine, other, plus = "none", None, other
    _check(x, combine, other, plus)
    *parts, eps = norm_parts(norm)
    settings = _Settings(activation, combine, then, batch, eps, running)
    y, statistics = _Applied.apply(settings, x, *parts, other, plus)
    return y, statistics


def _check(x: Tensor, combine: str, other: Tensor | None, plus: Tensor | None) -> None:
    float32(x, other, plus)
    b, c, h, w = x.shape
    if (other is None) != (combine == "none"):
        raise ShapeError("other must be given for every combination, and only for one")
    if other is not None:
        size = (1, 1) if combine == "boost" else (h, w)
        c = other.shape[1] if c == 1 else c
        if other.shape != (b, c, *size):
            raise ShapeError(f"other is {tuple(other.shape)}; with x {tuple(x.shape)} it must be {(b, c, *size)}")
    elif plus is not None and c == 1:
        c = plus.shape[1]
    if plus is not None and plus.shape != (b, c, h, w):
        raise ShapeError(f"an image to add is {tuple(plus.shape)}; it must be {(b, c, h, w)}")


def _arguments(image: Pixels | None) -> tuple[Argument, ...]:
    return (image.tensor, image.pitch) if image else (None, 0)


class _Work:
    """The operands of one call and how they are shared out."""

    def __init__(self, settings: _Settings, x: Tensor, other: Tensor | None, plus: Tensor | None) -> None:
        self.x, self.plus = Pixels.of(x), None if plus is None else Pixels.of(plus)
        self.other = None if other is None else Pixels.of(other)
        self.b, _, self.h, self.w = x.shape
        self.c = max(t.shape[1] for t in (x, other, plus) if t is not None)
        self.spread = x.shape[1] < self.c
        self.settings = settings

    @property
    def nothing_to_do(self) -> bool:
        """Whether the result is x itself, but for a norm; and x has no gaps, as results have none."""
        settings = self.settings
        still = settings.activation == settings.combine == settings.then == "none"
        return still and self.plus is None and settings.batch and self.x.pitch == self.c

    def launch(self, dy: Pixels | None = None) -> Launch:
        images = (None if self.spread else self.x, self.other, self.plus, dy)
        return Launch(self.b, self.h * self.w, self.c, width(*images) if self.c % 4 == 0 else 1)

    @property
    def images(self) -> tuple[Argument, ...]:
        return *_arguments(self.x), *_arguments(self.other), *_arguments(self.plus)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(None if p is None else p.tensor for p in (self.x, self.other, self.plus))


class _Applied(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        settings: _Settings,
        x: Tensor,
        statistics: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        other: Tensor | None,
        plus: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        work, norm = _Work(settings, x, other, plus), norm_of(statistics, weight, bias, settings.eps)
        y, result = _forward(work, norm)
        ctx.set_materialize_grads(False)
        ctx.settings = replace(settings, running=None)
        ctx.save_for_backward(*work.tensors, *norm_parts(norm)[:3], result)
        return y, result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstatistics: Tensor | None) -> _Gradients:
        if dy is None and dstatistics is None:
            return (None,) * 7
        x, other, plus, statistics, weight, bias, result = ctx.saved_tensors
        settings = replace(ctx.settings, batch=dstatistics is not None)
        work, norm = _Work(settings, x, other, plus), norm_of(statistics, weight, bias, settings.eps)
        backward = _Backward(work, norm, None if dy is None else Pixels.of(dy), ctx.needs_input_grad[1:])
        return None, *backward.gradients(result, dstatistics)


def _forward(work: _Work, norm: Normalisation | None) -> tuple[Tensor, Tensor | None]:
    settings, launch, x = work.settings, work.launch(), work.x.tensor
    batch = settings.batch
    measured = work.nothing_to_do and norm is None  # only statistics are wanted
    y = x.view_as(x) if measured else fresh(x, work.b, work.c, work.h, work.w)
    partials = partial_sums(x, launch.rows, work.c) if batch else None
    pivot = x.new_empty(work.c) if batch else None
    constants = settings.constants(launch.vec, work.spread, work.plus is not None, backward=False, sums=False)
    run = kernel(_SOURCE, "applied_forward", **constants)
    tail = (None if measured else y, work.c, launch.pixels, partials, pivot)
    run(launch.grid, launch.threads, *work.images, *norm_arguments(norm), *tail, shared=launch.scratch)
    if partials is None:
        return y, None
    count = work.b * work.h * work.w
    return y, statistics_from(partials[: launch.rows], count, pivot, settings.running if count else None)


class _Backward:
    """The gradients of one call; `wanted` are those of x, statistics, weight, bias, other and plus."""

    def __init__(
        self, work: _Work, norm: Normalisation | None, dy: Pixels | None, wanted: tuple[bool, ...]
    ) -> None:
        self.work, self.norm, self.dy, self.wanted = work, norm, dy, wanted
        settings = work.settings
        # whether dy is the gradient of `plus`, and whether that is the gradient of x
        self.passes = settings.then == "none" and not settings.batch
        self.same = norm is None and settings.activation == settings.combine == "none" and not work.spread

    def gradients(self, result: Tensor | None, dstatistics: Tensor | None) -> _Gradients:
        """Of x, statistics, weight, bias, other and plus."""
        if self.same and self.passes:
            assert self.dy is not None
            return self.dy.tensor, None, None, None, None, self.dy.tensor
        dx, dother, dresult = self._room()
        launch, norm = self.work.launch(self.dy), self.norm
        partials, shares = self._sums(launch)
        self._run(launch, (result, dstatistics), (dx, dother, dresult), (partials, shares))
        if shares is not None and self.wanted[4]:
            dother = finished(shares, self.work.b, launch.grid[0])[:, :, None, None]
        of_norm: _Gradients = (None, None, None)
        if partials is not None and norm is not None:
            found = norm_gradients(partials[: launch.rows], norm)
            of_norm = tuple(d if wanted else None for d, wanted in zip(found, self.wanted[1:4]))
        if self.passes and self.dy is not None:
            dresult = self.dy.tensor
        return dresult if self.same else dx, *of_norm, dother, dresult if self.wanted[5] else None

    def _room(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """For the gradients of x, other and what precedes `then`, where each is to be written."""
        work, x, whole = self.work, self.work.x.tensor, (self.work.b, self.work.c, self.work.h, self.work.w)
        result = not self.passes and (self.wanted[5] or (self.same and self.wanted[0]))
        return (
            fresh(x, *x.shape) if self.wanted[0] and not self.same else None,
            fresh(x, *whole) if self.wanted[4] and work.settings.combine != "boost" else None,
            fresh(x, *whole) if result else None,
        )

    def _sums(self, launch: Launch) -> tuple[Tensor | None, Tensor | None]:
        """For what blocks add up for the norm and for boost's other operand."""
        x, boost = self.work.x.tensor, self.work.settings.combine == "boost"
        partials = partial_sums(x, launch.rows, x.shape[1]) if any(self.wanted[1:4]) else None
        return partials, x.new_empty(launch.rows, launch.c, dtype=torch.float64) if boost else None

    def _run(
        self, launch: Launch, statistics: _Gradients, written: tuple[Tensor | None, ...], sums: _Gradients
    ) -> None:
        work, settings = self.work, self.work.settings
        needs_plus = work.plus is not None and not self.passes
        constants = settings.constants(launch.vec, work.spread, needs_plus, True, sums[0] is not None)
        result, dstatistics = statistics
        dstatistics = None if dstatistics is None else dstatistics.contiguous()
        run = kernel(_SOURCE, "applied_backward", **constants)
        images = (*_arguments(self.dy), *work.images, *norm_arguments(self.norm))
        count = float(max(work.b * launch.pixels, 1))
        tail = (result, dstatistics, count, *written, launch.c, launch.pixels, *sums)
        run(launch.grid, launch.threads, *images, *tail, shared=launch.scratch)
