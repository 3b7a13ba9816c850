"""The selective scan on CUDA GPUs through Triton: how the kernels of `gpu_kernels.py` are cut and launched.

The constants are the best of those timed on an H200 for the four stages of variant tiny, 4 and 32 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.selective_scan import gpu_gradients, gpu_kernels, reference

_CHANNELS = 16  # at most, in a program
_FORWARD_LANES = 8  # chunks times channels in a program, where there aren't more channels
_BACKWARD_LANES = 16
_BACKWARD_PROGRAMS = 1024  # about what an H200 holds at once; each keeps the states of the chunks in work


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
    """See `kernels.selective_scan.selective_scan`. Float32; gradients are bit-equal in every run."""
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
        return self.l, self.e, self.n, self.chunks, self.groups, self.length

    def options(self, **present: bool) -> dict[str, Any]:
        e, chunks, n = self.tile
        shape = {"N": n, "CH": chunks, "E": e, "MASKED": n != self.n, "WIDE": self.wide, "num_warps": 1}
        return shape | present


def _layout(lanes: int, x: Tensor, n: int, *others: Tensor | None) -> _Layout:
    rows, l, e = x.shape
    states = triton.next_power_of_2(n)
    channels = min(triton.next_power_of_2(e), _CHANNELS, max(1, 256 // states))
    length = min(l, 16 if l <= 4096 else 32)
    slots = max(1, lanes // channels) if l > length else 1
    tensors = (x, *(t for t in others if t is not None))
    reach = max(sum((s - 1) * abs(d) for s, d in zip(t.shape[1:], t.stride()[1:])) for t in tensors)
    wide = max(reach, l * max(e, n)) >= 2**31
    return _Layout(rows, l, e, n, (channels, slots, states), length, wide)


def _link(ends: Tensor, totals: Tensor, A: Tensor, layout: _Layout, backward: bool) -> None:
    columns, steps = 8, min(256, triton.next_power_of_2(layout.chunks))
    grid = (layout.rows, triton.cdiv(layout.e * layout.n, columns))
    sizes = (layout.e, layout.n, layout.chunks)
    gpu_kernels.link_chunks[grid](
        ends, totals, A, *A.stride(), *sizes, K=steps, COLUMNS=columns, BACKWARD=backward, num_warps=4
    )


def _forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state after each chunk (b, chunks, n, e), the ΣΔ of each chunk (b, chunks, e)."""
    layout = _layout(_FORWARD_LANES, x, A.shape[1], delta, B, C, z)
    y = x.new_empty(x.shape)
    carries = x.new_empty(layout.rows, layout.chunks, layout.n, layout.e)
    totals = x.new_empty(layout.rows, layout.chunks, layout.e)
    xs, deltas, zs, Bs, Cs, As = ((t, *t.stride()) for t in (x, delta, x if z is None else z, B, C, A))
    shift = A if bias is None else bias
    if layout.chunks > 1:
        gpu_kernels.chunk_ends[layout.grid](
            *xs,
            *deltas,
            *Bs,
            *As,
            shift,
            carries,
            totals,
            *layout.sizes,
            **layout.options(HAS_BIAS=bias is not None),
        )
        _link(carries, totals, A, layout, backward=False)
    gpu_kernels.replay[layout.grid](
        *xs, *deltas, *zs, *Bs, *Cs, *As, A if D is None else D, shift, carries, y, *layout.sizes,
        **layout.options(HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=bias is not None)
    )  # fmt: skip
    return y, carries, totals


def _adjoints(
    dy: Tensor, delta: Tensor, A: Tensor, C: Tensor, z: Tensor | None, bias: Tensor | None, totals: Tensor
) -> Tensor:
    """(b, chunks, n, e): what each chunk hands to the state before it."""
    layout = _layout(_FORWARD_LANES, dy, A.shape[1], delta, C, z)
    adjoints = dy.new_empty(layout.rows, layout.chunks, layout.n, layout.e)
    if layout.chunks == 1:
        return adjoints
    dys, deltas, zs, Cs, As = ((t, *t.stride()) for t in (dy, delta, dy if z is None else z, C, A))
    gpu_gradients.adjoint_ends[layout.grid](
        *dys, *deltas, *zs, *Cs, *As, A if bias is None else bias, adjoints, *layout.sizes,
        **layout.options(HAS_Z=z is not None, HAS_BIAS=bias is not None)
    )  # fmt: skip
    _link(adjoints, totals, A, layout, backward=True)
    return adjoints


def _gradients(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, bias: Tensor | None, carries: Tensor, adjoints: Tensor
) -> tuple[Tensor | None, ...]:  # fmt: skip
    layout = _layout(_BACKWARD_LANES, x, A.shape[1], delta, B, C, z, dy)
    works, blocks = layout.grid
    programs = min(works, _BACKWARD_PROGRAMS)
    stash = x.new_empty(programs, blocks, layout.length, *layout.tile)
    dx, ddelta, dz = (x.new_empty(x.shape) for _ in range(3))
    dB, dC = x.new_empty(2, blocks, *B.shape)
    dA = x.new_empty(programs, layout.n, layout.e)
    dD, dbias = x.new_empty(2, programs, layout.e)
    inputs = ((t, *t.stride()) for t in (dy, x, delta, x if z is None else z, B, C, A))
    gpu_gradients.gradients[(programs, blocks)](
        *(v for tensor in inputs for v in tensor), A if D is None else D, A if bias is None else bias,
        carries, adjoints, stash, dx, ddelta, dz, dB, dC, *dB.stride()[1:], dA, dD, dbias,
        works, layout.rows, *layout.sizes,
        **layout.options(HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=bias is not None)
    )  # fmt: skip
    dB, dC = (t[0] if blocks == 1 else t.sum(0) for t in (dB, dC))
    return (
        dx, ddelta, dA.sum(0).t(), dB, dC,
        None if D is None else dD.sum(0), None if z is None else dz, None if bias is None else dbias.sum(0),
    )  # fmt: skip


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, delta, A, B, C, D, z, bias):  # type: ignore[no-untyped-def]
        D, bias = (None if t is None else t.contiguous() for t in (D, bias))
        with torch.cuda.device_of(x):
            y, carries, totals = _forward(x, delta, A, B, C, D, z, bias)
        ctx.save_for_backward(x, delta, A, B, C, D, z, bias, carries, totals)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, delta, A, B, C, D, z, bias, carries, totals = ctx.saved_tensors
        with torch.cuda.device_of(x):
            adjoints = _adjoints(dy, delta, A, C, z, bias, totals)
            return _gradients(dy, x, delta, A, B, C, D, z, bias, carries, adjoints)
