"""Grouped convolutions between batch norms on the GPU, against plain torch in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_cases import DEVICES, Results, judge, on, outcome

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers import grouped as layer
from ascseg_cli.kernels.chain.layers.grouped import grouped
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running

EPS = 1e-5
_ACTIVATIONS = {"none": lambda u: u, "relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class Case:
    """A layer; `extra` channels lie around those of x in memory, `mean` is far from zero where that is hard."""

    b: int
    co: int
    h: int
    w: int
    g: int = 1
    k: int = 3
    norm: bool = True
    activation: str = "none"
    batch: bool = True
    biased: bool = True
    extra: int = 0
    mean: float = 0.0
    planar: bool = False
    fixed: tuple[str, ...] = ()
    silent: tuple[int, ...] = ()
    blocks: int = 120  # wanted at least; fewer give a thread more pixels

    def draw(self) -> dict[str, Tensor | None]:
        ci, normed = self.g * self.co, self.norm
        base = torch.randn(self.b, self.h, self.w, ci + 2 * self.extra) + self.mean
        statistics = torch.stack([self.mean + torch.randn(ci), torch.rand(ci) + 0.5])
        return {
            "base": base,
            "weight": torch.randn(self.co, self.g, self.k, self.k) / self.k,
            "bias": torch.randn(self.co) + self.mean if self.biased else None,
            "statistics": statistics if normed else None,
            "norm_weight": torch.rand(ci) + 0.5 if normed else None,
            "norm_bias": torch.randn(ci) if normed else None,
        }

    def image(self, base: Tensor) -> Tensor:
        x = base.permute(0, 3, 1, 2)[:, self.extra : self.extra + self.g * self.co]
        return x.contiguous() if self.planar else x

    def run(self, base, weight, bias, statistics, norm_weight, norm_bias) -> Results:
        norm = Normalisation(statistics, norm_weight, norm_bias, EPS) if self.norm else None
        y, own = grouped(self.image(base), weight, bias, norm=norm, activation=self.activation, batch=self.batch)
        return y, *((own[0], own[1]) if own is not None else ())

    def plain(self, base, weight, bias, statistics, norm_weight, norm_bias) -> Results:
        u = self.image(base)
        if self.norm:
            mean, variance, gamma, beta = (t[:, None, None] for t in (*statistics, norm_weight, norm_bias))
            u = gamma * (u - mean) / (variance + EPS).sqrt() + beta
        u = _ACTIVATIONS[self.activation](u)
        y = F.conv2d(u, weight, bias, padding=self.k // 2, groups=self.co)
        if not self.batch:
            return (y,)
        return y, y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)

    def judge(self, device: str) -> None:
        fixed = (*self.fixed, "bias") if self.batch else self.fixed  # its gradient is zero by a later norm alone
        judge(self.run, self.plain, self.draw, device, fixed=fixed, silent=self.silent)


CASES = {
    "depthwise 7, 8 pixels a thread": Case(1, 8, 37, 33, k=7, blocks=1),
    "depthwise 7, 1 pixel a thread": Case(1, 8, 5, 33, k=7),
    "depthwise 5, 4 pixels a thread": Case(2, 8, 13, 9, k=5, blocks=1),
    "depthwise 3, 2 pixels a thread": Case(2, 8, 5, 9, blocks=1),
    "depthwise 3, several blocks": Case(2, 16, 9, 33),
    "in the Mamba block": Case(2, 8, 35, 5, k=7, norm=False, batch=False, blocks=1),
    "grouped, 8 pixels a thread": Case(1, 8, 19, 13, g=4, blocks=1),
    "grouped, 4 pixels a thread": Case(2, 16, 9, 9, g=4, blocks=1),
    "grouped, no statistics": Case(2, 8, 6, 9, g=4, batch=False),
    "grouped, 12 outputs": Case(1, 12, 7, 10, g=4, activation="relu"),
    "grouped, 5 outputs, in a wider image": Case(2, 5, 6, 7, g=4, extra=3),
    "pairs": Case(2, 6, 5, 8, g=2),
    "triples": Case(1, 3, 6, 5, g=3, activation="gelu"),
    "24 channels in a wider image": Case(1, 24, 7, 5, extra=4),
    "slice off the block": Case(2, 8, 5, 6, extra=3),
    "5 channels": Case(3, 5, 6, 7, k=5),
    "12 channels": Case(1, 12, 6, 9, activation="gelu"),
    "20 channels": Case(1, 20, 4, 3, activation="relu"),
    "one channel": Case(3, 1, 8, 7),
    "one pixel": Case(3, 4, 1, 1),
    "one row": Case(2, 6, 1, 19),
    "one column": Case(2, 4, 23, 1, k=5),
    "1×1": Case(2, 8, 5, 6, k=1),
    "torch's usual memory": Case(2, 8, 6, 7, planar=True),
    "no norm": Case(2, 8, 6, 7, norm=False),
    "no bias": Case(2, 8, 6, 7, biased=False),
    "no bias, no statistics": Case(2, 8, 6, 7, biased=False, batch=False),
    "far from zero": Case(2, 8, 7, 13, mean=100.0),
    "empty batch": Case(0, 8, 5, 6, batch=False),
    "gradient of the image alone": Case(
        2, 8, 6, 7, fixed=("weight", "statistics", "norm_weight", "norm_bias"), activation="relu"
    ),
    "gradient of the weights alone": Case(2, 8, 6, 7, fixed=("base", "statistics", "norm_weight", "norm_bias")),
    "gradient of the norm alone": Case(2, 8, 6, 7, fixed=("base", "weight"), activation="gelu"),
    "gradient of the bias alone": Case(
        2, 8, 6, 7, g=1, batch=False, fixed=("base", "weight", "statistics", "norm_weight", "norm_bias")
    ),
    "no gradient into the statistics": Case(2, 8, 6, 7, silent=(1, 2)),
    "no gradient into the image": Case(2, 8, 6, 7, silent=(0,)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", DEVICES)
def test_it_is_as_exact_as_plain_torch(name, case, monkeypatch):
    monkeypatch.setattr(layer, "_BLOCKS", case.blocks)
    with on(name) as device:
        case.judge(device)


@pytest.mark.parametrize("shape", [(2, 8, 300, 40), (1, 32, 130, 70), (9, 24, 40, 17)])
@pytest.mark.parametrize("k", [3, 7])
def test_large_tiles_on_a_gpu(shape, k):
    with on("cuda") as device:
        Case(*shape, k=k).judge(device)
        Case(*shape, k=3, g=4).judge(device)


@pytest.mark.parametrize("g", [1, 4])
@pytest.mark.parametrize("name", DEVICES)
def test_the_bias_before_a_norm_gets_no_gradient(name, g):
    case = Case(2, 8, 5, 7, g=g)
    with on(name) as device:
        leaves = {key: None if t is None else t.to(device) for key, t in case.draw().items()}
        assert not outcome(case.run, leaves)["grad bias"].any()


@pytest.mark.parametrize("name", DEVICES)
def test_running_values_move_as_torchs(name):
    torch.manual_seed(0)
    case = Case(2, 6, 7, 5)
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in case.draw().items()}
        norm = torch.nn.BatchNorm2d(6, momentum=0.3).to(device)
        expected = torch.nn.BatchNorm2d(6, momentum=0.3).double().to(device)
        given = Normalisation(leaves["statistics"], leaves["norm_weight"], leaves["norm_bias"], EPS)
        x = case.image(leaves["base"])
        grouped(x, leaves["weight"], leaves["bias"], norm=given, batch=True, running=Running.of(norm))
        expected(case.plain(**{key: t.double() for key, t in leaves.items()})[0])
        torch.testing.assert_close(norm.running_mean.double(), expected.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), expected.running_var, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("g", [1, 4])
@pytest.mark.parametrize("name", DEVICES)
def test_same_bits_every_time(name, g):
    case = Case(2, 8, 17, 35, g=g)
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in case.draw().items()}
        first, second = (outcome(case.run, leaves) for _ in range(2))
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("name", DEVICES)
def test_results_are_channels_last(name):
    case = Case(2, 8, 5, 7)
    with on(name) as device:
        y, *_ = case.run(**{key: t.to(device) for key, t in case.draw().items()})
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_wrong_gradient_is_noticed():
    def wrong(self, **leaves):
        y, *others = self.plain(**leaves)
        return y + (y - y.detach()) * 1e-3, *others

    case = CASES["no norm"]
    with on("emulated") as device, pytest.raises(AssertionError, match="grad base"):
        judge(lambda **leaves: wrong(case, **leaves), case.plain, case.draw, device, fixed=("bias",))


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((2, 8, 5, 5), (8, 1, 4, 4), r"weight is \(8, 1, 4, 4\)"),
        ((2, 40, 5, 5), (8, 5, 3, 3), r"weight is \(8, 5, 3, 3\)"),
        ((2, 8, 5, 5), (8, 1, 3, 5), r"weight is \(8, 1, 3, 5\)"),
        ((2, 9, 5, 5), (8, 1, 3, 3), r"x is \(2, 9, 5, 5\).*\(b, 8, h, w\)"),
    ],
)
def test_wrong_shapes_are_named(x, weight, message):
    with pytest.raises(ShapeError, match=message):
        grouped(torch.zeros(x), torch.zeros(weight), None)


def test_it_refuses_float64():
    with pytest.raises(ShapeError, match=r"takes torch\.float32"):
        grouped(torch.zeros(1, 1, 2, 2).double(), torch.zeros(1, 1, 3, 3), None)


def test_small_images_are_cut_finer():
    large = layer._Plan(8, 256, 256, 8, 1, 7)
    assert (large.pixels, large.columns, large.tiles) == (8, 32, 512)
    small = replace(large, b=8, h=32, w=32, co=32)
    assert small.pixels == 2
    assert small.tiles * small.groups >= 120
