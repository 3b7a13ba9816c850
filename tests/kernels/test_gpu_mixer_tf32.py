"""Mamba's mixer where TF32 is allowed: within a bound on rounding errors that float64 carries along."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from emulator.emulate import COMPILER, emulated
from test_gpu_mixer import NAMES, Case
from torch import Tensor

from ascseg_cli.kernels.mamba_mixer import gpu, gpu_warps, mamba_mixer, reference
from ascseg_cli.kernels.mamba_mixer.layout import Layout

TF32 = 1.3 * 2.0**-11  # what `tf32` in tf32.cuh leaves
FAST = 2.0**-20  # what powers, reciprocals and float32's sums of a few dozen numbers lose, relative

CASES = {
    "one token": (Case(1, 1, 2), 16),
    "a tile less one": (Case(2, 7, 2, layout="channels last"), 16),
    "several chunks": (Case(2, 70, 2), 16),
    "an odd number of chunks": (Case(1, 41, 2, layout="channels last"), 16),
    "four channels a group": (Case(2, 65, 4, layout="channels last"), 16),
    "three groups": (Case(1, 70, 2, groups=3), 16),
    "six": (Case(1, 50, 6, layout="slice"), 24),
    "eight": (Case(3, 40, 8), 32),
    "twelve": (Case(1, 40, 12, layout="channels last"), 16),
    "sixteen": (Case(1, 40, 16, groups=2), 16),
    "one group": (Case(2, 100, 2, groups=1), 8),
    "strong decay": (Case(1, 90, 2, step=(2.0, 30.0), decay=(1.0, 1e4)), 16),
    "weak decay": (Case(1, 300, 2, step=(-9.0, -5.0), decay=(1e-4, 1.0)), 64),
    "vanishing steps": (Case(1, 70, 2, step=(-75.0, -45.0)), 16),
}


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        with torch.backends.cudnn.flags(allow_tf32=True):
            yield "cuda"
        return
    if COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulated(tf32=True):
        yield "cpu"


def result_and_bound(t: Tensor, weights: list[Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """The mixer in float64, and how far float32 may be from it whose x_proj and out_proj are TF32 products.

    To first order, a product of two rounded numbers errs by 2·TF32 of its size; what follows magnifies errors by
    its slope's largest value. t (b, l, groups·d)
    """
    d = t.shape[2] // groups
    rows = t.double().unflatten(2, (groups, d)).transpose(1, 2).flatten(0, 1)  # (b·groups, l, d)
    in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj = (w.double() for w in weights)
    (e, n), l = A_log.shape, rows.shape[1]
    x, z = F.linear(rows, in_proj).chunk(2, -1)
    x = F.silu(F.conv1d(x.transpose(1, 2), conv, conv_bias, padding=3, groups=e)[..., :l]).transpose(1, 2)
    sizes = F.linear(rows.abs(), in_proj.abs()).chunk(2, -1)
    x_error = FAST * 1.1 * F.conv1d(sizes[0].transpose(1, 2), conv.abs(), conv_bias.abs(), padding=3, groups=e)
    x_error = x_error[..., :l].transpose(1, 2)
    low, B, C = F.linear(x, x_proj).split([1, n, n], -1)
    errors = 2 * TF32 * F.linear(x.abs(), x_proj.abs()) + F.linear(x_error, x_proj.abs())
    low_error, B_error, C_error = errors.split([1, n, n], -1)
    raw = F.linear(low, dt_proj, dt_bias)
    delta = F.softplus(raw)
    slope = torch.sigmoid(raw)
    raw_error = F.linear(low_error, dt_proj.abs()) + FAST * (F.linear(low.abs(), dt_proj.abs()) + dt_bias.abs())
    delta_error = (slope * raw_error).expm1() + FAST * delta  # softplus'' < softplus'
    A = -A_log.exp()
    state = error = torch.zeros(len(rows), e, n, dtype=torch.float64)
    results, bounds = [], []
    for k in range(l):
        step, step_error, drive = delta[:, k, :, None], delta_error[:, k, :, None], (delta * x)[:, k, :, None]
        decay = torch.exp(step * A)
        loosest = torch.exp((step - step_error).clamp_min(0) * A)
        drive_error = step_error * x[:, k, :, None].abs() + step * x_error[:, k, :, None]
        decay_error = torch.minimum(loosest * -A * step_error, loosest) + FAST * decay * (1 - A * step)
        error = loosest * error + decay_error * state.abs() + drive.abs() * B_error[:, k, None]
        error = error + drive_error * (B[:, k, None].abs() + B_error[:, k, None])
        state = decay * state + drive * B[:, k, None]
        error = error + FAST / 8 * state.abs()
        results.append((state * C[:, k, None]).sum(-1))
        of_states = error * (C[:, k, None].abs() + C_error[:, k, None]) + state.abs() * C_error[:, k, None]
        bounds.append(of_states.sum(-1) + FAST * (state * C[:, k, None]).abs().sum(-1))
    gate, gate_error = F.silu(z), FAST * 1.1 * sizes[1]
    y, y_error = torch.stack(results, 1) + D * x, torch.stack(bounds, 1) + D.abs() * x_error
    y_error = y_error * (gate.abs() + gate_error) + y.abs() * gate_error
    result = F.linear(y * gate, out_proj)
    bound = F.linear(y_error, out_proj.abs()) + 2 * TF32 * F.linear((y * gate).abs(), out_proj.abs())
    shape = (len(t), groups)
    result, bound = (v.unflatten(0, shape).transpose(1, 2).flatten(2) for v in (result, bound))
    return result, bound


def run(
    case: Case, length: int, device: str, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Ours, exact, bound."""
    monkeypatch.setattr(gpu_warps, "length_for", lambda *_: length)
    t, *weights = case.inputs(0, device)
    t = t.to(dtype)
    with torch.no_grad():
        got = gpu.mamba_mixer(t, *weights, groups=case.groups)
        exact, bound = result_and_bound(t.cpu(), [w.cpu() for w in weights], case.groups)
    return got.cpu(), exact, bound


