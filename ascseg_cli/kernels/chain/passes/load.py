"""What is to be cut into blocks and threads, and how it can be: a pass without its numbers, and its tiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.packing import PAIRS, PLANE, Branch
from ascseg_cli.kernels.chain.plan import Draft

MOST_SHARED = 98 * 1024  # bytes that every GPU of compute capability 8.0 and newer gives a block
MOST_REGISTERS = 200  # by our count, which the compiler may exceed


@dataclass(frozen=True)
class Load:
    """What a tiling must carry: everything about a pass but its numbers."""

    branches: tuple[tuple[int, ...], ...]  # as `load_of` has them
    into: int
    resize_in: int
    resize_out: int
    others: int
    boosts: bool
    carries: bool  # each branch but the first adds the result of the one before
    tensor: int  # what tensor cores multiply in dense convolutions; 0: nothing

    @property
    def edge(self) -> int:
        """Pixels at a tile's rim that are computed for their neighbours alone."""
        return int(self.resize_out == k.DOUBLE)

    @property
    def halo(self) -> int:
        return max(dilation * (size - 1) // 2 for _, size, dilation, *_ in self.branches)

    @property
    def widest(self) -> int:
        return max(branch[5] for branch in self.branches)


@dataclass(frozen=True)
class Tiling:
    """Tile of output pixels before they are resized, pixels a thread, threads that share a pixel's channels."""

    width: int
    height: int
    strip: int
    split: int
    spread: bool
    exchange_at: int  # in float4 of shared memory, as the next two
    others_at: int
    numbers_at: int
    preloaded: int  # numbers; 0: they don't fit
    staged: int
    shared: int  # bytes

    @property
    def threads(self) -> int:
        return self.width * self.height // self.strip * self.split

    @property
    def lines(self) -> int:
        """Lines of sixteen pixels, what a warp's product on tensor cores has."""
        return self.width // 16 * self.height


def load_of(branches: Sequence[Branch], head: Draft, others: int, carries: bool, tensor: int) -> Load:
    rows = []
    for one in branches:
        steps = [n for kind, _, out, _ in one.steps for n in (kind, out)]
        sizes = (one.over, one.size, one.dilation, one.into, one.over_out)
        rows.append((*sizes, one.widest, len(one.numbers), one.unit, *steps))
    boosts = any(step[0] == k.BOOST for step in head.within)
    return Load(tuple(rows), head.into, head.resize_in, head.resize_out, others, boosts, carries, tensor)


def on_tensor_cores(branch: tuple[int, ...], way: Tiling, tensor: int) -> tuple[float, float]:
    """As much of a thread's time in multiplications and reads: a matrix product takes two cycles, a load four."""
    _, size, dilation, into, out, *_ = branch
    steps, eights, warps = -(-size * -(-into // PLANE[tensor]) // 2), -(-out // 8), way.threads / 32
    height = max(1, int(lines_at_once(out, way)))
    loads = way.lines / height * -(-eights // 4) * min(height + (size - 1) * dilation, size * height)
    products = 2 if tensor == PAIRS else 1
    return 8 * products * steps * way.lines * size * eights / warps, steps * 4 / 3 * loads / warps


def lines_at_once(out: int, way: Tiling) -> float:
    """Lines that a warp does together."""
    eights = -(-out // 8)
    return min(4 if eights > 2 else 8, way.lines * -(-eights // 4) / (way.threads / 32))
