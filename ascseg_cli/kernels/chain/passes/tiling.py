"""How a pass is cut into blocks and threads: the cheapest of some hundred ways by a count of what each costs.

The count is of a multiprocessor's cycles, by what an H100 can do in one: 128 multiplications, a third of a float4
of shared memory for each of a warp's threads, 32 bytes from the second-level cache.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.packing import FRAGMENTS, PLANE, Branch, padded
from ascseg_cli.kernels.chain.plan import Draft

_TILES = [
    (64, 16),
    (32, 32),
    (32, 16),
    (32, 8),
    (32, 4),
    (16, 16),
    (16, 8),
    (16, 4),
    (16, 2),
    (8, 16),
    (8, 8),
    (8, 4),
    (4, 4),
    (4, 2),
    (2, 2),
]
_PROCESSORS = 132
_MOST_SHARED = 98 * 1024  # bytes that every GPU of compute capability 8.0 and newer gives a block
_MOST_PRELOADED = 10 * 1024  # numbers
_MOST_REGISTERS = 200  # by our count, which the compiler may exceed
_STAGED = 4 * 1024


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


def load_of(branches: Sequence[Branch], head: Draft, others: int, carries: bool, tensor: int) -> Load:
    rows = []
    for one in branches:
        steps = [n for kind, _, out, _ in one.steps for n in (kind, out)]
        sizes = (one.over, one.size, one.dilation, one.into, one.over_out)
        rows.append((*sizes, one.widest, len(one.numbers), one.unit, *steps))
    boosts = any(step[0] == k.BOOST for step in head.within)
    return Load(tuple(rows), head.into, head.resize_in, head.resize_out, others, boosts, carries, tensor)


@functools.lru_cache(4096)
def tiling(load: Load, b: int, h: int, w: int, slices: int) -> tuple[float, Tiling]:
    """The cheapest way and its cycles, for b images of h × w px. Raises ShapeError where none fits."""
    ways = [(_cycles(load, way, b, h, w, slices), i, way) for i, way in enumerate(_ways(load))]
    if not ways:
        raise ShapeError(f"{load.into} channels are too many for a compiled chain", "use --backend reference")
    cycles, _, way = min(ways)
    return cycles, way


def _ways(load: Load) -> Iterator[Tiling]:
    wide = padded(load.widest)
    shares = (wide,) if load.tensor == FRAGMENTS else (4, 8)
    for (width, height), strip, share in itertools.product(_TILES, (1, 2, 4, 8), shares):
        if (
            height % strip
            or (strip * min(share, wide) > 64 and load.tensor != FRAGMENTS)
            or height <= 2 * load.edge
            or (load.tensor and width % 16)
            or (load.tensor != FRAGMENTS and width * height > 512)
            or (load.tensor == FRAGMENTS and load.into == 2 and load.halo and height % 8)
        ):
            continue
        for spread in (False, True)[: 1 if load.carries else len(load.branches)]:
            way = _laid_out(load, width, height, strip, max(1, -(-wide // share)), spread)
            fits = way.shared <= _MOST_SHARED and _registers(load, way) <= _MOST_REGISTERS
            if fits and 32 <= way.threads <= 512 and way.threads % 32 == 0:
                yield way


def _laid_out(load: Load, width: int, height: int, strip: int, split: int, spread: bool) -> Tiling:
    counts = [branch[6] for branch in load.branches]
    preloaded, staged = max(counts) if spread else sum(counts), 0
    if preloaded > _MOST_PRELOADED * (1.4 if load.tensor == FRAGMENTS else 1):
        preloaded, staged = 0, max(_STAGED, *(branch[7] for branch in load.branches))
    tile = (width + 2 * load.halo) * (height + 2 * load.halo) * -(-load.into // PLANE[load.tensor])
    if load.tensor == FRAGMENTS:
        tile, staged = tile if load.halo or load.resize_in != k.SAME else 0, min(staged, 4)
    through = split > 1 or load.tensor or staged or any(_exchanges(one, load.resize_out) for one in load.branches)
    through = through and load.tensor != FRAGMENTS
    exchange = width * height * -(-load.widest // 4) if through else 0
    alone = (spread or len(load.branches) == 1) and not load.tensor
    exchange_at, others_at = (0, max(tile, exchange)) if alone else (tile, tile + exchange)
    others = 0 if load.tensor == FRAGMENTS else (1 if load.boosts else width * height) * -(-load.others // 4)
    numbers_at = others_at + others
    shared = 16 * numbers_at + 4 * (preloaded + staged + 32)  # a wide row's last read may pass the end
    return Tiling(
        width, height, strip, split, spread, exchange_at, others_at, numbers_at, preloaded, staged, shared
    )


def _exchanges(branch: tuple[int, ...], resize_out: int) -> bool:
    """Does even a thread with all channels of its pixels bring them to shared memory?"""
    kinds, outs = branch[8::2], branch[9::2]
    wide = any(kind == k.POINTWISE and c > 8 for kind, c in zip(kinds, branch[4:5] + outs))
    return wide or resize_out != k.SAME or (*branch[4:5], *outs)[-1] > 4


def _cycles(load: Load, way: Tiling, b: int, h: int, w: int, slices: int) -> float:
    """Cycles until the last block is done, were every multiprocessor busy alike."""
    work = _work_in_fragments if load.tensor == FRAGMENTS else _work
    works = [work(branch, way, load.tensor) for branch in load.branches]
    if not way.spread:
        works = [(sum(w[0] for w in works), sum(w[1] for w in works))]
    blocks = b * -(-h // (way.height - 2 * load.edge)) * -(-w // (way.width - 2 * load.edge)) * slices
    each = -(-blocks * len(works) // _PROCESSORS)
    flops, reads = (sum(column) / len(works) for column in zip(*works))
    warps = -(-way.threads // 32)
    pixels, tile = way.width * way.height, (way.width + 2 * load.halo) * (way.height + 2 * load.halo)
    loads = tile * -(-load.into // 4) * (1 if load.resize_in == k.SAME else 3)
    moved = loads + pixels * (-(-load.others // 4) + -(-load.widest // 4))
    numbers = max(way.preloaded, sum(branch[6] for branch in load.branches) / len(works))
    busy = max(warps * (flops + 1.5 * reads) / 4, warps * reads * 3, (16 * moved + 4 * numbers) / 32)
    busy += 150  # a block starts, waits at its barriers, ends
    registers = _registers(load, way)
    resident = max(
        1, min(32, 2048 // way.threads, 220 * 1024 // way.shared, 65536 // (way.threads * registers), each)
    )
    serial = 1500 + 1.5 * flops + 3 * reads + 300 * (moved + numbers / 4) / way.threads / 4
    return max(each * busy, -(-each // resident) * serial) + 0.2 * each / resident * serial


def _registers(load: Load, way: Tiling) -> int:
    if load.tensor == FRAGMENTS:
        eights = -(-load.widest // 8)
        return 48 + max(1, int(_lines_at_once(load.widest, way))) * eights * 4 + 2 * eights * load.branches[0][1]
    reach = max(way.strip + (size - 1) * min(dilation, 4) for _, size, dilation, *_ in load.branches)
    return 48 + (way.strip + 1) * _share(load.widest, way.split) * (2 if load.carries else 1) + 4 * reach


def _work(branch: tuple[int, ...], way: Tiling, tensor: int) -> tuple[float, float]:
    """A thread's multiplications and its reads of shared float4."""
    over, size, dilation, into, out, *_ = branch
    taps, share = size * size, _share(out, way.split)
    reach = min(way.strip + (size - 1) * dilation, size * way.strip)
    flops: float
    reads: float
    if over == k.DENSE:
        flops = taps * into * way.strip * share
        reads = -(-into // 4) * size * reach + taps * into * -(-share // 4)
        if tensor:
            flops, reads = _on_tensor_cores(branch, way, PLANE[tensor])
    elif over == k.GROUPED and into == out:
        flops, reads = taps * way.strip * share, -(-share // 4) * (size * reach + taps)
    elif over == k.GROUPED:
        flops = taps * into // out * way.strip * share
        reads = share * size * (way.strip + size - 1 + size) * -(-into // out // 4)
    else:
        flops, reads = taps * way.strip * share * 2, taps * way.strip * -(-share // 4)
    for kind, after in zip(branch[8::2], branch[9::2]):
        before, share, out = share, _share(after, way.split), after
        if kind == k.POINTWISE:
            inputs = before * way.split
            flops += inputs * way.strip * share
            reads += inputs * -(-share // 4) + (inputs // 4 + before // 4) * way.strip * (way.split > 1)
        else:
            flops += way.strip * share * (20 if kind in (k.GELU, k.SIGMOID, k.SOFT_GATE, k.NORM) else 1)
            reads += way.strip * share // 4 if kind >= k.ADD else 0
    return flops, reads


def _on_tensor_cores(branch: tuple[int, ...], way: Tiling, plane: int) -> tuple[float, float]:
    """As much of a thread's time in multiplications and reads: a matrix product takes two cycles, a load four."""
    _, size, dilation, into, out, *_ = branch
    steps, eights, warps = -(-size * -(-into // plane) // 2), -(-out // 8), way.threads / 32
    lines, height = way.width // 16 * way.height, max(1, int(_lines_at_once(out, way)))
    loads = lines / height * -(-eights // 4) * min(height + (size - 1) * dilation, size * height)
    products = lines * size * eights
    return 8 * steps * products / warps, steps * 4 / 3 * loads / warps + 2 * way.strip * _share(out, way.split) / 4


def _lines_at_once(out: int, way: Tiling) -> float:
    """Lines of sixteen pixels that a warp does together."""
    eights = -(-out // 8)
    lines = way.width // 16 * way.height
    return min(4 if eights > 2 else 8, lines * -(-eights // 4) / (way.threads / 32))


def _work_in_fragments(branch: tuple[int, ...], way: Tiling, tensor: int) -> tuple[float, float]:
    """As `_work`, where all steps stay in the registers of tensor cores."""
    over, size, dilation, into, out, *_ = branch
    lines, eights = way.width // 16 * way.height / (way.threads / 32), -(-out // 8)
    flops, reads = lines * eights * (64 if over == k.MAXIMUM else 8), 0.0
    if over == k.DENSE:
        flops, reads = _on_tensor_cores(branch, way, PLANE[tensor])
    elif over == k.GROUPED:
        one = (over, size, dilation, 8 * into // out, 8)
        flops, reads = (eights * each for each in _on_tensor_cores(one, way, PLANE[tensor]))
    for kind, after in zip(branch[8::2], branch[9::2]):
        before, eights = eights, -(-after // 8)
        if kind == k.POINTWISE:
            flops += lines * -(-before // 2) * (8 * eights + 4)
        else:
            flops += lines * 4 * eights * (20 if kind in (k.GELU, k.SIGMOID, k.SOFT_GATE, k.NORM) else 1)
    return flops + lines * eights * 16, reads


def _share(c: int, split: int) -> int:
    return c if c <= 4 else -(-padded(c) // split // 4) * 4
