"""The deformable convolution's CUDA kernels, on a GPU or run in slow motion on the CPU, against plain torch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import DEFORM_CASES, DeformCase, assert_as_exact, judge, results
from emulator.emulate import COMPILER
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import Normalisation
from ascseg_cli.kernels.deform_depthwise import gpu, gpu_shares, reference

SLOW = ("a stage of tiny", "several blocks", "33 channels", "wide")  # in slow motion
EPS = 1e-5


@pytest.fixture(params=[8, 16])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(gpu_shares, "tile_for", lambda b, h, w: request.param)
    return request.param


@pytest.mark.parametrize("name", DEFORM_CASES)
def test_as_exact_as_plain_torch(where, name):
    case = DEFORM_CASES[name]
    if where == "cpu" and name in SLOW:
        case = replace(case, draws=1, b=1)
    judge(gpu.deform_depthwise, reference.deform_depthwise, case, where)


@pytest.mark.parametrize("reach", [1.0, 12.0])
def test_tiles_of_either_size_and_samples_from_afar(where, tile, reach):
    judge(gpu.deform_depthwise, reference.deform_depthwise, DeformCase(1, 8, 27, 45, reach=reach, draws=2), where)


def shifted(where: str) -> tuple[dict[str, Tensor | None], Tensor]:
    """Samples of a whole image that all fall within one cell."""
    case = DeformCase(1, 4, 24, 20, reach=0.1)
    inputs = case.inputs(where)
    offset = inputs["offset"]
    assert offset is not None
    rows, columns = torch.arange(24, device=where).view(-1, 1), torch.arange(20, device=where)
    with torch.no_grad():
        offset.clamp_(-0.4, 0.4)
        for tap in range(9):
            offset[:, 2 * tap] += 11.5 - (rows + tap // 3 - 1)
            offset[:, 2 * tap + 1] += 8.5 - (columns + tap % 3 - 1)
    return inputs, case.gradient(where)


def test_all_samples_in_one_cell(where):
    inputs, gradient = shifted(where)
    got, plain = (results(op.deform_depthwise, inputs, gradient) for op in (gpu, reference))
    exact = results(reference.deform_depthwise, inputs, gradient, torch.float64)
    for name in exact:
        assert_as_exact([got[name]], [plain[name]], [exact[name]], name=name)


def test_a_sample_at_minus_one_half_is_half_weighted(where):
    x = torch.full((1, 1, 4, 4), 8.0, device=where)
    weight, offset = torch.zeros(1, 1, 3, 3, device=where), torch.zeros(1, 18, 4, 4, device=where)
    weight[0, 0, 1, 1] = 1  # the middle tap alone
    offset[0, 8, 0, 1], offset[0, 9, 2, 0] = -0.5, -0.5
    offset[0, 8, 3, 3], offset[0, 9, 3, 3] = 0.5, 0.75
    expected = torch.full((4, 4), 8.0)
    expected[0, 1], expected[2, 0], expected[3, 3] = 4.0, 4.0, 1.0
    torch.testing.assert_close(gpu.deform_depthwise(x, offset, weight)[0, 0].cpu(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**63), 3.4e38])
def test_absurd_offsets_touch_only_their_own_pixel(where, value):
    inputs = {k: t.detach() for k, t in DeformCase(2, 8, 9, 11).inputs(where).items() if t is not None}
    clean = gpu.deform_depthwise(**inputs)
    inputs["offset"][1, 4, 6, 7] = value
    y = gpu.deform_depthwise(**inputs)
    own = torch.zeros_like(y, dtype=torch.bool)
    own[1, :, 6, 7] = True
    assert torch.equal(y[~own], clean[~own])
    expected = reference.deform_depthwise(**inputs)[own]
    torch.testing.assert_close(y[own], expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert bool(expected.isnan().all()) == (not math.isfinite(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_absurd_offsets_leave_other_gradients_alone(where, value):
    case = DeformCase(1, 8, 21, 33)
    inputs, gradient = case.inputs(where), case.gradient(where)
    own = torch.zeros(1, 18, 21, 33, dtype=torch.bool, device=where)
    own[:, :, :8, :8] = True
    with torch.no_grad():
        inputs["offset"][~own] = value
    got = results(gpu.deform_depthwise, inputs, gradient)
    with torch.no_grad():
        inputs["offset"][~own] = 1e9  # outside, where it is a number
    exact = results(reference.deform_depthwise, inputs, gradient, torch.float64)
    torch.testing.assert_close(got["grad offset"][own].double(), exact["grad offset"][own], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["grad x"].double(), exact["grad x"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spoilt", ["gradient", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_shows_in_the_whole_gradient_of_x(where, spoilt, value):
    case = DeformCase(2, 6, 5, 7)
    inputs, gradient = case.inputs(where), case.gradient(where)
    with torch.no_grad():
        (gradient if spoilt == "gradient" else inputs["weight"])[1, 0, 2, 1] = value
    assert results(gpu.deform_depthwise, inputs, gradient)["grad x"].isnan().all()


def test_same_bits_every_time(where):
    case = DeformCase(2, 16, 33, 21)
    first, second = (results(gpu.deform_depthwise, case.inputs(where), case.gradient(where)) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name


PROGRAM = """
import sys, torch
from cases import DeformCase, results
from emulator.emulate import emulated
from ascseg_cli.kernels.deform_depthwise import gpu
case = DeformCase(1, 8, 12, 20, reach=3.0)
with emulated():
    torch.save(results(gpu.deform_depthwise, case.inputs(), case.gradient()), sys.argv[1])
