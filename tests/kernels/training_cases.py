"""Where the GPU's operators for training run in tests, and how their results and gradients are judged.

with on("emulated") as device:
    judge(operator, plain, leaves, device)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from cases import assert_as_exact
from emulator import emulate
from torch import Tensor

DEVICES = ("emulated", "cuda")
Leaves = Mapping[str, Tensor | None]
Results = Sequence[Tensor | None]


@contextlib.contextmanager
def on(device: str) -> Iterator[str]:
    """Runs kernels on this device; skips, with the reason, where that can't be. Gives torch's name of it."""
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")
        yield "cuda"
        return
    if emulate.COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulate.emulated():
        yield "cpu"


def judge(
    operator: Callable[..., Results],
    plain: Callable[..., Results],
    draw: Callable[[], Leaves],
    device: str,
    *,
    fixed: Sequence[str] = (),
    silent: Sequence[int] = (),
    draws: int = 3,
) -> None:
    """Raise AssertionError unless all results and gradients err at most twice as much as plain torch's in float32.

    operator  leaves by name -> results
    plain     the same in plain torch, any dtype; in float64 it is the oracle
    draw      float32 leaves from torch's generator; names that begin with "_" are passed on and want no gradient
    fixed     leaves that want no gradient
    silent    results into which no gradient flows
    """
    got, base, exact = [], [], []
    for seed in range(draws):
        torch.manual_seed(seed)
        leaves = {name: None if t is None else t.to(device) for name, t in draw().items()}
        for into, function, dtype in (
            (got, operator, torch.float32), (base, plain, torch.float32), (exact, plain, torch.float64)
        ):  # fmt: skip
            into.append(outcome(function, leaves, dtype, fixed, silent))
    assert got[0].keys() == exact[0].keys()
    for name in exact[0]:
        assert_as_exact(*([d[name] for d in ts] for ts in (got, base, exact)), name=name)


def outcome(
    function: Callable[..., Results],
    leaves: Leaves,
    dtype: torch.dtype = torch.float32,
    fixed: Sequence[str] = (),
    silent: Sequence[int] = (),
) -> dict[str, Tensor]:
    """All results, and the gradients of all leaves that want one; those of the results are drawn from a seed."""
    fresh = {name: None if t is None else t.detach().to(dtype) for name, t in leaves.items()}
    wanted = {
        name: t.requires_grad_()
        for name, t in fresh.items()
        if t is not None and name not in fixed and not name.startswith("_")
    }
    results = function(**fresh)
    torch.manual_seed(1000)
    gradients = [torch.randn(r.shape).to(r) if r is not None else None for r in results]
    flowing = [
        (r, g)
        for i, (r, g) in enumerate(zip(results, gradients))
        if r is not None and r.requires_grad and i not in silent
    ]
    found = torch.autograd.grad([r for r, _ in flowing], list(wanted.values()), [g for _, g in flowing])
    named = {f"result {i}": r for i, r in enumerate(results) if r is not None}
    named |= {f"grad {name}": t for name, t in zip(wanted, found)}
    return {name: t.detach().clone() for name, t in named.items()}
