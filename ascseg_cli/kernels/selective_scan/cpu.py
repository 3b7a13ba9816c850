"""The selective scan compiled for the CPU: how its operands are laid out and its kernels launched."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.blocks import CHUNK, WIDTH
from ascseg_cli.kernels.compiled import Kernel, flat, launch, split

scan = Kernel("selective_scan.cpu_kernels", "scan")
scan_backward = Kernel("selective_scan.cpu_kernels", "scan_backward")


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
    """See `kernels.selective_scan.selective_scan`; float32 on the CPU."""
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; the cpu backend takes torch.float32", "use --backend auto")
    inputs = (x, delta, A, B, C, D, z, delta_bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        return _Scan.apply(*inputs)
    return _forward(*inputs, keep=False)[0]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> Tensor:
        y, carries = _forward(*inputs, keep=True)
        ctx.save_for_backward(*inputs, carries)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, carries = ctx.saved_tensors
        gradients = _backward(*inputs, carries, gradient)
        return tuple(g if wanted else None for g, wanted in zip(gradients, ctx.needs_input_grad))


class _Arguments:
    """The operands as the kernels take them: the states padded to whole vectors, what is absent filled in."""

    def __init__(self, x, delta, A, B, C, D, z, delta_bias) -> None:  # type: ignore[no-untyped-def]
        self.b, self.l, self.e = x.shape
        self.n = A.shape[1]
        self.states = max(1, -(-self.n // WIDTH)) * WIDTH
        self.A, self.B, self.C = (flat(self._whole_vectors(t)) for t in (A.contiguous(), B, C))
        nothing = x.new_zeros(self.e)
        self.D, self.bias = (flat((nothing if t is None else t).contiguous())[0] for t in (D, delta_bias))
        self.x, self.delta, self.z = flat(x), flat(delta), flat(x if z is None else z)
        self.gated = z is not None
        self.blocks = split(self.b, self.e)
        self.tasks = self.b * self.blocks if x.numel() else 0

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.l, self.e, self.states, self.blocks

    def operands(self) -> tuple[Any, ...]:
        return (*self.x, *self.delta, *self.z, self.gated, self.A[0], *self.B, *self.C, self.D, self.bias)

    def _whole_vectors(self, t: Tensor) -> Tensor:
        """t with its last dimension dense and padded with zeros to whole vectors: such a state stays zero."""
        missing = self.states - self.n
        if missing:
            return F.pad(t, (0, missing))
        return t if t.stride(-1) == 1 else t.contiguous()


def _forward(*inputs: Any, keep: bool) -> tuple[Tensor, Tensor]:
    """y, and if wanted the states at the start of each chunk, (b, chunks, e, states)."""
    a, x = _Arguments(*inputs), inputs[0]
    y = x.new_empty(a.b, a.l, a.e)
    carries = x.new_empty(a.b, -(-a.l // CHUNK) if keep else 0, a.e, a.states)
    launch(scan, a.tasks, *a.operands(), flat(y)[0], flat(carries)[0], keep, *a.sizes)
    return y, carries


def _backward(*tensors: Any) -> tuple[Tensor | None, ...]:
    """The gradients of x, delta, A, B, C, D, z, delta_bias."""
    *inputs, carries, gradient = tensors
    a, x = _Arguments(*inputs), inputs[0]
    gx, gdelta, gz = (x.new_empty(a.b, a.l, a.e) for _ in range(3))
    fill = x.new_empty if a.tasks else x.new_zeros
    gB, gC = (fill(a.b, a.blocks, a.l, a.states) for _ in range(2))  # blocks share them: summed after
    gA = x.new_zeros(a.b, a.e, a.states, dtype=torch.float64)
    gD, gbias = (x.new_zeros(a.b, a.e, dtype=torch.float64) for _ in range(2))
    results = (flat(t)[0] for t in (gx, gdelta, gz, gA, gB, gC, gD, gbias))
    launch(scan_backward, a.tasks, *a.operands(), flat(carries)[0], *flat(gradient), *results, *a.sizes)
    gB, gC = ((t[:, 0] if a.blocks == 1 else t.sum(1))[..., : a.n] for t in (gB, gC))
    gA, gD, gbias = (t.sum(0).to(x.dtype) for t in (gA[..., : a.n], gD, gbias))
    return gx, gdelta, gA, gB, gC, gD, gz, gbias
