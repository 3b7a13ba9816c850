"""How the dense convolution's kernels divide their work: tiles, threads, shared memory. No tensors here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BLOCKS = 240  # enough to give each multiprocessor of a large GPU about two
_THREADS = 132 * 768  # as many as such a GPU runs well at a time
_SLABS = 4 * 132  # blocks that add up gradients of weights, at most
_SHARED = 48 * 1024  # bytes a block may take without permission; four such blocks fit
_PIXELS = 4  # of one thread


@dataclass(frozen=True)
class Shape:
    """A convolution of (b, ci, h, w) to co channels by k × k taps, `dilation` apart."""

    b: int
    h: int
    w: int
    ci: int
    co: int
    k: int
    dilation: int = 1

    def flat(self) -> Shape:
        """A 1×1 convolution sees an image as one row."""
        return Shape(self.b, min(self.h, 1), self.h * self.w, self.ci, self.co, 1) if self.k == 1 else self

    def transposed(self) -> Shape:
        return Shape(self.b, self.h, self.w, self.co, self.ci, self.k, self.dilation)


@dataclass(frozen=True)
class Plan:
    """A launch: blocks, threads of a block, bytes of shared memory, and the kernel's macros."""

    grid: tuple[int, int]
    block: int
    shared: int
    constants: dict[str, int]


