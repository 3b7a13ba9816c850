"""How `passes.cu` can be cut into blocks and threads, and what each way costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.load import MOST_REGISTERS, MOST_SHARED, Load, Tiling, on_tensor_cores
from ascseg_cli.kernels.chain.passes.packing import PLANE, padded

_TILES = [
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
_MOST_PRELOADED = 10 * 1024  # numbers
_STAGED = 4 * 1024


def ways(load: Load) -> Iterator[Tiling]:
    """All that fit."""
    wide = padded(load.widest)
    for (width, height), strip, share in itertools.product(_TILES, (1, 2, 4, 8), (4, 8)):
        narrow = load.tensor and width % 16
        if height % strip or strip * min(share, wide) > 64 or height <= 2 * load.edge or narrow:
            continue
        for spread in (False, True)[: 1 if load.carries else len(load.branches)]:
            way = _laid_out(load, width, height, strip, max(1, -(-wide // share)), spread)
            fits = way.shared <= MOST_SHARED and registers(load, way) <= MOST_REGISTERS
            if fits and 32 <= way.threads <= 512 and way.threads % 32 == 0:
                yield way


def _laid_out(load: Load, width: int, height: int, strip: int, split: int, spread: bool) -> Tiling:
    counts = [branch[6] for branch in load.branches]
    preloaded, staged = max(counts) if spread else sum(counts), 0
    if preloaded > _MOST_PRELOADED:
        preloaded, staged = 0, max(_STAGED, *(branch[7] for branch in load.branches))
    tile = (width + 2 * load.halo) * (height + 2 * load.halo) * -(-load.into // PLANE[load.tensor])
    through = split > 1 or load.tensor or staged or any(_exchanges(one, load.resize_out) for one in load.branches)
    exchange = width * height * -(-load.widest // 4) if through else 0
    alone = (spread or len(load.branches) == 1) and not load.tensor
    exchange_at, others_at = (0, max(tile, exchange)) if alone else (tile, tile + exchange)
    numbers_at = others_at + (1 if load.boosts else width * height) * -(-load.others // 4)
    shared = 16 * numbers_at + 4 * (preloaded + staged + 32)  # a wide row's last read may pass the end
    return Tiling(
        width, height, strip, split, spread, exchange_at, others_at, numbers_at, preloaded, staged, shared
    )


def _exchanges(branch: tuple[int, ...], resize_out: int) -> bool:
    """Does even a thread with all channels of its pixels bring them to shared memory?"""
    kinds, outs = branch[8::2], branch[9::2]
    wide = any(kind == k.POINTWISE and c > 8 for kind, c in zip(kinds, branch[4:5] + outs))
    return wide or resize_out != k.SAME or (*branch[4:5], *outs)[-1] > 4


def registers(load: Load, way: Tiling) -> int:
    """Of a thread, by a rough count."""
    reach = max(way.strip + (size - 1) * min(dilation, 4) for _, size, dilation, *_ in load.branches)
    return 48 + (way.strip + 1) * _share(load.widest, way.split) * (2 if load.carries else 1) + 4 * reach


def work(branch: tuple[int, ...], way: Tiling, tensor: int) -> tuple[float, float]:
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
            flops, reads = on_tensor_cores(branch, way, tensor)
            reads += 2 * way.strip * share / 4  # from the exchange
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


def _share(c: int, split: int) -> int:
    return c if c <= 4 else -(-padded(c) // split // 4) * 4
