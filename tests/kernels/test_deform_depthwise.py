"""The deformable convolution on three rungs: nested loops in float64, plain torch, every backend."""

from __future__ import annotations

import math

import pytest
import torch
from cases import DEFORM_CASES, DeformCase, judge, results
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.deform_depthwise import deform_depthwise, reference

BACKENDS = ("cpu", "gpu")


def oracle(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """The definition, one number after another: a neighbour counts by its distance from the sample."""
    b, c, h, w = x.shape
    y = torch.zeros(b, c, h, w, dtype=torch.float64)
    for i in range(b):
        for row in range(h):
            for column in range(w):
                for tap in range(9):
                    v = row + tap // 3 - 1 + float(offset[i, 2 * tap, row, column])
                    u = column + tap % 3 - 1 + float(offset[i, 2 * tap + 1, row, column])
                    for r in {math.floor(v), math.floor(v) + 1} & set(range(h)):
                        for q in {math.floor(u), math.floor(u) + 1} & set(range(w)):
                            near = (1 - abs(v - r)) * (1 - abs(u - q))
                            y[i, :, row, column] += weight[:, 0, tap // 3, tap % 3] * near * x[i, :, r, q]
    return y


def in_float64(case: DeformCase) -> dict[str, Tensor]:
    return {k: t.detach().double() for k, t in case.inputs().items() if t is not None}


@pytest.mark.parametrize("quantum", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("b", "c", "h", "w"), [(2, 3, 5, 4), (1, 1, 1, 1), (1, 2, 1, 7), (1, 2, 6, 1), (0, 2, 3, 3)]
)
def test_reference_is_the_definition(b, c, h, w, quantum):
    inputs = in_float64(DeformCase(b, c, h, w, quantum=quantum))
    torch.testing.assert_close(reference.deform_depthwise(**inputs), oracle(**inputs), rtol=1e-12, atol=1e-13)


def test_reference_passes_gradcheck():
    inputs = in_float64(DeformCase(2, 2, 4, 3, reach=0.7))
    leaves = [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(lambda *t: reference.deform_depthwise(*t), leaves)


@pytest.mark.parametrize("case", DEFORM_CASES.values(), ids=DEFORM_CASES)
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_backend_is_as_exact_as_plain_torch(backend_name, device, case):
    with backend.using(backend_name):
        judge(deform_depthwise, reference.deform_depthwise, case, device)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_a_sample_at_minus_one_half_is_half_weighted(backend_name, device):
    x = torch.full((1, 1, 4, 4), 8.0, device=device)
    weight = torch.zeros(1, 1, 3, 3, device=device)
    weight[0, 0, 1, 1] = 1  # the middle tap alone
    offset = torch.zeros(1, 18, 4, 4, device=device)
    offset[0, 8, 0, 1], offset[0, 9, 2, 0] = -0.5, -0.5
    offset[0, 8, 3, 3], offset[0, 9, 3, 3] = 0.5, 0.75
    expected = torch.full((4, 4), 8.0)
    expected[0, 1], expected[2, 0], expected[3, 3] = 4.0, 4.0, 1.0
    with backend.using(backend_name):
        torch.testing.assert_close(deform_depthwise(x, offset, weight)[0, 0].cpu(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**63), 3.4e38])
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_absurd_offsets_touch_only_their_own_pixel(backend_name, device, value):
    inputs = {k: t.detach() for k, t in DeformCase(2, 9, 14, 11).inputs(device).items()}
    with backend.using(backend_name):
        clean = deform_depthwise(**inputs)
        inputs["offset"][1, 4, 6, 7] = value
        y = deform_depthwise(**inputs)
    own = torch.zeros_like(y, dtype=torch.bool)
    own[1, :, 6, 7] = True
    assert torch.equal(y[~own], clean[~own])
    expected = reference.deform_depthwise(**inputs)[own]
    torch.testing.assert_close(y[own], expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert bool(expected.isnan().all()) == (not math.isfinite(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_absurd_offsets_leave_other_gradients_alone(backend_name, device, value):
    """Every offset is absurd but those of one corner: nothing is written out of bounds, the corner's is right."""
    case = DeformCase(1, 8, 40, 33)
    inputs, gradient = case.inputs(device), case.gradient(device)
    corner = torch.zeros_like(gradient, dtype=torch.bool)
    corner[:, :, :8, :8] = True
    with torch.no_grad():
        inputs["offset"][~corner[:, :1].expand(1, 18, 40, 33)] = value
    with backend.using(backend_name):
        got = results(deform_depthwise, inputs, gradient)
    exact = results(reference.deform_depthwise, inputs, gradient, torch.float64)
    own = corner[:, :1].expand(1, 18, 40, 33)
    torch.testing.assert_close(got["grad offset"][own].double(), exact["grad offset"][own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_same_bits_every_time(backend_name, device):
    case = DEFORM_CASES["several blocks"]
    with backend.using(backend_name):
        first, second = (results(deform_depthwise, case.inputs(device), case.gradient(device)) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_channels_last_stays_so():
    inputs = DeformCase(2, 8, 12, 10).inputs()
    with backend.using("cpu"), torch.no_grad():
        y = deform_depthwise(**inputs)
        dense = deform_depthwise(**{k: t.contiguous() for k, t in inputs.items()})
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert dense.is_contiguous()
    assert torch.equal(y, dense)


def test_a_wrong_gradient_is_noticed():
    def wrong(x, offset, weight):
        y = reference.deform_depthwise(x, offset, weight)
        return y + (y - y.detach()) * 1e-3  # the same value, and a gradient 1.001 times as large

    with pytest.raises(AssertionError, match="grad x"):
        judge(wrong, reference.deform_depthwise, DEFORM_CASES["odd"])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (4, 5, 6)),
        ("offset", (2, 9, 5, 6)),
        ("offset", (2, 18, 6, 5)),
        ("weight", (4, 4, 3, 3)),
        ("weight", (3, 1, 3, 3)),
    ],
)
def test_wrong_shapes_are_named(name, shape):
    inputs = DeformCase(2, 4, 5, 6).inputs() | {name: torch.zeros(shape)}
    with pytest.raises(ShapeError, match=rf"{name} is \({', '.join(map(str, shape))}\)"):
        deform_depthwise(**inputs)


def test_the_compiled_operator_refuses_float64():
    inputs = {k: t.double() for k, t in DeformCase(1, 2, 3, 3).inputs().items()}
    with backend.using("cpu"), pytest.raises(ShapeError, match=r"cpu backend takes torch\.float32"):
        deform_depthwise(**inputs)


def test_an_image_too_large_for_its_indices_is_refused():
    x = torch.zeros(1).expand(1, 1, 2**24, 2)
    with backend.using("cpu"), pytest.raises(ShapeError, match="2\\^30 px at most"):
        deform_depthwise(x, torch.zeros(1).expand(1, 18, 2**24, 2), torch.zeros(1, 1, 3, 3))
