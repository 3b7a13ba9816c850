"""How a pass is cut into blocks and threads: the cheapest of some hundred ways by a count of what each costs.

The count is of a multiprocessor's cycles, by what an H100 can do in one: 128 multiplications, a third of a float4
of shared memory for each of a warp's threads, 32 bytes from the second-level cache.
"""

from __future__ import annotations

import functools
from types import ModuleType

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes import fragments, strips
from ascseg_cli.kernels.chain.passes.load import Load, Tiling
from ascseg_cli.kernels.chain.passes.packing import FRAGMENTS

_PROCESSORS = 132


@functools.lru_cache(4096)
def tiling(load: Load, b: int, h: int, w: int, slices: int) -> tuple[float, Tiling]:
    """The cheapest way and its cycles, for b images of h × w px. Raises ShapeError where none fits."""
    ways = [(_cycles(load, way, b, h, w, slices), i, way) for i, way in enumerate(_kernel(load).ways(load))]
    if not ways:
        raise ShapeError(f"{load.into} channels are too many for a compiled chain", "use --backend reference")
    cycles, _, way = min(ways)
    return cycles, way


def _kernel(load: Load) -> ModuleType:
    """What knows how the kernel can be cut that runs the pass."""
    return fragments if load.tensor == FRAGMENTS else strips


def _cycles(load: Load, way: Tiling, b: int, h: int, w: int, slices: int) -> float:
    """Cycles until the last block is done, were every multiprocessor busy alike."""
    works = [_kernel(load).work(branch, way, load.tensor) for branch in load.branches]
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
    registers = _kernel(load).registers(load, way)
    resident = max(
        1, min(32, 2048 // way.threads, 220 * 1024 // way.shared, 65536 // (way.threads * registers), each)
    )
    serial = 1500 + 1.5 * flops + 3 * reads + 300 * (moved + numbers / 4) / way.threads / 4
    return max(each * busy, -(-each // resident) * serial) + 0.2 * each / resident * serial
