"""The adapter to the mamba_ssm package, against that package's own documented formula: order, shapes, softplus.

The package itself needs a GPU and a compiler; here a stand-in takes its place, written from the documentation of
`selective_scan_fn`: channels before tokens, B and C (b, groups, n, l), float32 inside.
"""

from __future__ import annotations

import importlib
import sys
import types

import pytest
import torch
from torch import Tensor

from ascseg_cli.kernels.selective_scan import reference


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    b, d, l = u.shape
    assert delta.shape == (b, d, l)
    assert B.shape == C.shape == (b, 1, A.shape[1], l)
    delta = delta if delta_bias is None else delta + delta_bias[:, None]
    delta = torch.nn.functional.softplus(delta) if delta_softplus else delta
    state, outs = u.new_zeros(b, d, A.shape[1]), []
    for i in range(l):
        step = delta[:, :, i, None]
        state = torch.exp(step * A) * state + step * B[:, :, :, i] * u[:, :, i, None]
        outs.append((state * C[:, :, :, i]).sum(-1))
    y = torch.stack(outs, 2)
    y = y if D is None else y + u * D[:, None]
    return y if z is None else y * torch.nn.functional.silu(z)


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        module = types.ModuleType(name)
        module.selective_scan_fn = selective_scan_fn
        monkeypatch.setitem(sys.modules, name, module)
    name = "ascseg_cli.kernels.selective_scan.mamba_ssm"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("absent", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_the_package_is_called_as_it_documents(adapter: types.ModuleType, absent: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    b, l, e, n = 2, 19, 5, 3
    shapes = {"x": (b, l, e), "delta": (b, l, e), "A": (e, n), "B": (b, l, n), "C": (b, l, n), "D": (e,)}
    shapes |= {"z": (b, l, e), "delta_bias": (e,)}
    inputs: dict[str, Tensor | None] = {
        name: None if name in absent else torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()
    }
    inputs["A"] = -inputs["A"].abs()
    got, want = adapter.selective_scan(**inputs), reference.selective_scan(**inputs)
    assert got.shape == want.shape
    assert (got - want).abs().max() < 1e-12