"""


@pytest.mark.skipif(COMPILER is None, reason="g++ isn't installed")
def test_the_order_of_threads_changes_no_bit(tmp_path):
    here = str(Path(__file__).resolve().parent)
    env = {k: v for k, v in os.environ.items() if k != "EMULATED_ORDER"}
    env["PYTHONPATH"] = os.pathsep.join([here, *sys.path])
    for order in ({}, {"EMULATED_ORDER": "1"}):
        path = str(tmp_path / f"{len(order)}.pt")
        subprocess.run([sys.executable, "-c", PROGRAM, path], env=env | order, check=True)
    forward, backward = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    for name in forward:
        assert torch.equal(forward[name], backward[name]), name


def plain(x, offset, weight, statistics, gamma, beta):
    mean, variance = statistics.view(2, 1, -1, 1, 1)
    scale = torch.rsqrt(variance + EPS) * gamma.view(1, -1, 1, 1)
    return reference.deform_depthwise(x, (offset - mean) * scale + beta.view(1, -1, 1, 1), weight)


def normalising(x, offset, weight, statistics, gamma, beta):
    return gpu.deform(x, offset, weight, Normalisation(statistics, gamma, beta, EPS))


def with_norm(case: DeformCase, where: str, mean: float, deviation: float) -> dict[str, Tensor | None]:
    g = torch.Generator().manual_seed(case.seed + 5)
    raw = mean + deviation * torch.randn(case.b, case.h, case.w, 21, generator=g)[..., 1:19].permute(0, 3, 1, 2)
    statistics = torch.stack([raw.mean((0, 2, 3)), raw.var((0, 2, 3), correction=0)])
    drawn = {"offset": raw, "statistics": statistics}
    drawn |= {"gamma": torch.rand(18, generator=g) + 0.5, "beta": torch.randn(18, generator=g)}
    base = case.inputs(where)
    leaves = {k: t.detach().to(where).requires_grad_() for k, t in drawn.items()}
    return {"x": base["x"], "offset": leaves.pop("offset"), "weight": base["weight"], **leaves}


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (30.0, 0.5)])
@pytest.mark.parametrize(("b", "c", "h", "w"), [(1, 8, 13, 17), (3, 16, 9, 5), (2, 24, 6, 11), (2, 3, 7, 4)])
def test_offsets_normalised_while_loading(where, b, c, h, w, mean, deviation):
    got, base, exact = [], [], []
    for seed in (0, 2, 4):
        case = DeformCase(b, c, h, w, seed=seed)
        inputs, gradient = with_norm(case, where, mean, deviation), case.gradient(where)
        got.append(results(normalising, inputs, gradient))
        base.append(results(plain, inputs, gradient))
        exact.append(results(plain, inputs, gradient, torch.float64))
    for name in exact[0]:
        assert_as_exact(*([draw[name] for draw in ts] for ts in (got, base, exact)), name=name)


def test_an_empty_batch_with_a_norm(where):
    case = DeformCase(0, 8, 4, 4)
    statistics, gamma, beta = torch.ones(2, 18, device=where), *torch.ones(2, 18, device=where)
    inputs = case.inputs(where) | {"statistics": statistics, "gamma": gamma, "beta": beta}
    leaves = {k: t.detach().requires_grad_() for k, t in inputs.items() if t is not None}
    assert results(normalising, leaves, case.gradient(where))["grad gamma"].abs().max() == 0


def test_the_result_is_channels_last(where):
    for strided in (True, False):
        inputs = DeformCase(2, 8, 5, 6, strided=strided).inputs(where)
        y = gpu.deform_depthwise(**inputs)
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_pixels_further_apart_than_their_channels(where):
    inputs = DeformCase(2, 8, 7, 9).inputs(where)
    wide = torch.randn(2, 7, 9, 20, device=where).permute(0, 3, 1, 2)
    with torch.no_grad():
        y = gpu.deform_depthwise(wide[:, 4:12], inputs["offset"], inputs["weight"])
        odd = gpu.deform_depthwise(wide[:, 3:11], inputs["offset"], inputs["weight"])
    for got, x in ((y, wide[:, 4:12]), (odd, wide[:, 3:11])):
        want = reference.deform_depthwise(x, inputs["offset"], inputs["weight"])
        torch.testing.assert_close(got, want.detach(), rtol=1e-5, atol=1e-5)


def test_float64_is_refused(where):
    inputs = {k: t.double() for k, t in DeformCase(1, 2, 3, 3).inputs(where).items() if t is not None}
    with pytest.raises(ShapeError, match=r"gpu backend takes torch\.float32"):
        gpu.deform_depthwise(**inputs)


def test_an_image_too_large_for_its_indices_is_refused(where):
    x = torch.zeros(1, device=where).expand(1, 1, 2**16, 2**16)
    with pytest.raises(ShapeError, match=r"2\^31 numbers at most"):
        gpu_shares.Pixels.of(x)
