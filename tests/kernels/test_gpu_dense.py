"""The dense convolution between batch norms: emulated on a CPU everywhere, on a GPU where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from cases import assert_as_exact
from emulator.emulate import COMPILER, emulated
from torch import Tensor
from torch.nn.functional import conv2d, gelu

from ascseg_cli.kernels.chain.layers import dense_plan
from ascseg_cli.kernels.chain.layers.dense import dense
from ascseg_cli.kernels.chain.layers.dense_plan import Shape, tile_plan, weight_plan
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running
from ascseg_cli.kernels.cuda.pixels import pitch, pixels

_ACTIVATE = {"none": lambda u: u, "relu": torch.relu, "gelu": gelu}


@dataclass(frozen=True)
class Case:
    """One layer and its input."""

    b: int
    h: int
    w: int
    ci: int
    co: int
    k: int
    dilation: int = 1
    normed: bool = True
    activation: str = "relu"
    batch: bool = True
    bias: bool = True
    extra: int = 0  # channels of the wider tensor that x is a slice of
    mean: float = 0.3
    fixed: tuple[str, ...] = ()  # inputs that want no gradient
    unused: tuple[str, ...] = ()  # outputs that the loss doesn't see
    draws: int = 3

    def inputs(self, seed: int, device: str) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        wide = torch.randn(self.b, self.h, self.w, self.ci + self.extra, generator=g) + self.mean
        x = wide.to(device)[..., self.extra // 2 : self.extra // 2 + self.ci].permute(0, 3, 1, 2)
        size = (self.co, self.ci, self.k, self.k)
        drawn = {"weight": torch.randn(size, generator=g) / (self.ci * self.k * self.k) ** 0.5}
        if self.bias:
            drawn["bias"] = torch.randn(self.co, generator=g) + 10 * self.mean
        if self.normed:
            mean = torch.randn(self.ci, generator=g) * 0.1 + self.mean
            drawn["statistics"] = torch.stack([mean, torch.rand(self.ci, generator=g) + 0.5])
            drawn["norm_weight"] = torch.randn(self.ci, generator=g)
            drawn["norm_bias"] = torch.randn(self.ci, generator=g)
        return {"x": x} | {name: t.to(device) for name, t in drawn.items()}

    def gradients(self, seed: int, device: str) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed + 1)
        dy = torch.randn(self.b, self.h, self.w, self.co + 4, generator=g)[..., 4:].permute(0, 3, 1, 2)
        return dy.to(device), torch.randn(2, self.co, generator=g).to(device) * max(
            1, dy.numel() // self.co
        ) ** 0.5


CASES: dict[str, Case] = {
    "3×3 of 8 channels": Case(2, 9, 37, 8, 8, 3),
    "one row": Case(2, 1, 40, 8, 8, 3),
    "one column": Case(1, 40, 1, 8, 8, 3),
    "1×1 of 8 to 8": Case(2, 9, 7, 8, 8, 1),
    "1×1 of 24 to 12": Case(1, 33, 41, 24, 12, 1, activation="gelu", extra=8),
    "1×1 of 32 to 32": Case(3, 5, 5, 32, 32, 1, batch=False, activation="none"),
    "1×1 of 4 to 16, no norm": Case(2, 6, 8, 4, 16, 1, normed=False, batch=False),
    "1×1, mean far above deviation": Case(2, 12, 13, 8, 8, 1, mean=30.0),
    "one pixel": Case(3, 1, 1, 8, 8, 3, draws=20),
    "mean far above deviation": Case(2, 12, 13, 8, 8, 3, mean=30.0),
    "only statistics are used": Case(2, 7, 10, 8, 8, 3, unused=("y",)),
    "only y is used": Case(2, 7, 10, 8, 8, 3, unused=("statistics",)),
    "gradient of the weights alone": Case(1, 7, 9, 8, 8, 3, fixed=("x", "statistics", "norm_weight", "norm_bias")),
    "frozen weights": Case(1, 7, 9, 8, 8, 3, fixed=("weight", "bias", "statistics")),
    "slice of a wider tensor": Case(2, 7, 10, 8, 8, 3, extra=6),
    "empty batch": Case(0, 6, 7, 8, 8, 3, batch=False),
    "not normalised, activated": Case(2, 7, 10, 4, 8, 3, normed=False, activation="gelu", batch=False),
    "7×7 of an image": Case(2, 17, 19, 3, 8, 7, normed=False, activation="none", fixed=("x",)),
    "7×7 to more": Case(1, 10, 21, 8, 16, 7, normed=False, activation="none"),
    "7×7 of two": Case(2, 9, 35, 2, 1, 7, activation="none"),
    "5×5 of 6 to 7": Case(1, 11, 12, 6, 7, 5, activation="gelu", extra=2, bias=False),
    "1×1": Case(3, 7, 31, 8, 8, 1, activation="gelu"),
    "1×1 to one": Case(2, 9, 9, 24, 1, 1, batch=False),
    "1×1 of 32": Case(1, 8, 9, 32, 32, 1, activation="gelu", extra=4),
    "3×3 to offsets": Case(1, 9, 11, 8, 18, 3, activation="gelu"),
    "dilated 2": Case(1, 11, 19, 8, 4, 3, 2, normed=False, activation="none"),
    "dilated 3": Case(2, 13, 17, 8, 4, 3, 3, normed=False, activation="none"),
    "dilated 4": Case(1, 12, 35, 16, 8, 3, 4),
    "4 to 5": Case(2, 5, 9, 4, 5, 3),
    "3 to 9": Case(1, 9, 8, 3, 9, 3, extra=2),
    "72 channels": Case(1, 4, 5, 72, 20, 3, activation="none"),
}


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        with _full_precision():
            yield "cuda"
        return
    if COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulated():
        yield "cpu"


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _plain(case: Case, t: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    u = t["x"]
    if case.normed:
        mean, variance = (s.view(-1, 1, 1) for s in t["statistics"])
        scale = t["norm_weight"].view(-1, 1, 1) * (variance + 1e-5).rsqrt()
        u = (u - mean) * scale + t["norm_bias"].view(-1, 1, 1)
    u = _ACTIVATE[case.activation](u)
    y = conv2d(u, t["weight"], t.get("bias"), padding=case.k // 2 * case.dilation, dilation=case.dilation)
    if not case.batch:
        return y, None
    return y, torch.stack([y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)])


def _ours(case: Case, t: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    norm = Normalisation(t["statistics"], t["norm_weight"], t["norm_bias"], 1e-5) if case.normed else None
    given = {"dilation": case.dilation, "norm": norm, "activation": case.activation, "batch": case.batch}
    return dense(t["x"], t["weight"], t.get("bias"), **given)


def _results(case: Case, operator, seed: int, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    leaves = {}
    for name, t in case.inputs(seed, device).items():
        leaves[name] = t.to(dtype).detach().requires_grad_(name not in case.fixed)
    y, statistics = operator(case, leaves)
    outputs = {"y": y} | ({} if statistics is None else {"statistics": statistics})
    gradients = dict(zip(("y", "statistics"), case.gradients(seed, device)))
    seen = [name for name in outputs if name not in case.unused]
    torch.autograd.backward([outputs[n] for n in seen], [gradients[n].to(dtype) for n in seen])
    found = {name: t.detach().clone() for name, t in outputs.items()}
    return found | {f"grad {name}": t.grad.clone() for name, t in leaves.items() if t.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_dense(name: str, device: str) -> None:
    _judge(CASES[name], device)


@pytest.mark.parametrize("name", ["3×3 to offsets", "1×1 of 32", "7×7 to more", "dilated 4", "3×3 of 8 channels"])
def test_divided_as_large_images_are(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tiles, several groups of channels in a block, several tiles in a slab: on a GPU, large images."""
    if device == "cuda":
        return _judge(replace(CASES[name], b=4, h=200, w=264), device)
    monkeypatch.setattr(dense_plan, "_BLOCKS", 1)
    monkeypatch.setattr(dense_plan, "_SLABS", 2)
    _judge(replace(CASES[name], b=3), device)


