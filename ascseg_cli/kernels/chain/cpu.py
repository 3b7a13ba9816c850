"""Chains compiled for the CPU, in evaluation and without gradients: passes prepared once and launched."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.blocks import ROWS
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain.codes import DOUBLE, HALVE, SAME
from ascseg_cli.kernels.chain.cpu_plan import Pass, passes
from ascseg_cli.kernels.chain.steps import Add
from ascseg_cli.kernels.compiled import Kernel, Work, flat, launch_together, span

run = Kernel("chain.cpu_kernels", "run")

_ROW = 256  # numbers of a row where tensors are added, whatever their shape


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 on the CPU."""
    prepared = _prepared(steps, x, other)
    return run_passes(x, prepared, other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`; every chain writes into its place, and all must give the same size.

    The first passes of all chains run together, then the second ones, and so on.
    """
    prepared = [_prepared(steps, x, None) for steps in chains]
    h, w = x.shape[2:]
    for one in prepared[0]:
        h, w = _resized(_resized((h, w), one.resize_in), one.resize_out)
    y = x.new_empty(len(x), sum(ps[-1].channels for ps in prepared), h, w)
    places = y.split([ps[-1].channels for ps in prepared], 1)
    results = [x] * len(chains)
    for turn in range(max(len(ps) for ps in prepared)):
        works = []
        for number, ps in enumerate(prepared):
            if turn < len(ps):
                place = places[number] if turn + 1 == len(ps) else None
                results[number], work = _work(ps[turn], results[number], None, place)
                works.append(work)
        launch_together(works)
    return y


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.in_turn`. Chains of one pass that keeps the size run together.

    Such a pass reads of the result before it only the rows that the same thread has written.
    """
    q = chain(x, enter)
    result, works = None, []
    for steps in chains:
        prepared = _prepared(steps, q, result)
        if len(prepared) == 1 and prepared[0].resize_in == prepared[0].resize_out == SAME:
            result, work = _work(prepared[0], q, result, None)
            works.append(work)
        else:
            launch_together(works)
            result, works = run_passes(q, prepared, result), []
    launch_together(works)
    assert result is not None
    return result


def _prepared(steps: Chain, x: Tensor, other: Tensor | None) -> list[Pass]:
    """The passes of a chain, made anew where a weight has changed since."""
    check_dtype(x)
    key = (x.shape[1], 0 if other is None else other.shape[1])
    known = steps.prepared.get(key)
    if known is not None and backend.is_unchanging():
        return known[1]
    state = [_state(t) for step in steps for t in (*step._parameters.values(), *step._buffers.values())]
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


def run_passes(x: Tensor, prepared: list[Pass], other: Tensor | None = None) -> Tensor:
    """All passes, one after another."""
    for one in prepared:
        x, work = _work(one, x, other, None)
        launch_together([work])
    return x


def _work(one: Pass, x: Tensor, other: Tensor | None, y: Tensor | None) -> tuple[Tensor, Work]:
    """What a pass writes, y if there is one, and the work that does it."""
    h, w = _resized((x.shape[2], x.shape[3]), one.resize_in)
    if y is None:
        y = x.new_empty(len(x), one.channels, *_resized((h, w), one.resize_out))
    second = other if one.combines and other is not None else x
    operands = (*flat(dense_rows(x)), *flat(dense_rows(second)), *flat(y))
    bands = -(-h // ROWS)
    return y, (
        run,
        len(x) * bands if y.numel() else 0,
        (*operands, one.code, one.numbers, h, w, one.channels, bands),
    )


def addition(a: Tensor, b: Tensor, y: Tensor) -> Work | None:
    """The work that adds a and b to y, all three without gaps in memory; None where it would be little."""
    rows, rest = divmod(y.numel(), _ROW)
    places = [[step for n, step in zip(t.shape, t.stride()) if n > 1] for t in (a, b, y)]
    if rest or rows < ROWS or not a.shape == b.shape == y.shape or not places[0] == places[1] == places[2]:
        return None
    if span(y) != y.numel():
        return None
    a, b, y = (t.as_strided((1, 1, rows, _ROW), (y.numel(), y.numel(), _ROW, 1)) for t in (a, b, y))
    return _work(_sum(), a, b, y)[1]


@functools.cache
def _sum() -> Pass:
    return passes([Add()], 1, 1)[0]


def check_dtype(x: Tensor) -> None:
    """Raises ShapeError where x isn't of float32."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the cpu backend takes torch.float32", "use --backend auto")


def dense_rows(x: Tensor) -> Tensor:
    """x with its rows dense."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()
