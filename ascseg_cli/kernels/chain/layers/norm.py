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

from torch import Tensor, nn

from ascseg_cli.kernels.cuda import Argument, kernel
from ascseg_cli.kernels.cuda.last_block import Rows

_SOURCE = Path(__file__).with_name("slabs.cu")
_NO_ROWS: tuple[Argument, ...] = (None, None, 0, 1, 1)
Gradients = tuple[Tensor | None, ...]

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
        return cls(norm.running_mean, norm.running_var, 0.1 if norm.momentum is None else norm.momentum)


@dataclass(frozen=True)
class StatisticsEnd:
    """How a kernel's last block turns all blocks' Σ (z − pivot) and Σ (z − pivot)² into statistics.

    rows     of 2 · c sums
    count    b·h·w, the numbers of a channel
    pivot    (c,) or None for zeros
    running  moved in place, if given
    result   (2, c) mean and biased variance; zeros where there is nothing to count
    """

    rows: Rows
    count: int
    pivot: Tensor | None
    running: Running | None
    result: Tensor

    @classmethod
    def of(
        cls,
        like: Tensor,
        rows: int,
        c: int,
        count: int,
        pivot: Tensor | None,
        running: Running | None,
        writers: int = 1,
    ) -> StatisticsEnd:
        result = like.new_empty(2, c) if count else like.new_zeros(2, c)
        return cls(Rows.of(like, rows, 2 * c, writers), count, pivot, running, result)

    @property
    def argument(self) -> tuple[Argument, ...]:
        """As a kernel takes it; asked for once a launch."""
        moved: tuple[Argument, ...] = (None, None, 0.0)
        if self.running is not None and not _again.get():
            moved = (self.running.mean, self.running.variance, float(self.running.momentum))
        return (*self.rows.argument, self.pivot, self.result, *moved, float(self.count))


NO_STATISTICS: tuple[Argument, ...] = (*_NO_ROWS, None, None, None, None, 0.0, 0.0)  # where none are wanted


@dataclass(frozen=True)
class NormEnd:
    """How a kernel's last block turns all blocks' Σ g and Σ g·(z − mean) into the norm's gradients.

    rows    of 2 · c sums
    result  (4, c) gradients of means, variances, weights and biases; zeros where there are no rows
    """

    rows: Rows
    result: Tensor

    @classmethod
    def of(cls, like: Tensor, rows: int, c: int, writers: int = 1) -> NormEnd:
        result = like.new_empty(4, c) if rows else like.new_zeros(4, c)
        return cls(Rows.of(like, rows, 2 * c, writers), result)

    @property
    def argument(self) -> tuple[Argument, ...]:
        """As a kernel takes it; asked for once a launch."""
        return (*self.rows.argument, self.result)

    @property
    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of statistics (2, c), weight (c,) and bias (c,)."""
        return self.result[:2], self.result[2], self.result[3]


NO_NORM: tuple[Argument, ...] = (*_NO_ROWS, None)


def slab_sums(slabs: Tensor, zeros: int) -> Tensor:
    """Sums over slabs (count, n), in a fixed order; `zeros` zeros behind them."""
    count, n = slabs.shape
    sums = slabs.new_empty(n + zeros)
    kernel(_SOURCE, "add_slabs")((-(-(n + zeros) // 32),), 512, slabs, count, n, n + zeros, sums, shared=512 * 8)
    return sums
