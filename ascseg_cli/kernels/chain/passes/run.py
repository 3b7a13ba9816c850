"""Chains on the GPU, in evaluation and without gradients: passes prepared once, compiled for what they do.

Images are channels-last, in float32 or bfloat16; arithmetic is float32's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.packing import FRAGMENTS, HALVES, TF32, Branch, branch_of, row, slices_of
from ascseg_cli.kernels.chain.passes.tiling import Load, Tiling, load_of, tiling
from ascseg_cli.kernels.chain.plan import Draft, drafts_of
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.cuda.precision import tf32_allowed

_SOURCE, _FRAGMENTS = Path(__file__).with_name("passes.cu"), Path(__file__).with_name("fragments.cu")
_REGISTERS = 32  # channels that `fragments.cu` has room for


@dataclass
class Pass:
    """Drafts that read the same image, resized alike, and write side by side; one launch."""

    drafts: list[Draft]
    others: int
    enter: list[np.ndarray] = field(default_factory=list)  # factors and summands of the image, if any
    carries: bool = False  # each draft but the first adds the result of the one before; only the last is written
    tables: dict[tuple[int, int], tuple[list[Branch], Tensor]] = field(default_factory=dict)
    ways: dict[Any, Way] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.drafts[-1].channels if self.carries else sum(draft.channels for draft in self.drafts)

    @property
    def dense(self) -> bool:
        """Are all convolutions such as tensor cores do well?"""
        return all(d.over == k.DENSE and _suits_tensor_cores(d) for d in self.drafts)

    @property
    def in_fragments(self) -> bool:
        """Can all of it be done in the registers of tensor cores?"""
        return self.drafts[0].resize_out != k.DOUBLE and all(map(_fits_fragments, self.drafts))

    def table(self, slices: int, tensor: int, device: torch.device) -> tuple[list[Branch], Tensor]:
        """The branches, and all numbers on the device; those of one slice stand for all."""
        if (slices, tensor) not in self.tables:
            drafts = self.drafts if slices == 1 else slices_of(self.drafts[0], slices)
            branches = [branch_of(draft, tensor) for draft in drafts]
            rows = [row(numbers).astype(np.float32) for numbers in self.enter]
            numbers = torch.from_numpy(np.concatenate([*(branch.numbers for branch in branches), *rows]))
            self.tables[slices, tensor] = branches if slices == 1 else branches[:1], numbers.to(device)
        return self.tables[slices, tensor]


@dataclass
class Lane:
    """Passes one after another whose result takes a place among the output's channels."""

    passes: list[Pass]
    first: int

    @property
    def channels(self) -> int:
        return self.passes[-1].channels


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 or bfloat16, the result channels-last."""
    return _run(x, _prepared(x, [steps], other, _lanes), other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`; neighbours that begin alike run in one launch."""
    return _run(x, _prepared(x, chains, None, _lanes), None)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """See `kernels.chain.gathered`; each chain's result is an image of its own, so that writes leave no gaps."""
    lanes = _prepared(x, chains, None, _lanes)
    (following,) = _prepared(x, [then], None, _lanes, sum(lane.channels for lane in lanes))
    each = lanes[-1].channels // len(lanes[-1].passes[-1].drafts)
    sizes = {draft.channels for lane in lanes for draft in lane.passes[-1].drafts}
    if sizes != {each} or each % 4:
        return chain(side_by_side(x, chains), then)
    parts = x.new_empty(len(chains), len(x), *_size_after(lanes[0], x.shape[2:]), each)
    for lane in lanes:
        _run_lane(lane, _pixels(x), None, parts[lane.first // each : (lane.first + lane.channels) // each])
    y = x.new_empty(len(x), *_size_after(following, parts.shape[2:4]), following.channels)
    _run_lane(following, parts, None, y)
    return y.permute(0, 3, 1, 2)


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.in_turn`; one launch where a norm enters and each chain is a single pass."""
    lanes = _prepared(x, [enter, *chains], None, _turns)
    if lanes:
        return _run(x, lanes, None)
    x = chain(x, enter)
    result = chain(x, chains[0])
    for steps in chains[1:]:
        result = chain(x, steps, result)
    return result


# ---- preparing ---------------------------------------------------------------------------------------------


Build = Callable[[Sequence[Chain], int, int], "list[Lane]"]


def _prepared(
    x: Tensor, chains: Sequence[Chain], other: Tensor | None, build: Build, channels: int = 0
) -> list[Lane]:
    """Made anew where a weight has changed since; `channels` come in where they aren't x's."""
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32 and torch.bfloat16")
    others = 0 if other is None else other.shape[1]
    channels = channels or x.shape[1]
    key = (build.__name__, channels, others, str(x.device), *map(id, chains[1:]))
    modules = [step for steps in chains for step in steps]
    state = [_state(t) for step in modules for t in (*step._parameters.values(), *step._buffers.values())]
    known = chains[0].prepared.get(key)
    if known is None or known[0] != state:
        known = chains[0].prepared[key] = state, build(chains, channels, others)
    return known[1]


def _state(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    # an inference tensor counts no changes: such weights are prepared at every call
    return object() if tensor.is_inference() else (tensor.data_ptr(), tensor._version)


def _lanes(chains: Sequence[Chain], channels: int, others: int) -> list[Lane]:
    drafted = [_doubling(drafts_of(steps, channels, others)) for steps in chains]
    lanes: list[Lane] = []
    first = 0
    for _, group in itertools.groupby(enumerate(drafted), lambda item: _beginning(*item)):
        lanes.append(Lane(_together([drafts for _, drafts in group], others), first))
        first += lanes[-1].channels
    return lanes


def _turns(chains: Sequence[Chain], channels: int, others: int) -> list[Lane]:
    """One pass of all, or none where they can't be one: the first of the chains is what x goes through before."""
    (enter, *more), first = drafts_of(chains[0], channels, 0), drafts_of(chains[1], channels, 0)
    drafts = [first, *(drafts_of(steps, channels, first[-1].channels) for steps in chains[2:])]
    norm = [step[0] for step in enter.within] == [k.AFFINE] and (enter.over, enter.resize_in) == (k.ALONE, k.SAME)
    adds = [[step[0] for step in draft[0].within].count(k.ADD) for draft in drafts]
    simple = all(len(draft) == 1 and _stays(draft[0], first[-1].channels) for draft in drafts)
    if more or not (norm and simple and adds == [0] + [1] * (len(drafts) - 1)):
        return []
    factors = list(enter.parts[0][0].reshape(-1, 2).T)
    return [Lane([Pass([draft[0] for draft in drafts], 0, factors, carries=True)], 0)]


def _stays(draft: Draft, channels: int) -> bool:
    """Does it keep the size, end with so many channels, and combine with nothing but by Add?"""
    sizes = draft.resize_in == draft.resize_out == k.SAME and draft.channels == channels
    return sizes and all(step[0] <= k.ADD for step in draft.within)


def _doubling(drafts: list[Draft]) -> list[Draft]:
    """The same with fewer passes: one that only doubles joins the one before."""
    joined: list[Draft] = []
    for draft in drafts:
        doubles = _only_resizes(draft) and draft.resize_in == k.DOUBLE and draft.resize_out == k.SAME
        if joined and doubles and joined[-1].resize_out == k.SAME:
            joined[-1].resize_out = k.DOUBLE
        else:
            joined.append(draft)
    return joined


def _beginning(number: int, drafts: list[Draft]) -> tuple[Any, ...]:
    """What chains have in common that can run together: how they resize, and that nothing else follows."""
    resizing = tuple((draft.resize_in, draft.resize_out) for draft in drafts)
    simple = all(_only_resizes(draft) for draft in drafts[1:])
    return (*resizing, simple or number)


def _only_resizes(draft: Draft) -> bool:
    return draft.over == k.ALONE and not draft.within


def _together(drafted: list[list[Draft]], others: int) -> list[Pass]:
    first = Pass([drafts[0] for drafts in drafted], _combined(drafted[0][0], others))
    rest = drafted[0][1:]
    if len(drafted) > 1:
        rest = [Draft(first.channels, first.channels, draft.resize_in, draft.resize_out) for draft in rest]
    return [first, *(Pass([draft], _combined(draft, others)) for draft in rest)]


def _combined(draft: Draft, others: int) -> int:
    return others if any(step[0] >= k.ADD for step in draft.within) else 0


# ---- running -----------------------------------------------------------------------------------------------


def _run(x: Tensor, lanes: list[Lane], other: Tensor | None) -> Tensor:
    """All lanes into one output, (b, c', h', w')."""
    y = x.new_empty(len(x), *_size_after(lanes[0], x.shape[2:]), sum(lane.channels for lane in lanes))
    begun, second = _pixels(x), None if other is None else _pixels(other)
    for lane in lanes:
        _run_lane(lane, begun, second, y[..., lane.first : lane.first + lane.channels])
    return y.permute(0, 3, 1, 2)


def _run_lane(lane: Lane, image: Tensor, other: Tensor | None, y: Tensor) -> None:
    """Image and y: (b, h, w, c), or parts of it, one after another: (parts, b, h, w, c / parts)."""
    for one in lane.passes:
        inner = _resized(image.shape[-3:-1], one.drafts[0].resize_in)
        place = y
        if one is not lane.passes[-1]:
            place = y.new_empty(image.shape[-4], *_resized(inner, one.drafts[0].resize_out), one.channels)
        if place.numel():
            _launch(one, image, other if one.others else None, place, inner)
        image = place


def _size_after(lane: Lane, size: Sequence[int]) -> tuple[int, int]:
    for one in lane.passes:
        size = _resized(_resized(size, one.drafts[0].resize_in), one.drafts[0].resize_out)
    h, w = size
    return h, w


def _resized(size: Sequence[int], how: int) -> tuple[int, int]:
    h, w = size
    if how == k.DOUBLE:
        return 2 * h, 2 * w
    return (h // 2, w // 2) if how == k.HALVE else (h, w)


def _pixels(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h, w, c) with pixels at equal distances, copied if they aren't."""
    image = x.permute(0, 2, 3, 1)
    b, h, w, c = image.shape
    pitch = _pitch(image)
    wanted = (h * w * pitch, w * pitch, pitch, 1)
    dense = all(size == 1 or have == want for size, have, want in zip((b, h, w, c), image.stride(), wanted))
    return image if dense and pitch >= c else image.contiguous()


def _pitch(image: Tensor) -> int:
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
    return int(aligned and all(n % together == 0 for n in (_pitch(image), *channels)))


def _part(image: Tensor) -> int:
    """Channels that lie together where an image comes in parts, else 0."""
    return image.shape[-1] if image.dim() > 4 else 0


def _suits_tensor_cores(draft: Draft) -> bool:
    return draft.size > 1 and draft.into > 2 and draft.over_out > 3


def _fits_fragments(draft: Draft) -> bool:
    """Has `fragments.cu` room for it, and does the other operand, if any, have as many channels?"""
    narrow = (draft.into, draft.over_out, draft.dilation) == (2, 1, 1) and draft.size in (3, 5, 7)
    if narrow and all(step[0] != k.POINTWISE for step in draft.within):
        return draft.widest <= _REGISTERS
    over = {
        k.DENSE: _suits_tensor_cores(draft),
        k.GROUPED: draft.into == draft.over_out or (draft.into == 4 * draft.over_out and draft.over_out % 8 == 0),
    }.get(draft.over, draft.into <= _REGISTERS)
    alike = all(before == after for kind, before, after, _ in draft.within if kind >= k.ADD)
    return over and alike and max(draft.over_out, draft.widest) <= _REGISTERS


def _launch(one: Pass, x: Tensor, other: Tensor | None, y: Tensor, size: tuple[int, int]) -> None:
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
    other_pitch = 0 if other is None else other.stride(0) if load.boosts and len(other) > 1 else _pitch(other)
    source, name = (_FRAGMENTS, "fragments") if load.tensor == FRAGMENTS else (_SOURCE, "passes")
    kernel(source, name, **constants)(
        (len(x) * across * down, len(branches) if way.spread else slices), way.threads,
        x, _pitch(x), x.shape[1], x.shape[2], other, other_pitch, y, _pitch(y), numbers, *size, across, down,
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
    return (TF32,) * (one.dense and tf32_allowed()) + (0,)


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