def test_channels_in_parts(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little shared memory, so that input channels come one after another, the last ones incomplete."""
    monkeypatch.setattr(dense_plan, "_SHARED", 12 * 1024)
    _judge(replace(CASES["72 channels"], ci=27, co=9), device)


def _judge(case: Case, device: str) -> None:
    draws = [(_ours, torch.float32), (_plain, torch.float32), (_plain, torch.float64)]
    got, plain, exact = (
        [_results(case, operator, seed, device, dtype) for seed in range(0, 2 * case.draws, 2)]
        for operator, dtype in draws
    )
    assert got[0].keys() == exact[0].keys()
    for key in exact[0]:
        if key == "grad bias" and case.batch:
            assert not any(draw[key].any() for draw in got)
        else:
            assert_as_exact(*([draw[key] for draw in ts] for ts in (got, plain, exact)), name=key)


def test_bias_gradient_is_that_of_a_norm_that_follows() -> None:
    """With the gradient that a norm sends back, Σ dz is zero, so nothing is lost by not adding it up."""
    case = Case(2, 5, 6, 4, 3, 3)
    t = {name: v.double().requires_grad_() for name, v in case.inputs(0, "cpu").items()}
    y, statistics = _plain(case, t)
    mean, variance = (s.view(-1, 1, 1) for s in statistics)
    ((y - mean) * (variance + 1e-5).rsqrt() * torch.randn(2, 3, 5, 6).double()).sum().backward()
    assert t["bias"].grad.abs().max() < 1e-12


def test_running_values_move(device: str) -> None:
    case = Case(2, 5, 6, 4, 3, 3)
    t = case.inputs(0, device)
    norm = torch.nn.BatchNorm2d(3).to(device).train()
    running = Running(torch.zeros(3, device=device), torch.ones(3, device=device), 0.1)
    dense(t["x"], t["weight"], t["bias"], batch=True, running=running)
    norm(conv2d(t["x"], t["weight"], t["bias"], padding=1))
    torch.testing.assert_close(running.mean, norm.running_mean)
    torch.testing.assert_close(running.variance, norm.running_var)


def test_same_numbers_every_time(device: str) -> None:
    case = CASES["3×3 of 8 channels"]
    first, second = (_results(case, _ours, 0, device, torch.float32) for _ in range(2))
    for name, t in first.items():
        assert torch.equal(t, second[name]), name


def test_any_layout_is_read() -> None:
    x = torch.randn(2, 6, 4, 5)
    assert pixels(x).is_contiguous(memory_format=torch.channels_last)
    lone = torch.randn(3, 1, 4, 5)
    assert pixels(lone) is lone
    part = torch.randn(2, 4, 5, 9).permute(0, 3, 1, 2)[:, 2:7]
    assert pixels(part) is part
    assert pitch(part) == 9
    crop = torch.randn(2, 8, 9, 6).permute(0, 3, 1, 2)[:, :, 1:5, 2:7]
    assert pitch(pixels(crop)) == 6
    assert pitch(pixels(torch.ones(()).expand(2, 3, 4, 5))) == 3


_LAYERS = [
    (3, 8, 7),
    (8, 8, 3),
    (8, 18, 3),
    (16, 24, 7),
    (24, 32, 7),
    (32, 1, 1),
    (2, 1, 7),
    (128, 128, 3),
    (96, 128, 7),
]


@pytest.mark.parametrize(("ci", "co", "k"), _LAYERS)
@pytest.mark.parametrize("size", [16, 32, 256])
def test_plans_fit_the_machine(ci: int, co: int, k: int, size: int) -> None:
    shape = Shape(8, size, size, ci, co, k).flat()
    vecs = [4 if c % 4 == 0 else 1 for c in (ci, co)]
    for plan in (tile_plan(shape, vecs[0]), tile_plan(shape.transposed(), vecs[1]), weight_plan(shape, *vecs)):
        assert 0 < plan.block <= 1024
        assert plan.shared <= 99 * 1024
        assert plan.grid[1] <= 65535
