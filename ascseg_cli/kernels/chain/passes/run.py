"""Chains on the GPU, in evaluation and without gradients: passes prepared once, compiled for what they do.

Images are channels-last, in float32 or bfloat16; sums are float32's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.lanes import Lane, lanes_in_turn, lanes_of
from ascseg_cli.kernels.chain.passes.launch import launch, pitch


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 or bfloat16, the result channels-last."""
    return _run(x, _prepared(x, [steps], other, lanes_of), other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`; neighbours that begin alike run in one launch."""
    return _run(x, _prepared(x, chains, None, lanes_of), None)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """See `kernels.chain.gathered`; each chain's result is an image of its own, so that writes leave no gaps."""
    lanes = _prepared(x, chains, None, lanes_of)
    (following,) = _prepared(x, [then], None, lanes_of, sum(lane.channels for lane in lanes))
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
    lanes = _prepared(x, [enter, *chains], None, lanes_in_turn)
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
            launch(one, image, other if one.others else None, place, inner)
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
    apart = pitch(image)
    wanted = (h * w * apart, w * apart, apart, 1)
    dense = all(size == 1 or have == want for size, have, want in zip((b, h, w, c), image.stride(), wanted))
    return image if dense and apart >= c else image.contiguous()
