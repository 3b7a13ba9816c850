"""The scan on three rungs: nested loops in float64, the plain-torch reference, every backend."""

from __future__ import annotations

import math

import pytest
import torch
from cases import SCAN_CASES, ScanCase, assert_as_exact, judge
from torch import Tensor

from ascseg_cli.errors import BackendError, ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.selective_scan import reference, selective_scan

BACKENDS = ("cpu", "gpu", "mamba_ssm")
OPTIONAL = ("D", "z", "delta_bias")


def oracle(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D=None, z=None, delta_bias=None) -> Tensor:
    """The definition, one number after another."""
    (b, l, e), n = x.shape, A.shape[1]
    y = torch.zeros(b, l, e, dtype=torch.float64)
    for i in range(b):
        for j in range(e):
            state = [0.0] * n
            for k in range(l):
                raw = float(delta[i, k, j]) + (0.0 if delta_bias is None else float(delta_bias[j]))
                step = raw + math.log1p(math.exp(-raw)) if raw > 0 else math.log1p(math.exp(raw))
                value = 0.0 if D is None else float(D[j] * x[i, k, j])
                for m in range(n):
                    state[m] = math.exp(step * float(A[j, m])) * state[m] + step * float(B[i, k, m] * x[i, k, j])
                    value += float(C[i, k, m]) * state[m]
                if z is not None:
                    value *= float(z[i, k, j]) / (1.0 + math.exp(-float(z[i, k, j])))
                y[i, k, j] = value
    return y


def in_float64(case: ScanCase) -> dict[str, Tensor | None]:
    return {k: None if t is None else t.detach().double() for k, t in case.inputs().items()}


@pytest.mark.parametrize("absent", [(), ("D",), ("z",), ("delta_bias",), OPTIONAL])
@pytest.mark.parametrize(("b", "l", "e", "n"), [(2, 7, 3, 4), (1, 1, 2, 16), (1, 26, 2, 3), (0, 3, 2, 2), (2, 0, 2, 2)])
def test_reference_is_the_definition(b, l, e, n, absent):
    inputs = in_float64(ScanCase(b, l, e, n, absent=absent))
    torch.testing.assert_close(reference.selective_scan(**inputs), oracle(**inputs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("absent", [(), ("D",), ("z",), ("delta_bias",), OPTIONAL])
def test_reference_passes_gradcheck(absent):
    inputs = {k: t for k, t in in_float64(ScanCase(2, 5, 2, 3, absent=absent)).items() if t is not None}
    leaves = [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(lambda *t: reference.selective_scan(**dict(zip(inputs, t))), leaves)


@pytest.mark.parametrize("case", SCAN_CASES.values(), ids=SCAN_CASES)
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_backend_is_as_exact_as_plain_torch(backend_name, device, case):
    with backend.using(backend_name):
        judge(selective_scan, reference.selective_scan, case.inputs(device), case.gradient(device))
