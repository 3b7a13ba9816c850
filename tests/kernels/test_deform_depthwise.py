"""The deformable convolution on three rungs: nested loops in float64, plain torch, every backend."""

from __future__ import annotations

import math

import pytest
import torch
from cases import DEFORM_CASES, DeformCase, assert_as_exact, judge
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
@pytest.mark.parametrize(("b", "c", "h", "w"), [(2, 3, 5, 4), (1, 1, 1, 1), (1, 2, 1, 7), (1, 2, 6, 1), (0, 2, 3, 3)])
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
        judge(deform_depthwise, reference.deform_depthwise, case.inputs(device), case.gradient(device))