@pytest.mark.parametrize("name", CASES)
def test_errors_are_those_of_rounding(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    got, exact, bound = run(*CASES[name], device, monkeypatch, torch.float32)
    assert ((got.double() - exact).abs() <= bound).all()


def test_the_bound_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(2, 70, 2)
    t, *weights = case.inputs(0, "cpu")
    exact, bound = result_and_bound(t, weights, case.groups)
    plain = reference.mamba_mixer(t.double(), *(w.double() for w in weights), groups=case.groups)
    torch.testing.assert_close(exact, plain, rtol=1e-12, atol=1e-12)
    for i in range(len(weights)):  # a weight that is wrong by a part in sixteen
        wrong = [w.double() * (17 / 16 if i == j else 1) for j, w in enumerate(weights)]
        y = reference.mamba_mixer(t.double(), *wrong, groups=case.groups)
        assert not ((y - exact).abs() <= bound).all(), NAMES[1 + i]


def test_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    got, exact, bound = run(Case(2, 70, 2), 16, device, monkeypatch, torch.bfloat16)
    assert got.dtype == torch.bfloat16
    assert ((got.double() - exact).abs() <= bound + 2**-8 * (exact.abs() + bound)).all()


@pytest.mark.parametrize("name", ["an odd number of chunks", "four channels a group", "six"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_tokens_are_added(name: str, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the sum is rounded, so that it errs by no more than the mixer and one rounding."""
    case, length = CASES[name]
    monkeypatch.setattr(gpu_warps, "length_for", lambda *_: length)
    t, *weights = case.inputs(0, device)
    t = t.to(dtype)
    with torch.no_grad():
        got = mamba_mixer(t, *weights, groups=case.groups, residual=True).cpu().double()
        exact, bound = result_and_bound(t.cpu(), [w.cpu() for w in weights], case.groups)
    exact = exact + t.cpu().double()
    rounding = 2**-8 if dtype == torch.bfloat16 else 2**-23
    assert ((got - exact).abs() <= bound + rounding * (exact.abs() + bound)).all()


@pytest.mark.parametrize("length", [8, 24, 64])
def test_chunks_of_any_length_agree(length: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, *_ = run(Case(2, 70, 4), 72, device, monkeypatch, torch.float32)
    several, exact, _ = run(Case(2, 70, 4), length, device, monkeypatch, torch.float32)
    assert (one - several).abs().max() <= 1e-4 * exact.abs().max()  # numbers that round either way


@pytest.mark.parametrize("where", range(len(NAMES)), ids=NAMES)
def test_not_a_number_stays_one(where: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_warps, "length_for", lambda *_: 16)
    arguments = Case(1, 40, 2).inputs(0, device)
    arguments[where] = arguments[where].clone()
    arguments[where][tuple(size // 2 for size in arguments[where].shape)] = math.nan
    with torch.no_grad():
        got = gpu.mamba_mixer(*arguments, groups=4)
        wanted = reference.mamba_mixer(*arguments, groups=4)
    assert wanted.isnan().any()
    assert got.isnan()[wanted.isnan()].all()


def test_states_that_vanish_at_once_are_zero(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_warps, "length_for", lambda *_: 16)
    arguments = Case(1, 40, 2).inputs(0, device)
    arguments[7][:, :5] = 100.0  # A = -∞
    with torch.no_grad():
        got = gpu.mamba_mixer(*arguments, groups=4)
    assert got.isfinite().all()


def test_few_tokens_and_other_weights_are_left_to_the_general_kernels() -> None:
    tiny = Layout(4, 2, 1, 16)
    assert gpu_warps.length_for(32, 65536, tiny) == 128
    assert gpu_warps.length_for(1, 65536, tiny) is None
    assert gpu_warps.length_for(32, 4096, Layout(4, 16, 1, 16)) == 128
    for other in (Layout(4, 3, 1, 16), Layout(4, 2, 1, 8), Layout(1, 32, 2, 16)):
        assert gpu_warps.length_for(32, 65536, other) is None
