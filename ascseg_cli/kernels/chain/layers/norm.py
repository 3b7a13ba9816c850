"""Batch normalisation between two layers on the GPU: what is passed along, and how sums over pixels are finished.

A layer gives its raw result and the statistics (2, c) of it; the next one normalises while it loads. Gradients
flow as those of raw result, statistics, weight and bias, so that no normalised image is ever stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.shared_norm import momentum_of

_SOURCE = Path(__file__).with_name("norm.cu")
_THREADS, _SCRATCH = 256, 256 // 32 * 2 * 8


_again: ContextVar[bool] = ContextVar("ascseg_computed_again", default=False)


@contextlib.contextmanager
def computed_again() -> Iterator[None]:
    """Inside, statistics are those of a pass that was run before: they move no running values."""
    token = _again.set(True)
    try:
        yield
    finally:
        _again.reset(token)


@dataclass(frozen=True)
class Normalisation:
    """u = weight · (z − mean) / √(variance + eps) + bias.

    statistics  (2, c)  means, then biased variances
    """

    statistics: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Running:
    """The running values of a batch norm, which a training pass moves as torch does."""

    mean: Tensor
    variance: Tensor
    momentum: float

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Running:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return cls(norm.running_mean, norm.running_var, momentum_of(norm))


def partial_sums(like: Tensor, blocks: int, c: int) -> Tensor:
    """Room for two sums a channel from each block: (blocks, 2, c) float64."""
    return like.new_empty(max(blocks, 1), 2, c, dtype=torch.float64)


def statistics_from(partials: Tensor, count: int, pivot: Tensor | None, running: Running | None) -> Tensor:
    """Σ (z − pivot) and Σ (z − pivot)² of every block -> mean and biased variance, (2, c) float32.

    partials  (blocks, 2, c) float64
    count     b·h·w, the numbers of a channel
    pivot     (c,) or None for zeros
    running   moved in place, if given
    """
    blocks, _, c = partials.shape
    result = partials.new_empty(2, c, dtype=torch.float32)
    moved: tuple[Tensor | None, Tensor | None, float] = (None, None, 0.0)
    if running is not None and not _again.get():
        moved = (running.mean, running.variance, float(running.momentum))
    finish = kernel(_SOURCE, "finish_statistics")
    finish((c,), _THREADS, partials, blocks, c, float(count), pivot, result, *moved, shared=_SCRATCH)
    return result


def norm_gradients(partials: Tensor, norm: Normalisation) -> tuple[Tensor, Tensor, Tensor]:
    """Σ g and Σ g·(z − mean) of every block -> gradients of statistics (2, c), weight (c,) and bias (c,)."""
    blocks, _, c = partials.shape
    result = partials.new_empty(4, c, dtype=torch.float32)
    finish = kernel(_SOURCE, "finish_gradients")
    given = (norm.statistics, norm.weight, float(norm.eps))
    finish((c,), _THREADS, partials, blocks, c, *given, result, result[2], result[3], shared=_SCRATCH)
    return result[:2], result[2], result[3]


def layer_gradients(
    partials: Tensor | None, norm: Normalisation | None, slabs: Tensor, zeros: int
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """What is left of a layer's backward pass, in one launch: sums over slabs, and `norm_gradients`.

    slabs    (count, n) shares of the gradients of weight and bias; added in a fixed order, zeros behind them
    returns  those sums, and the gradients of the norm's statistics, weight and bias, if there are partials
    """
    (count, n), c = slabs.shape, 0 if partials is None or norm is None else partials.shape[2]
    found, sums = slabs.new_empty(4, c), slabs.new_empty(n + zeros)
    of_norm: tuple[Tensor | float | None, ...] = (None, None, 0.0)
    if norm is not None:
        of_norm = (norm.statistics, norm.weight, float(norm.eps))
    blocks = 0 if partials is None else len(partials)
    given = (partials, blocks, c, *of_norm, found, found[2], found[3], slabs, count, n, n + zeros, sums)
    kernel(_SOURCE, "finish_layer")((c + -(-(n + zeros) // 32),), 512, *given, shared=512 * 8)
    return sums, (found[:2], found[2], found[3]) if c else (None, None, None)
