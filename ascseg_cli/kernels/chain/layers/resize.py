"""On the GPU: images doubled, halved and pooled, with the norm and activation before them, for training.

Every operator has the same two kernels (`resize.cu`), and takes and gives the same things:

    x           (b, c, h, w)
    norm        how x is to be normalised first, or None
    activation  what follows that: none, relu, gelu or sigmoid
    batch       whether statistics (2, c) of the result are wanted, for a batch norm that follows
    running     that batch norm's running values, moved in place
    returns     (b, c, h', w'), channels-last, and statistics or None
    Raises ShapeError.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, autograd
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
    float32,
    fresh,
    norm_arguments,
    norm_of,
    norm_parts,
    width,
)
from ascseg_cli.kernels.cuda import kernel

_SOURCE = Path(__file__).with_name("resize.cu")
_OPERATIONS = {"doubled": 0, "halved": 1, "pooled_mean": 2, "pooled_max": 3, "high_passed": 4}  # as in resize.cu
_Result = tuple[Tensor, Tensor | None]
_Gradients = tuple[Tensor | None, ...]


def doubled(x: Tensor, norm: Normalisation | None = None, activation: str = "none", **ways: Any) -> _Result:
    """x at twice its size, bilinear, the corners kept (align_corners)."""
    return _apply("doubled", x, norm, activation, **ways)


def halved(x: Tensor, norm: Normalisation | None = None, activation: str = "none", **ways: Any) -> _Result:
    """The largest of each 2 × 2 pixels; an odd last row or column is dropped."""
    return _apply("halved", x, norm, activation, **ways)


def pooled_mean(x: Tensor, norm: Normalisation | None = None, activation: str = "none", **ways: Any) -> _Result:
    """The mean of the 3 × 3 pixels about each, of which those outside count as zeros."""
    return _apply("pooled_mean", x, norm, activation, **ways)


def pooled_max(x: Tensor, norm: Normalisation | None = None, activation: str = "none", **ways: Any) -> _Result:
    """The largest of the 3 × 3 pixels about each."""
    return _apply("pooled_max", x, norm, activation, **ways)


def high_passed(x: Tensor, norm: Normalisation | None = None, activation: str = "none", **ways: Any) -> _Result:
    """x, normalised and activated, less its `pooled_mean`."""
    return _apply("high_passed", x, norm, activation, **ways)


@dataclass(frozen=True)
class _Settings:
    operation: str
    activation: str
    batch: bool
    eps: float
    running: Running | None

    def constants(self, vec: int, backward: bool, sums: bool) -> dict[str, int]:
        ways = {"OPERATION": _OPERATIONS[self.operation], "ACTIVATION": ACTIVATIONS[self.activation]}
        flags = {"BATCH": self.batch, "BACKWARD": backward, "SUMS": sums}
        flags["LOADS"] = sums or self.activation != "none"
        return {"VEC": vec, **ways} | {name: int(flag) for name, flag in flags.items()}

    def size(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        if self.operation == "doubled":
            return 2 * h, 2 * w
        return (h // 2, w // 2) if self.operation == "halved" else (h, w)

    def gathered(self, h: int, w: int) -> int:
        """What the threads of the backward kernel share out: pixels of x, or windows."""
        return -(-h // 2) * -(-w // 2) if self.operation == "halved" else h * w


def _apply(
    operation: str,
    x: Tensor,
    norm: Normalisation | None,
    activation: str,
    batch: bool = False,
    running: Running | None = None,
) -> _Result:
    float32(x)
    if operation == "halved" and min(x.shape[2:]) < 2:
        raise ShapeError(f"x is {tuple(x.shape)}; an image to be halved needs 2 × 2 pixels or more")
    *parts, eps = norm_parts(norm)
    y, statistics = _Resized.apply(_Settings(operation, activation, batch, eps, running), x, *parts)
    return y, statistics


class _Resized(autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        settings: _Settings,
        x: Tensor,
        statistics: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> _Result:
        image, norm = Pixels.of(x), norm_of(statistics, weight, bias, settings.eps)
        wanted = settings.operation == "pooled_max" and any(ctx.needs_input_grad)
        b, c, h, w = x.shape
        choices = x.new_empty(b, h, w, c, dtype=torch.uint8) if wanted else None
        y, result = _forward(settings, image, norm, choices)
        ctx.set_materialize_grads(False)
        ctx.settings = replace(settings, running=None)
        kept = (y, result) if settings.batch else (None, None)
        ctx.save_for_backward(image.tensor, *norm_parts(norm)[:3], *kept, choices)
        return y, result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstatistics: Tensor | None) -> _Gradients:
        if dy is None and dstatistics is None:
            return (None,) * 5
        x, statistics, weight, bias, *kept, choices = ctx.saved_tensors
        settings = replace(ctx.settings, batch=dstatistics is not None)
        norm, of = norm_of(statistics, weight, bias, settings.eps), None if dy is None else Pixels.of(dy)
        given = (*kept, None if dstatistics is None else dstatistics.contiguous())
        return None, *_backward(settings, Pixels.of(x), norm, of, given, choices, ctx.needs_input_grad[1:])


def _forward(settings: _Settings, image: Pixels, norm: Normalisation | None, choices: Tensor | None) -> _Result:
    """The result and its statistics; choices (b, h, w, c) get what each window of `pooled_max` chose."""
    x, batch = image.tensor, settings.batch
    b, c, h, w = x.shape
    rows, columns = settings.size(h, w)
    launch = Launch(b, rows * columns, c, width(image))
    y = fresh(x, b, c, rows, columns)
    partials = partial_sums(x, launch.rows, c) if batch else None
    pivot = x.new_empty(c) if batch else None
    run = kernel(_SOURCE, "resize_forward", **settings.constants(launch.vec, backward=False, sums=False))
    given = (x, image.pitch, *norm_arguments(norm), y, choices, c, h, w, rows, columns, partials, pivot)
    run(launch.grid, launch.threads, *given, shared=launch.scratch)
    if partials is None:
        return y, None
    count = b * launch.pixels
    return y, statistics_from(partials[: launch.rows], count, pivot, settings.running if count else None)


def _backward(
    settings: _Settings,
    image: Pixels,
    norm: Normalisation | None,
    dy: Pixels | None,
    result: _Gradients,
    choices: Tensor | None,
    wanted: tuple[bool, ...],
) -> _Gradients:
    """Gradients of x, statistics, weight and bias; result: y, its statistics and their gradient."""
    x = image.tensor
    b, c, h, w = x.shape
    rows, columns = settings.size(h, w)
    launch = Launch(b, settings.gathered(h, w), c, width(image, dy))
    dx = fresh(x, b, c, h, w) if wanted[0] else None
    partials = partial_sums(x, launch.rows, c) if any(wanted[1:]) else None
    run = kernel(_SOURCE, "resize_backward", **settings.constants(launch.vec, True, partials is not None))
    of = (dy.tensor, dy.pitch) if dy else (None, 0)
    given = (*of, *result, float(max(b * rows * columns, 1)), choices, x, image.pitch, *norm_arguments(norm))
    run(launch.grid, launch.threads, *given, dx, c, h, w, rows, columns, partials, shared=launch.scratch)
    if partials is None or norm is None:
        return dx, None, None, None
    found = norm_gradients(partials[: launch.rows], norm)
    return dx, *(d if want else None for d, want in zip(found, wanted[1:]))
