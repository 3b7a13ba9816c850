"""The selective scan on CUDA GPUs through Triton: how the kernels of `gpu_kernels.py` are laid out and launched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.selective_scan import gpu_kernels, reference

_STEPS = 64  # a chunk
_CHANNELS = 16  # at most, in a program
_SIDE_BY_SIDE = 8  # chunks times channels in a program, unless there are more channels
_PROGRAMS = 2048  # of the backward walk: what an H200 holds at once at 128 registers a thread


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> Tensor:
    """See `kernels.selective_scan.selective_scan`. Float32 only; gradients are the same to the bit in every run."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes torch.float32", "use --backend auto")
    if x.numel() == 0 or A.numel() == 0:
        return reference.selective_scan(x, delta, A, B, C, D, z, delta_bias)
    return _Scan.apply(x, delta, A, B, C, D, z, delta_bias)


@dataclass(frozen=True)
class _Layout:
    """How one call is cut into programs of one warp."""

    rows: int  # the batch
    l: int
    e: int
    n: int
    tile: tuple[int, int, int]  # channels, chunks and states in a program, powers of two
    length: int  # steps in a chunk
    wide: bool  # some offset inside a row needs 64 bits

    @property
    def chunks(self) -> int:
        return triton.cdiv(self.l, self.length)

    @property
    def groups(self) -> int:
        return triton.cdiv(self.chunks, self.tile[1])

    @property
    def blocks(self) -> int:
        return triton.cdiv(self.e, self.tile[0])

    @property
    def grid(self) -> tuple[int, int]:
        return self.rows * self.groups, self.blocks

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.l, self.e, self.n, self.chunks, self.groups

    def options(self, **present: bool) -> dict[str, Any]:
        e, chunks, n = self.tile
        shape = {"N": n, "CH": chunks, "E": e, "MASKED": n != self.n, "WIDE": self.wide, "num_warps": 1}
        return shape | present


def _layout(x: Tensor, n: int, *tensors: Tensor) -> _Layout:
    rows, l, e = x.shape
    states = triton.next_power_of_2(n)
    channels = min(triton.next_power_of_2(e), _CHANNELS, max(1, 256 // states))
    length = min(_STEPS, l)
    slots = max(1, _SIDE_BY_SIDE // channels) if l > length else 1
    reach = max(sum((s - 1) * abs(d) for s, d in zip(t.shape[1:], t.stride()[1:])) for t in (x, *tensors))
    wide = max(reach, l * max(e, n)) >= 2**31
    return _Layout(rows, l, e, n, (channels, slots, states), length, wide)


def _link(ends: Tensor, totals: Tensor, A: Tensor, layout: _Layout, backward: bool) -> None:
    columns = 8
    steps = min(256, triton.next_power_of_2(layout.chunks))
    grid = (layout.rows, triton.cdiv(layout.e * layout.n, columns))
    gpu_kernels.link_chunks[grid](
        ends, totals, A, *A.stride(), layout.e, layout.n, layout.chunks, K=steps, COLUMNS=columns, BACKWARD=backward, num_warps=4
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, delta, A, B, C, D, z, bias):  # type: ignore[no-untyped-def]
        D, bias = (None if t is None else t.contiguous() for t in (D, bias))
        layout = _layout(x, A.shape[1], *(t for t in (delta, B, C, z) if t is not None))
        y = x.new_empty(x.shape)
        carries = x.new_empty(layout.rows, layout.chunks, layout.n, layout.e)
        totals = x.new_empty(layout.rows, layout.chunks, layout.e)
        gate = x if z is None else z
        xs, deltas, zs, Bs, Cs = ((t, *t.stride()) for t in (x, delta, gate, B, C))
        has_bias = bias is not None
        with torch.cuda.device_of(x):
            if layout.chunks > 1:
                gpu_kernels.chunk_ends[layout.grid](
                    *xs, *deltas, *Bs, A, *A.stride(), bias if has_bias else A, carries, totals, *layout.sizes, layout.length,
                    **layout.options(HAS_BIAS=has_bias)
                )  # fmt: skip
                _link(carries, totals, A, layout, backward=False)
            gpu_kernels.replay[layout.grid](
                *xs, *deltas, *zs, *Bs, *Cs, A, *A.stride(), A if D is None else D, bias if has_bias else A, carries, y,
                *layout.sizes, layout.length,
                **layout.options(HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=has_bias)
            )  # fmt: skip
        ctx.save_for_backward(x, delta, A, B, C, D, z, bias, carries, totals)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, delta, A, B, C, D, z, bias, carries, totals = ctx.saved_tensors
        layout = _layout(x, A.shape[1], *(t for t in (delta, B, C, z, dy) if t is not None))
        with torch.cuda.device_of(x):
            adjoints = _adjoints(layout, dy, delta, A, C, z, bias, totals)
            return _gradients(layout, dy, x, delta, A, B, C, D, z, bias, carries, adjoints)


def _adjoints(
    layout: _Layout, dy: Tensor, delta: Tensor, A: Tensor, C: Tensor, z: Tensor | None, bias: Tensor | None, totals: Tensor
) -> Tensor:
    """(b, chunks, n, e): what each chunk hands to the state before it."""
    adjoints = dy.new_empty(layout.rows, layout.chunks, layout.n, layout.e)
    if layout.chunks == 1:
        return adjoints
    dys, deltas, zs, Cs = ((t, *t.stride()) for t in (dy, delta, dy if z is None else z, C))
    gpu_kernels.adjoint_ends[layout.grid](
        *dys, *deltas, *zs, *Cs, A, *A.stride(), A if bias is None else bias, adjoints, *layout.sizes, layout.length,
        **layout.options(HAS_Z=z is not None, HAS_BIAS=bias is not None)
    )  # fmt: skip
    _link(adjoints, totals, A, layout, backward=True)
    return adjoints


def _gradients(
    layout: _Layout, dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, bias: Tensor | None, carries: Tensor, adjoints: Tensor
) -> tuple[Tensor | None, ...]:  # fmt: skip
    works, blocks = layout.grid
    programs = min(works, _PROGRAMS)
    stash = x.new_empty(programs * blocks * layout.length * layout.tile[0] * layout.tile[1] * layout.tile[2])
    dx, ddelta, dz = x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(x.shape if z is not None else 0)
    dB, dC = x.new_empty(2, blocks, *B.shape)
    dA = x.new_empty(programs, layout.n, layout.e)
    dD, dbias = x.new_empty(2, programs, layout.e)
    inputs = ((t, *t.stride()) for t in (dy, x, delta, x if z is None else z, B, C))
    gpu_kernels.gradients[(programs, blocks)](
        *(v for tensor in inputs for v in tensor), A, *A.stride(), A if D is None else D, A if bias is None else bias,
        carries, adjoints, stash, dx, ddelta, dz, dB, dC, *dB.stride()[1:], dA, dD, dbias,
        *layout.sizes, works, layout.rows, layout.length,
        **layout.options(HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=bias is not None)
    )  # fmt: skip
    dB, dC = (t[0] if blocks == 1 else t.sum(0) for t in (dB, dC))
    return (
        dx, ddelta, dA.sum(0).t(), dB, dC,
        None if D is None else dD.sum(0), None if z is None else dz, None if bias is None else dbias.sum(0),
    )  # fmt: skip
