"""The scan on three rungs: nested loops in float64, the plain-torch reference, every backend."""

from __future__ import annotations

import math

import pytest
import torch
from cases import SCAN_CASES, ScanCase, assert_as_exact, judge, results
from torch import Tensor

from ascseg_cli.errors import ShapeError
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
@pytest.mark.parametrize(
    ("b", "l", "e", "n"), [(2, 7, 3, 4), (1, 1, 2, 16), (1, 26, 2, 3), (0, 3, 2, 2), (2, 0, 2, 2)]
)
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
        judge(selective_scan, reference.selective_scan, case, device)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_states_may_not_depend_on_how_the_batch_is_split(backend_name, device):
    """Each row alone gives the same as the batch."""
    inputs = {k: None if t is None else t.detach() for k, t in ScanCase(5, 150, 7).inputs(device).items()}
    batched = ("x", "delta", "B", "C", "z")
    with backend.using(backend_name):
        whole = selective_scan(**inputs)
        for row in range(5):
            alone = selective_scan(**{k: t[row : row + 1] if k in batched else t for k, t in inputs.items()})
            torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_nan_stays_in_its_row_and_after_its_token(backend_name, device):
    inputs = {k: None if t is None else t.detach() for k, t in ScanCase(2, 200, 3).inputs(device).items()}
    with backend.using(backend_name):
        clean = selective_scan(**inputs)
        inputs["x"][1, 100, 2] = math.nan
        y = selective_scan(**inputs)
    spoilt = torch.zeros_like(y, dtype=torch.bool)
    spoilt[1, 100:, 2] = True
    assert y[spoilt].isnan().all()
    assert torch.equal(y[~spoilt], clean[~spoilt])


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_same_bits_every_time(backend_name, device):
    case = SCAN_CASES["a stage of tiny"]
    with backend.using(backend_name):
        first, second = (results(selective_scan, case.inputs(device), case.gradient(device)) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_spoilt_element_is_noticed():
    exact = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = exact.float()
    assert_as_exact([plain], [plain], [exact])
    for spoil in (1e-3, math.nan, math.inf):
        spoilt = plain.clone()
        spoilt[1, 4, 1] += spoil
        with pytest.raises(AssertionError, match="max error"):
            assert_as_exact([plain, spoilt], [plain, plain], [exact, exact])
    with pytest.raises(AssertionError, match=r"y: torch.Size"):
        assert_as_exact([plain[:2]], [plain], [exact])


def test_a_wrong_gradient_is_noticed():
    def wrong(*arguments, **keywords):
        y = reference.selective_scan(*arguments, **keywords)
        return y + (y - y.detach()) * 1e-3  # the same value, and a gradient 1.001 times as large

    with pytest.raises(AssertionError, match="grad x"):
        judge(wrong, reference.selective_scan, SCAN_CASES["odd"])


@pytest.mark.parametrize(
    ("name", "shape"),
    [("x", (2, 5)), ("delta", (2, 5, 4)), ("A", (4, 6)), ("B", (2, 5, 7)), ("C", (1, 5, 6)), ("D", (2,)),
     ("z", (2, 6, 3)), ("delta_bias", (3, 1))],
)  # fmt: skip
def test_wrong_shapes_are_named(name, shape):
    inputs = ScanCase(2, 5, 3, n=6).inputs() | {name: torch.zeros(shape)}
    with pytest.raises(
        ShapeError, match=rf"\b{name} is \({', '.join(map(str, shape))}" if name != "A" else "A is"
    ):
        selective_scan(**inputs)


def test_mixed_types_are_named():
    inputs = ScanCase(2, 5, 3).inputs()
    with pytest.raises(ShapeError, match=r"C is torch.float64 on cpu; x is torch.float32"):
        selective_scan(**inputs | {"C": inputs["C"].double()})


def test_the_compiled_scan_refuses_float64():
    inputs = {k: t.double() for k, t in ScanCase(2, 5, 3).inputs().items()}
    with backend.using("cpu"), pytest.raises(ShapeError, match=r"cpu backend takes torch\.float32"):
        selective_scan(**inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_float32(dtype):
    """Under `auto` half precision goes to plain torch; the result is as the inputs' rounding allows."""
    inputs = {k: t.detach().to(dtype) for k, t in ScanCase(1, 300, 2, delta=(-6.0, -4.0)).inputs().items()}
    y = selective_scan(**inputs)
    exact = reference.selective_scan(**{k: t.double() for k, t in inputs.items()})
    assert y.dtype == dtype
    assert (y.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()