def up(value: int, to: int) -> int:
    """`value` rounded up to a multiple of `to`."""
    return -(-value // to) * to


def remainder(value: int, modulus: int, wanted: int) -> int:
    """The smallest number from `value` on that leaves `wanted` when divided by `modulus`."""
    return value + (wanted - value) % modulus


def tile_plan(shape: Shape, vec: int) -> Plan:
    """The convolution itself, or its input's gradient (a transposed shape); macros as `dense_tile.cuh` lists them.

    vec  channels that can be loaded at once
    """
    groups = -(-shape.co // 8)
    own = -(-shape.co // groups)
    threads, rows, tiles = _tile(shape)
    per_block = _groups_together(groups, tiles, threads * rows)
    grid = (tiles, groups // per_block)
    step, line, plane = _layout(shape, threads, rows)
    chunk = _chunk(shape, plane, up(own, 4) * per_block)
    quads = -(-chunk // 4)
    workers = threads * rows * per_block
    splits = _splits(quads * shape.k, workers, grid[0] * grid[1])
    entries = up(up(shape.ci, chunk), 4)
    weights = (shape.ci if shape.ci < 4 else chunk) * shape.k**2 * up(own, 4) * per_block
    sums = max(2, 1 << (2 * own - 1).bit_length())
    scratch = max((splits - 1) * _PIXELS * own * workers, 2 * workers // 32 * sums)
    scratch = max(scratch, _PIXELS * threads * rows * (own * per_block + 1))  # where results wait to be stored
    constants = {"IN": shape.ci, "OUT": shape.co, "K": shape.k, "DILATION": shape.dilation, "PX": _PIXELS}
    constants |= {
        "ACROSS": threads,
        "ROWS": rows,
        "OWN": own,
        "GROUPS": per_block,
        "SPLITS": splits,
        "CHUNK": chunk,
    }
    constants |= {"VEC": vec, "OUT_VEC": _together(own, shape.co), "STEP": step, "LINE": line, "PLANE": plane}
    return Plan(grid, workers * splits, 4 * (3 * entries + max(4 * quads * plane + weights, scratch)), constants)


def _tile(shape: Shape) -> tuple[int, int, int]:
    """Threads across a tile, its rows, and how many tiles there are; columns are four times the threads."""

    def tiles(size: tuple[int, int]) -> int:
        return shape.b * -(-shape.w // (_PIXELS * size[0])) * -(-shape.h // size[1])

    def loaded(size: tuple[int, int]) -> int:
        halo = (shape.k - 1) * shape.dilation
        return tiles(size) * (_PIXELS * size[0] + halo) * (size[1] + halo)

    if shape.k == 1:
        sizes = [(128, 1), (64, 1), (32, 1)]
    elif shape.dilation == 3:
        sizes = sorted([(6, 16), (12, 8), (3, 32)], key=loaded)[:1]
    else:
        sizes = [(8, 16), (8, 8), (4, 8)]
    size = next((size for size in sizes if tiles(size) >= _BLOCKS), sizes[-1])
    return *size, tiles(size)


def _groups_together(groups: int, tiles: int, threads: int) -> int:
    """Groups of output channels in one block: as many as leave enough blocks."""
    return next(
        n
        for n in (4, 3, 2, 1)
        if n == 1 or (groups % n == 0 and n * threads <= 384 and tiles * groups >= n * _BLOCKS)
    )


def _layout(shape: Shape, threads: int, rows: int) -> tuple[int, int, int]:
    """Strides of the tile in shared memory, in float4, such that neither its readers nor its writers collide."""
    halo = (shape.k - 1) * shape.dilation
    step = remainder(threads + (shape.k + _PIXELS - 2) // _PIXELS * shape.dilation, 4, 2)
    line = remainder(_PIXELS * step, 8, threads % 8)
    return step, line, remainder((rows + halo) * line, 8, 1)


def _chunk(shape: Shape, plane: int, room: int) -> int:
    """Input channels in shared memory at a time: equal parts that fit."""
    if shape.ci < 4:
        return shape.ci
    quads = -(-shape.ci // 4)
    most = max(1, _SHARED // (16 * plane + 16 * shape.k**2 * room))
    fewest = -(-quads // most)
    parts = min(range(fewest, max(2 * fewest, quads) + 1), key=lambda n: n * -(-quads // n))
    return -(-quads // parts) * 4


def _splits(items: int, workers: int, blocks: int) -> int:
    """Threads that share a pixel's sum, where there are few pixels: as many as find nearly equal work."""
    for splits in (8, 6, 4, 3, 2):
        fits = workers * splits <= 256 and workers * splits * blocks <= _THREADS
        if fits and items >= 0.85 * splits * -(-items // splits):
            return splits
    return 1


def _together(own: int, c: int) -> int:
    return next(vec for vec in (4, 2, 1) if own % vec == 0 and c % vec == 0)


def weight_plan(shape: Shape, ci_vec: int, co_vec: int) -> Plan:
    """The gradient of the weights; macros as `dense_weight.cu` lists them.

    ci_vec, co_vec  channels of input and output that can be loaded at once
    """
    k = shape.k
    ci_own, co_own = _owned(shape)
    ci_groups, co_groups = _groups(shape, ci_own, co_own, ci_vec)
    ci, co = ci_groups * ci_own, co_groups * co_own  # channels of a block
    in_blocks = -(-shape.ci // ci) * -(-shape.co // co)
    tile = _weight_tile(shape, ci, co, k * ci_groups * co_groups, in_blocks)
    block = k * ci_groups * co_groups * tile.splits
    tables = 3 * (up(up(shape.ci, ci), 4) + up(up(shape.co, co), 4))
    scratch = up(k * ci_own * co_own * block, 2) + 2 * block
    each = max(1, -(-tile.count * in_blocks // _SLABS))
    grid = (-(-tile.count // each), in_blocks)
    constants = {"CI": shape.ci, "CO": shape.co, "K": k, "DILATION": shape.dilation, "SPLITS": tile.splits}
    constants |= {"CI_OWN": ci_own, "CO_OWN": co_own, "CI_GROUPS": ci_groups, "CO_GROUPS": co_groups}
    constants |= {"ROWS": tile.rows, "WIDTH": tile.width, "CI_LINE": tile.ci_line, "CO_LINE": tile.co_line}
    constants |= {"CI_VEC": ci_vec, "CO_VEC": co_vec}
    return Plan(grid, block, 4 * max(tables + tile.room, scratch), constants)


@dataclass(frozen=True)
class _Tile:
    """Pixels that a block of the weights' gradient has in shared memory."""

    rows: int
    width: int
    splits: int  # threads that share the rows
    ci_line: int
    co_line: int
    room: int  # numbers in shared memory
    count: int  # tiles of the whole batch


def _owned(shape: Shape) -> tuple[int, int]:
    """Input and output channels whose weights, k a pair, one thread adds up."""
    if shape.k > 3:
        ci, co = (2, 4) if shape.ci % 2 == 0 else (1, 8)
    else:
        ci, co = 4, 8 if shape.k == 1 and shape.co % 8 == 0 else 4
    return min(ci, shape.ci), min(co, shape.co)


def _groups(shape: Shape, ci_own: int, co_own: int, ci_vec: int) -> tuple[int, int]:
    """Groups of input and of output channels in a block, at most 224 with all rows of the kernel."""
    whole = max(1, ci_vec // ci_own)  # groups that are loaded at once
    ci_all, co_all = -(-shape.ci // ci_own), -(-shape.co // co_own)
    limit = 224 // shape.k
    co_parts = -(-co_all * whole // limit)
    co_groups = -(-co_all // co_parts)
    ci_groups = max(whole, limit // co_groups // whole * whole)
    return min(ci_groups, up(ci_all, whole)), co_groups


def _weight_tile(shape: Shape, ci: int, co: int, combinations: int, in_blocks: int) -> _Tile:
    """The largest tile that fits and leaves enough blocks, else the smallest; ci, co are channels of a block."""
    halo = (shape.k - 1) * shape.dilation
    for rows, width, splits in _weight_sizes(shape, combinations):
        across, down = (rows * width, 1) if shape.k == 1 else (width, rows)
        ci_line = remainder((width + halo) * ci, 32, up(ci, 4) % 32)
        co_line = remainder(width * co, 32, up(co, 4) % 32)
        room = (rows + halo) * ci_line + rows * co_line
        count = shape.b * -(-shape.w // across) * -(-shape.h // down)
        tile = _Tile(rows, width, splits, ci_line, co_line, room, count)
        if 4 * room <= _SHARED and count * in_blocks >= _BLOCKS:
            break
    return tile


def _weight_sizes(shape: Shape, combinations: int) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and row splits of a tile, the largest first."""
    most = 128 if shape.k > 1 and combinations <= 32 else 256  # threads: an H100 was 10 % faster with fewer
    splits = 1 << max(0, (most // combinations).bit_length() - 1)
    if shape.k == 1:
        yield from ((splits, width, splits) for width in (16, 8, 4))
        return
    width = 36 if shape.dilation == 3 else 32
    yield from ((rows, width, min(rows, splits)) for rows in (16, 8, 4))
    if shape.dilation != 3:
        yield 4, 16, min(4, splits)
