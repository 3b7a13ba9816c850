"""The deformable block on tensor cores: within a bound on rounding errors that float64 carries along."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from test_deform_block import block, by_modules, folded, images
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.deform_block import gpu
from ascseg_cli.kernels.deform_depthwise import reference as sampling

TF32 = 1.3 * 2.0**-11  # what `tf32` in tf32.cuh leaves
FLOAT32 = 2.0**-20  # sums of a few hundred numbers, powers and reciprocals, relative to their terms


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of any size go to the tensor cores."""
    monkeypatch.setattr(gpu, "_BLOCKS", 1)


def steepest(p: Tensor) -> Tensor:
    """The largest difference between neighbours in a row or column, at most two pixels away."""
    down, right = F.pad(p.diff(dim=2).abs(), (0, 0, 1, 1)), F.pad(p.diff(dim=3).abs(), (1, 1, 0, 0))
    at_pixel = torch.stack([down[..., 1:, :], down[..., :-1, :], right[..., 1:], right[..., :-1]]).amax(0)
    return F.max_pool2d(at_pixel, 5, stride=1, padding=2)


def bound(weights: tuple[Tensor, ...], p: Tensor, f: Tensor, m: Tensor) -> Tensor:
    """How far both convolutions as TF32 products may lead from the truth: a product errs by 2·TF32 of its size.

    An offset that errs by δ < 1 moves a sample by δ times the largest step between pixels at most two away; GELU's
    slope is 1.13 at most. All in float64.
    """
    offset_weight, offset_bias, weight, balance_weight, balance_bias = (t.double() for t in weights)
    offset = F.conv2d(p, offset_weight, offset_bias, padding=1)
    sizes = F.conv2d(p.abs(), offset_weight.abs(), offset_bias.abs(), padding=1)
    moved = (2 * TF32 + FLOAT32) * sizes
    moved = moved[:, 0::2] + moved[:, 1::2]  # (b, 18, h, w) -> (b, 9, h, w): down and right
    steps, further = steepest(F.pad(p, (3, 3, 3, 3))), F.pad(offset, (3, 3, 3, 3))
    q_error = torch.zeros_like(p)
    for tap in range(9):
        alone = torch.zeros_like(weight)
        alone[:, :, tap // 3, tap % 3] = weight[:, :, tap // 3, tap % 3].abs()
        q_error += moved[:, tap, None] * sampling.deform_depthwise(steps, further, alone)[..., 3:-3, 3:-3]
    q_error = q_error + FLOAT32 * sampling.deform_depthwise(p.abs(), offset, weight.abs())
    q = sampling.deform_depthwise(p, offset, weight)
    z_error = F.conv2d(q_error, balance_weight.abs())
    z_error = z_error + 2 * TF32 * F.conv2d(q.abs(), balance_weight.abs()) + FLOAT32 * balance_bias.abs().max()
    gate = F.gelu(F.conv2d(q, balance_weight, balance_bias))
    return (1.13 * z_error + FLOAT32 * (1 + gate.abs())) * f.abs() + FLOAT32 * m.abs()


@torch.no_grad()
def results(where: str, c: int, size: tuple[int, int, int], pitch: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Ours, exact, bound without the one rounding of the result. Images are bfloat16."""
    module = block(c).to(where)
    p, f, m = (t.to(where, torch.bfloat16) for t in images(size[0], c, *size[1:], pitch))
    assert gpu.warps_for(size[0], c, *size[1:])
    got = gpu.deform_block(p, f, m, *folded(module))
    assert got.dtype == torch.bfloat16
    p, f, m = (t.double() for t in (p, f, m))
    exact = by_modules(copy.deepcopy(module).double(), p, f, m)
    return got.double(), exact, bound(folded(module), p, f, m)


@pytest.mark.parametrize("size", [(2, 21, 19), (1, 3, 33), (1, 24, 52)], ids=str)
@pytest.mark.parametrize("c", [8, 24, 32])
def test_errors_are_those_of_rounding(where: str, c: int, size: tuple[int, int, int]) -> None:
    got, exact, limit = results(where, c, size)
    assert ((got - exact).abs() <= limit + 2**-8 * (exact.abs() + limit)).all()


@pytest.mark.parametrize("pitch", [12, 16])
def test_pixels_far_apart(where: str, pitch: int) -> None:
    got, exact, limit = results(where, 8, (2, 9, 18), pitch)
    assert ((got - exact).abs() <= limit + 2**-8 * (exact.abs() + limit)).all()


@torch.no_grad()
@pytest.mark.parametrize("weight", range(5))
def test_the_bound_says_something(weight: int) -> None:
    module = block(8)
    p, f, m = (t.double() for t in images(1, 8, 16, 16))
    right = folded(module)
    wrong = [t * (17 / 16 if i == weight else 1) for i, t in enumerate(right)]
    with backend.using("reference"):
        y, exact = (gpu.reference.deform_block(p, f, m, *ws) for ws in (wrong, right))
    assert not ((y - exact).abs() <= bound(right, p, f, m)).all()


@torch.no_grad()
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_offsets_that_lead_nowhere(where: str, value: float) -> None:
    module = block(8).to(where)
    weights = list(folded(module))
    weights[1] = weights[1].clone()
    weights[1][2] = value  # a row shift
    p, f, m = (t.to(where, torch.bfloat16) for t in images(1, 8, 7, 9))
    got = gpu.deform_block(p, f, m, *weights)
    if value == 3e38:  # outside the image: as if the tap weren't there
        weights[1][2], weights[2] = 0.0, weights[2].clone()
        weights[2][:, :, 0, 1] = 0.0
        torch.testing.assert_close(got, gpu.deform_block(p, f, m, *weights), rtol=1e-5, atol=1e-5)
    else:
        assert got.isnan().all()
