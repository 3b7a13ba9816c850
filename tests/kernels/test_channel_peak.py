"""Maximum plus mean of channels: the reference against numpy, the GPU's kernels against both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from cases import assert_as_exact
from emulator.emulate import emulated

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.channel_peak import channel_peak, gpu, reference

SIZES = [(2, 8, 5, 7), (1, 24, 33, 40), (3, 1, 1, 1), (1, 36, 2, 3), (0, 4, 3, 3), (2, 8, 64, 64)]


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU was found")
    if request.param == "emulated" and shutil.which("g++") is None:
        pytest.skip("g++ isn't installed")
    with emulated() if request.param == "emulated" else nullcontext():
        yield "cpu" if request.param == "emulated" else "cuda"


def test_reference_is_the_definition():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    wanted = x.numpy().max((2, 3)) + x.numpy().sum((2, 3)) / 20
    np.testing.assert_allclose(reference.channel_peak(x)[:, :, 0, 0].numpy(), wanted, rtol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_kernels_are_as_exact_as_plain_torch(device, size):
    got, plain, exact = [], [], []
    for seed in range(5):
        torch.manual_seed(seed)
        x, gradient = torch.randn(size), torch.randn(*size[:2], 1, 1)
        for kept, operator, dtype, place in (
            (got, gpu.channel_peak, torch.float32, device),
            (plain, reference.channel_peak, torch.float32, "cpu"),
            (exact, reference.channel_peak, torch.float64, "cpu"),
        ):
            leaf = x.clone().to(place, dtype).requires_grad_()
            y = operator(leaf)
            y.backward(gradient.to(y))
            kept.append((y.detach().cpu(), leaf.grad.cpu()))
    for i in range(2):
        assert_as_exact(*([pair[i] for pair in kept] for kept in (got, plain, exact)))


def test_ties_and_nan_choose_the_first(device):
    x = torch.zeros(1, 3, 6, 7, device=device)
    x[0, 0, 2, 3] = x[0, 0, 4, 1] = 5
    x[0, 2, 3, 2] = x[0, 2, 5, 5] = float("nan")
    leaf = x.clone().requires_grad_()
    y = gpu.channel_peak(leaf)
    y.sum().backward()
    assert y.isnan().flatten().tolist() == [False, False, True]
    assert [int(g.flatten().argmax()) for g in leaf.grad[0]] == [17, 0, 23]


def test_bfloat16_is_rounded_once(device):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 11).bfloat16()
    with torch.no_grad():
        got = gpu.channel_peak(x.to(device)).cpu()
    assert torch.equal(got, reference.channel_peak(x.double()).float().bfloat16())


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"x is \(2, 3, 0, 4\)"):
        channel_peak(torch.zeros(2, 3, 0, 4))
