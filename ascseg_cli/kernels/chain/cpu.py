"""Chains compiled for the CPU, in evaluation and without gradients: passes prepared once and launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.blocks import ROWS
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain.codes import DOUBLE, HALVE
from ascseg_cli.kernels.chain.cpu_plan import Pass, passes
from ascseg_cli.kernels.compiled import Kernel, flat, launch

run = Kernel("chain.cpu_kernels", "run")


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 on the CPU."""
    prepared = _prepared(steps, x, other)
    return run_passes(x, prepared, other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`; every chain writes into its place, and all must give the same size."""
    prepared = [_prepared(steps, x, None) for steps in chains]
    h, w = x.shape[2:]
    for one in prepared[0]:
        h, w = _resized(_resized((h, w), one.resize_in), one.resize_out)
    y = x.new_empty(len(x), sum(ps[-1].channels for ps in prepared), h, w)
    for ps, place in zip(prepared, y.split([ps[-1].channels for ps in prepared], 1)):
        run_passes(x, ps, None, place)
    return y


def _prepared(steps: Chain, x: Tensor, other: Tensor | None) -> list[Pass]:
    """The passes of a chain, made anew where a weight has changed since."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the cpu backend takes torch.float32", "use --backend auto")
    key = (x.shape[1], 0 if other is None else other.shape[1])
    state = [_state(t) for step in steps for t in (*step._parameters.values(), *step._buffers.values())]
    known = steps.prepared.get(key)
    if known is None or known[0] != state:
        known = steps.prepared[key] = state, passes(steps, *key)
    return known[1]


def _state(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    # an inference tensor counts no changes: such weights are prepared at every call
    return object() if tensor.is_inference() else (tensor.data_ptr(), tensor._version)


def _resized(size: tuple[int, int], how: int) -> tuple[int, int]:
    h, w = size
    if how == DOUBLE:
        return 2 * h, 2 * w
    return (h // 2, w // 2) if how == HALVE else (h, w)


def run_passes(x: Tensor, prepared: list[Pass], other: Tensor | None = None, y: Tensor | None = None) -> Tensor:
    """All passes; the last writes into y, if there is one."""
    for one in prepared:
        h, w = _resized((x.shape[2], x.shape[3]), one.resize_in)
        out = (len(x), one.channels, *_resized((h, w), one.resize_out))
        target = x.new_empty(out) if y is None or one is not prepared[-1] else y
        second = other if one.combines and other is not None else x
        _pass(one, _rows(x), _rows(second), target, h, w)
        x = target
    return x


def _rows(x: Tensor) -> Tensor:
    """x with its rows dense."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _pass(one: Pass, x: Tensor, other: Tensor, y: Tensor, h: int, w: int) -> None:
    if not y.numel():
        return
    bands = -(-h // ROWS)
    operands = (*flat(x), *flat(other), *flat(y))
    launch(run, len(x) * bands, *operands, one.code, one.numbers, h, w, one.channels, bands)
