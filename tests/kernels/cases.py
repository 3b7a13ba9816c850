"""The inputs on which every backend of a kernel is judged, and the judge: no pytest, so any script can use it.

case = SCAN_CASES["65,536 steps"]
judge(selective_scan, reference.selective_scan, case.inputs("cuda"), case.gradient("cuda"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor | None]
Operator = Callable[..., Tensor]


@dataclass(frozen=True)
class ScanCase:
    """Arguments of `selective_scan`, drawn from a fixed seed."""

    b: int
    l: int
    e: int
    n: int = 16
    absent: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # arguments that want no gradient
    strided: bool = True
    delta: tuple[float, float] = (-4.0, 2.0)
    decay: tuple[float, float] = (0.5, 16.0)  # -A, log-uniform
    seed: int = 0
    draws: int = 3

    def inputs(self, device: str = "cpu") -> dict[str, Tensor | None]:
        """Float32 leaves by argument name; B, C and delta are slices of one projection, x is transposed."""
        g = torch.Generator().manual_seed(self.seed)
        b, l, e, n = self.b, self.l, self.e, self.n
        projection = torch.randn(b, l, e + 2 * n, generator=g)
        projection[..., :e].uniform_(*self.delta, generator=g)
        low, high = (math.log(v) for v in self.decay)
        drawn = {
            "x": torch.randn(b, e, l, generator=g).to(device).transpose(1, 2),
            "A": -torch.empty(e, n).uniform_(low, high, generator=g).exp(),
            "D": torch.randn(e, generator=g),
            "z": 3 * torch.randn(b, l, 2 * e, generator=g).to(device)[..., e:],
            "delta_bias": torch.empty(e).uniform_(-2, 2, generator=g),
        }
        projection = projection.to(device)
        drawn["delta"], drawn["B"], drawn["C"] = projection.split([e, n, n], -1)
        if not self.strided:
            drawn = {name: t.contiguous() for name, t in drawn.items()}
        order = ("x", "delta", "A", "B", "C", "D", "z", "delta_bias")
        return {name: None if name in self.absent else self._leaf(name, drawn[name], device) for name in order}

    def _leaf(self, name: str, t: Tensor, device: str) -> Tensor:
        return t.detach().to(device).requires_grad_(name not in self.fixed)

    def gradient(self, device: str = "cpu") -> Tensor:
        """What the loss says about y: (b, l, e), not contiguous."""
        g = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(self.b, self.e, self.l, generator=g).to(device).transpose(1, 2)


@dataclass(frozen=True)
class DeformCase:
    """Arguments of `deform_depthwise`, drawn from a fixed seed."""

    b: int
    c: int
    h: int
    w: int
    reach: float = 2.0  # standard deviation of the offsets, px
    quantum: float = 0.0  # offsets are multiples of this
    fixed: tuple[str, ...] = ()
    strided: bool = True
    seed: int = 0
    draws: int = 3

    def inputs(self, device: str = "cpu") -> dict[str, Tensor | None]:
        """Float32 leaves by argument name; x is channels-last, offset a slice of a larger tensor."""
        g = torch.Generator().manual_seed(self.seed)
        b, c, h, w = self.b, self.c, self.h, self.w
        x = torch.randn(b, h, w, c, generator=g).to(device).permute(0, 3, 1, 2)
        offset = self.reach * torch.randn(b, 20, h, w, generator=g)[:, 1:19]
        if self.quantum:
            offset = (offset / self.quantum).round() * self.quantum
        drawn = {"x": x, "offset": offset, "weight": torch.randn(c, 1, 3, 3, generator=g)}
        if not self.strided:
            drawn = {name: t.contiguous() for name, t in drawn.items()}
        return {name: t.detach().to(device).requires_grad_(name not in self.fixed) for name, t in drawn.items()}

    def gradient(self, device: str = "cpu") -> Tensor:
        """What the loss says about y: (b, c, h, w), not contiguous."""
        g = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(self.b, self.c, self.w, self.h, generator=g).to(device).transpose(2, 3)


SCAN_CASES: dict[str, ScanCase] = {
    "a stage of tiny": ScanCase(4, 1024, 4),
    "contiguous": ScanCase(2, 96, 8, strided=False),
    "one step": ScanCase(3, 1, 5),
    "two steps": ScanCase(1, 2, 2),
    "no steps": ScanCase(2, 0, 3),
    "empty batch": ScanCase(0, 17, 3),
    "one channel": ScanCase(1, 333, 1),
    "odd": ScanCase(3, 77, 7),
    "a block less one": ScanCase(2, 63, 4),
    "a block": ScanCase(2, 64, 4),
    "a block and one": ScanCase(2, 65, 12),
    "blocks less one": ScanCase(1, 1023, 3),
    "blocks and one": ScanCase(1, 1025, 6),
    "48 channels": ScanCase(2, 130, 48),
    "1 state": ScanCase(2, 100, 3, n=1),
    "5 states": ScanCase(2, 70, 3, n=5),
    "17 states": ScanCase(2, 70, 5, n=17),
    "32 states": ScanCase(1, 129, 3, n=32),
    "no states": ScanCase(2, 9, 3, n=0),
    "no channels": ScanCase(2, 9, 0),
    "without D": ScanCase(2, 50, 4, absent=("D",)),
    "without z": ScanCase(2, 50, 4, absent=("z",)),
    "without bias": ScanCase(2, 50, 4, absent=("delta_bias",)),
    "only what must be": ScanCase(2, 150, 4, absent=("D", "z", "delta_bias")),
    "gradient of x alone": ScanCase(2, 50, 4, fixed=("delta", "A", "B", "C", "D", "z", "delta_bias")),
    "gradient of A and B": ScanCase(2, 50, 4, fixed=("x", "delta", "C", "D", "z", "delta_bias")),
    "65,536 steps": ScanCase(1, 65_536, 12, n=4, draws=1),
    "65,536 slow steps": ScanCase(1, 65_536, 2, delta=(-9.0, -5.0), absent=("delta_bias",), draws=1),
    "steps from 0 to 100": ScanCase(2, 200, 5, delta=(-100.0, 100.0)),
    "decay to 1e4": ScanCase(2, 200, 5, decay=(1e-4, 1e4)),
    "both extreme": ScanCase(2, 300, 5, delta=(-100.0, 100.0), decay=(1e-4, 1e4)),
    "large steps, slow decay": ScanCase(2, 200, 4, delta=(15.0, 100.0), decay=(1e-6, 1e-3)),
    "vanishing steps": ScanCase(2, 200, 4, delta=(-75.0, -45.0)),
}

DEFORM_CASES: dict[str, DeformCase] = {
    "a stage of tiny": DeformCase(1, 8, 48, 64),
    "contiguous": DeformCase(2, 8, 16, 16, strided=False),
    "odd": DeformCase(3, 5, 13, 9),
    "one pixel": DeformCase(2, 4, 1, 1),
    "one row": DeformCase(1, 3, 1, 37),
    "one column": DeformCase(1, 3, 41, 1),
    "one channel": DeformCase(2, 1, 12, 20),
    "33 channels": DeformCase(1, 33, 11, 17),
    "128 channels": DeformCase(1, 128, 7, 6),
    "empty batch": DeformCase(0, 4, 8, 8),
    "no rows": DeformCase(2, 4, 0, 8),
    "no channels": DeformCase(2, 0, 8, 8),
    "small offsets": DeformCase(2, 8, 20, 31, reach=0.05),
    "offsets far outside": DeformCase(2, 8, 20, 31, reach=1e4),
    "offsets beyond integers": DeformCase(1, 3, 9, 10, reach=1e30),
    "whole offsets": DeformCase(2, 6, 15, 18, quantum=1.0),
    "half offsets": DeformCase(2, 6, 15, 18, quantum=0.5),
    "no offset": DeformCase(2, 6, 15, 18, reach=0.0),
    "gradient of x alone": DeformCase(1, 8, 14, 15, fixed=("offset", "weight")),
    "gradient of offset alone": DeformCase(1, 8, 14, 15, fixed=("x", "weight")),
    "gradient of weight alone": DeformCase(1, 8, 14, 15, fixed=("x", "offset")),
    "wide": DeformCase(1, 3, 5, 700),
    "several blocks": DeformCase(2, 16, 65, 63),
}


def assert_as_exact(
    got: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor], slack: float = 2.0, name: str = "y"
) -> None:
    """`got` errs at most `slack` times as much as plain torch in the same dtype, but for its last bit.

    Each is one tensor a draw; the largest errors of all draws are compared, relative to the largest values, since
    in a single draw of a few numbers either may be lucky.

    got    what a backend computed
    plain  the reference in got's dtype
    exact  the reference in float64
    """
    for g, p, e in zip(got, plain, exact, strict=True):
        assert g.shape == p.shape == e.shape, f"{name}: {g.shape}, {p.shape}, {e.shape}"
        assert g.dtype == p.dtype, f"{name}: {g.dtype}, not {p.dtype}"
    if exact[0].numel() == 0:
        return
    err, base = (_largest(ts, exact) for ts in (got, plain))
    limit = slack * base + torch.finfo(got[0].dtype).eps
    assert err <= limit, f"{name}: max error {err:.3g} > {limit:.3g} (plain torch {base:.3g})"  # NaN fails too


def _largest(ts: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest relative error of any draw; NaN if any is."""
    errors = [(t.double() - e).abs().max() / e.abs().max().clamp_min(1e-300) for t, e in zip(ts, exact)]
    return torch.stack(errors).max().item()


