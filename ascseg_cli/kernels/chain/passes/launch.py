"""How a pass is launched: which kernel, cut how, compiled with which constants."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.passes.lanes import Pass
from ascseg_cli.kernels.chain.passes.load import Load, Tiling, load_of
from ascseg_cli.kernels.chain.passes.packing import FRAGMENTS, HALVES, PAIRS, Branch, branch_of
from ascseg_cli.kernels.chain.passes.tiling import tiling
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.precision import tf32_allowed

_SOURCE, _FRAGMENTS = Path(__file__).with_name("passes.cu"), Path(__file__).with_name("fragments.cu")


def launch(one: Pass, x: Tensor, other: Tensor | None, y: Tensor, size: tuple[int, int]) -> None:
    """Run a pass from x, and `other` if it combines with that, to y.

    x, y    (b, h, w, c), or (parts, b, h, w, c / parts)
    size    of the image between the resizings
    """
    x_part, y_part = _part(x), _part(y)
    x, y = (image[0] if part else image for image, part in ((x, x_part), (y, y_part)))
    slices, branches, numbers, load, way = _way(one, x, size)
    each = branches[0].channels
    ends = [each] * len(branches) if load.carries else list(itertools.accumulate(b.channels for b in branches))
    constants = _constants(branches, ends, load, way) | {
        "BF16": int(x.dtype == torch.bfloat16),
        "FAST": int(x.dtype == torch.bfloat16 or tf32_allowed()),
        "X_WHOLE": _whole(x, x.shape[3]),
        "X_PAIRS": _whole(x, x.shape[3], together=2),
        "X_EIGHTS": _whole(x, x.shape[3], together=8),
        "O_WHOLE": 0 if other is None else _whole(other, load.others),
        "Y_WHOLE": _whole(y, *ends),
        "X_PART": x_part,
        "Y_PART": y_part,
        "AFFINE_AT": sum(len(branch.numbers) for branch in branches) if one.enter else -1,
        "SLICE_IN": 0,
        "SLICE_OUT": each if slices > 1 else 0,
        "SLICE_NUMBERS": len(branches[0].numbers) if slices > 1 else 0,
    }
    across, down = (-(-n // (step - 2 * load.edge)) for n, step in zip(size[::-1], (way.width, way.height)))
    other_pitch = 0 if other is None else other.stride(0) if load.boosts and len(other) > 1 else pitch(other)
    source, name = (_FRAGMENTS, "fragments") if load.tensor == FRAGMENTS else (_SOURCE, "passes")
    kernel(source, name, **constants)(
        (len(x) * across * down, len(branches) if way.spread else slices), way.threads,
        x, pitch(x), x.shape[1], x.shape[2], other, other_pitch, y, pitch(y), numbers, *size, across, down,
        shared=way.shared,
    )  # fmt: skip


Way = tuple[int, "list[Branch]", Tensor, Load, Tiling]


def _way(one: Pass, x: Tensor, size: tuple[int, int]) -> Way:
    """The number of slices, and with it everything else, that is done soonest. Raises ShapeError.

    Batches between two powers of two are cut alike, so that few kernels need to be compiled.
    """
    b = 1 << (len(x) - 1).bit_length()
    tensors = _tensors(one, x.dtype)
    key = (b, size, x.dtype, tensors)
    if key not in one.ways:
        one.ways[key] = _best(one, x, b, size, tensors)
    return one.ways[key]


def _best(one: Pass, x: Tensor, b: int, size: tuple[int, int], tensors: tuple[int, ...]) -> Way:
    try:
        return _soonest(one, x, b, size, tensors[0])
    except ShapeError:  # tensor cores need wider tiles
        if len(tensors) == 1:
            raise
        return _best(one, x, b, size, tensors[1:])


def _tensors(one: Pass, dtype: torch.dtype) -> tuple[int, ...]:
    """What tensor cores may do of a pass, the best first."""
    if dtype == torch.bfloat16:
        return (FRAGMENTS,) * one.in_fragments + (HALVES,) * one.dense + (0,)
    return (PAIRS,) * (one.dense and tf32_allowed()) + (0,)


def _soonest(one: Pass, x: Tensor, b: int, size: tuple[int, int], tensor: int) -> Way:
    ways = []
    for slices in _slicings(one):
        branches, numbers = one.table(slices, tensor, x.device)
        load = load_of(branches, one.drafts[0], one.others // slices, one.carries, tensor)
        cycles, way = tiling(load, b, *size, slices)
        ways.append((cycles, slices, branches, numbers, load, way))
    return min(ways, key=lambda way: way[:2])[1:]


def _slicings(one: Pass) -> list[int]:
    if len(one.drafts) > 1 or branch_of(one.drafts[0]).crosses:
        return [1]
    channels = one.drafts[0].channels
    return [1, *(n for n in range(2, channels // 4 + 1) if channels % n == 0 and channels // n % 4 == 0)]


def _constants(branches: list[Branch], ends: list[int], load: Load, way: Tiling) -> dict[str, int | str]:
    code: list[int] = []
    begin = 0
    for branch, end in zip(branches, ends):
        head = (branch.over, branch.size, branch.dilation, branch.over_out, begin, len(branch.numbers))
        code += [*head, end - branch.channels, len(branch.steps), *itertools.chain(*branch.steps)]
        begin += len(branch.numbers)
    return {
        "PASSES": ",".join(map(str, code)),
        "BRANCHES": len(branches),
        "CHANNELS": load.into,
        "RESIZE_IN": load.resize_in,
        "RESIZE_OUT": load.resize_out,
        "OTHERS": load.others,
        "BOOSTS": int(load.boosts),
        "HALO": load.halo,
        "TILE_W": way.width,
        "TILE_H": way.height,
        "STRIP": way.strip,
        "SPLIT": way.split,
        "SPREAD": int(way.spread),
        "TENSOR": HALVES if load.tensor == FRAGMENTS else load.tensor,
        "CARRY": branches[-1].channels if load.carries else 0,
        "EXCHANGE_AT": way.exchange_at,
        "OTHERS_AT": way.others_at,
        "NUMBERS_AT": way.numbers_at,
        "PRELOAD": int(way.preloaded > 0 or way.staged == 0),
        "PRELOADED": way.preloaded,
        "STAGED": way.staged,
    }


# ---- images ------------------------------------------------------------------------------------------------


def pitch(image: Tensor) -> int:
    """From pixel to pixel of (b, h, w, c); strides of a dimension of one say nothing."""
    b, h, w, c = image.shape
    if w > 1:
        return image.stride(2)
    if h > 1:
        return image.stride(1)
    return image.stride(0) // max(h * w, 1) if b > 1 else c


def _whole(image: Tensor, *channels: int, together: int = 4) -> int:
    """1 where four channels, or so many, can be moved at once."""
    aligned = image.data_ptr() % (together * image.element_size()) == 0
    return int(aligned and all(n % together == 0 for n in (pitch(image), *channels)))


def _part(image: Tensor) -> int:
    """Channels that lie together where an image comes in parts, else 0."""
    return image.shape[-1] if image.dim() > 4 else 0
