"""How `fragments.cu` can be cut into blocks and warps, and what each way costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.load import (
    MOST_REGISTERS,
    MOST_SHARED,
    Load,
    Tiling,
    lines_at_once,
    on_tensor_cores,
)
from ascseg_cli.kernels.chain.passes.packing import FRAGMENTS, PLANE

_TILES = [(64, 16), (32, 32), (32, 16), (32, 8), (32, 4), (16, 16), (16, 8), (16, 4), (16, 2)]
_MOST_PRELOADED = 14 * 1024  # numbers; more stay in global memory


def ways(load: Load) -> Iterator[Tiling]:
    """All that fit."""
    narrow = load.into == 2 and load.halo > 0  # eight lines of a tile at a time
    for (width, height), strip in itertools.product(_TILES, (1, 2, 4, 8)):
        if height % strip or (narrow and height % 8):
            continue
        for spread in (False, True)[: 1 if load.carries else len(load.branches)]:
            way = _laid_out(load, width, height, strip, spread)
            fits = way.shared <= MOST_SHARED and registers(load, way) <= MOST_REGISTERS
            if fits and 32 <= way.threads <= 512 and way.threads % 32 == 0:
                yield way


def _laid_out(load: Load, width: int, height: int, strip: int, spread: bool) -> Tiling:
    counts = [branch[6] for branch in load.branches]
    preloaded = max(counts) if spread else sum(counts)
    staged = 0
    if preloaded > _MOST_PRELOADED:
        preloaded, staged = 0, 4
    tile = 0
    if load.halo or load.resize_in != k.SAME:
        tile = (width + 2 * load.halo) * (height + 2 * load.halo) * -(-load.into // PLANE[FRAGMENTS])
    shared = 16 * tile + 4 * (preloaded + staged + 32)
    return Tiling(width, height, strip, 1, spread, tile, tile, tile, preloaded, staged, shared)


def registers(load: Load, way: Tiling) -> int:
    """Of a thread, by a rough count."""
    eights = -(-load.widest // 8)
    return 48 + max(1, int(lines_at_once(load.widest, way))) * eights * 4 + 2 * eights * load.branches[0][1]


def work(branch: tuple[int, ...], way: Tiling, tensor: int) -> tuple[float, float]:
    """A thread's multiplications, and what else it does counted as them; its reads of shared float4."""
    over, size, dilation, into, out, *_ = branch
    lines, eights = way.lines / (way.threads / 32), -(-out // 8)
    flops, reads = lines * eights * (64 if over == k.MAXIMUM else 8), 0.0
    if over == k.DENSE:
        flops, reads = on_tensor_cores(branch, way, tensor)
    elif over == k.GROUPED:
        one = (over, size, dilation, 8 * into // out, 8)
        flops, reads = (eights * each for each in on_tensor_cores(one, way, tensor))
    for kind, after in zip(branch[8::2], branch[9::2]):
        before, eights = eights, -(-after // 8)
        if kind == k.POINTWISE:
            flops += lines * -(-before // 2) * (8 * eights + 4)
        else:
            flops += lines * 4 * eights * (20 if kind in (k.GELU, k.SIGMOID, k.SOFT_GATE, k.NORM) else 1)
    return flops + lines * eights * 16, reads