def results(
    operator: Operator, inputs: Inputs, gradient: Tensor, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """y and the gradient of every input that wants one, computed in `dtype`."""
    leaves = {name: None if t is None else _fresh(t, dtype) for name, t in inputs.items()}
    y = operator(**leaves)
    y.backward(gradient.to(dtype))
    wanted = {name: t for name, t in leaves.items() if t is not None and t.requires_grad}
    for name, t in wanted.items():
        assert t.grad is not None, f"{name} got no gradient"
    for name, t in leaves.items():
        assert t is None or t.requires_grad or t.grad is None, f"{name} wanted no gradient"
    return {"y": y.detach().clone()} | {f"grad {name}": t.grad.clone() for name, t in wanted.items()}


def _fresh(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t.detach().to(dtype).requires_grad_(t.requires_grad)


def judge(
    operator: Operator, reference: Operator, case: ScanCase | DeformCase, device: str = "cpu", slack: float = 2.0
) -> None:
    """Raise AssertionError unless `operator` is as exact as `reference`, forward and in every gradient."""
    got, plain, exact = [], [], []
    for draw in range(case.draws):
        drawn = replace(case, seed=case.seed + 2 * draw)
        inputs, gradient = drawn.inputs(device), drawn.gradient(device)
        got.append(results(operator, inputs, gradient))
        plain.append(results(reference, inputs, gradient))
        exact.append(results(reference, inputs, gradient, torch.float64))
    assert got[0].keys() == exact[0].keys()
    for name in exact[0]:
        assert_as_exact(*([draw[name] for draw in ts] for ts in (got, plain, exact)), slack, name)
