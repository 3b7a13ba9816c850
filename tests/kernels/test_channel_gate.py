"""The channel gate on three rungs: its formula in float64, torch's modules, the GPU's kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from cases import assert_as_exact
from torch import Tensor, nn
from training_cases import DEVICES, Results, judge, on, outcome

from ascseg_cli.errors import BackendError, ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.channel_gate import channel_gate, cpu, gpu, reference
from ascseg_cli.network.focus import ChannelAttentionBlock

NAMES = ("weight1", "bias1", "gamma1", "beta1", "weight2", "bias2", "gamma2", "beta2")
MOMENTUM = 0.3


@dataclass(frozen=True)
class Case:
    """An image and a gate; `extra` channels lie around those of x in memory."""

    b: int
    c: int
    h: int
    w: int
    training: bool = True
    extra: int = 0
    planar: bool = False
    mean: float = 0.0
    quantum: float = 0.0  # values are multiples of it, so that maxima are equal
    fixed: tuple[str, ...] = ()

    def draw(self) -> dict[str, Tensor]:
        c = self.c
        base = torch.randn(self.b, self.h, self.w, c + 2 * self.extra) + self.mean
        if self.quantum:
            base = (base / self.quantum).round() * self.quantum
        made = {"base": base}
        for i in (1, 2):
            made[f"weight{i}"] = torch.randn(c, c, 1, 1) / c**0.5
            made |= {f"bias{i}": torch.randn(c), f"gamma{i}": torch.rand(c) + 0.5, f"beta{i}": torch.randn(c)}
            made |= {f"_mean{i}": torch.randn(c), f"_var{i}": torch.rand(c) + 0.5}
        return made

    def image(self, base: Tensor) -> Tensor:
        x = base.permute(0, 3, 1, 2)[:, self.extra : self.extra + self.c]
        return x.contiguous() if self.planar else x

    def module(self, leaves: dict[str, Tensor]) -> nn.Sequential:
        """A gate whose weights are the leaves themselves."""
        c = self.c
        gate = nn.Sequential(
            nn.Conv2d(c, c, 1), nn.BatchNorm2d(c, momentum=MOMENTUM), nn.GELU(),
            nn.Conv2d(c, c, 1), nn.BatchNorm2d(c, momentum=MOMENTUM), nn.Sigmoid(),
        ).to(leaves["base"])  # fmt: skip
        for name in NAMES:
            step = gate[{"1": 0, "2": 3}[name[-1]] + (name[0] in "gb" and name[:2] != "bi")]
            kind = "weight" if name[:-1] in ("weight", "gamma") else "bias"
            delattr(step, kind)
            setattr(step, kind, leaves[name])
        for i, norm in ((1, gate[1]), (2, gate[4])):
            norm.running_mean, norm.running_var = leaves[f"_mean{i}"].clone(), leaves[f"_var{i}"].clone()
        return gate.train(self.training)

    def by(self, operator, **leaves: Tensor) -> Results:
        gate = self.module(leaves)
        y = operator(self.image(leaves["base"]), gate)
        return y, *(t for norm in (gate[1], gate[4]) for t in (norm.running_mean, norm.running_var))

    def run(self, **leaves: Tensor) -> Results:
        return self.by(gpu.channel_gate, **leaves)

    def plain(self, **leaves: Tensor) -> Results:
        return self.by(reference.channel_gate, **leaves)

    def formula(self, **leaves: Tensor) -> Tensor:
        x = self.image(leaves["base"])
        s = x.amax((2, 3)) + x.mean((2, 3))
        for i in (1, 2):
            z = s @ leaves[f"weight{i}"][:, :, 0, 0].T + leaves[f"bias{i}"]
            given = leaves[f"_mean{i}"], leaves[f"_var{i}"]
            mean, variance = (z.mean(0), z.var(0, correction=0)) if self.training else given
            z = leaves[f"gamma{i}"] * (z - mean) / (variance + 1e-5).sqrt() + leaves[f"beta{i}"]
            s = F.gelu(z) if i == 1 else z.sigmoid()
        return s[:, :, None, None]

    def judge(self, device: str) -> None:
        # before a norm over the batch a bias has no gradient but for rounding
        fixed = (*self.fixed, *(("bias1", "bias2") if self.training else ()))
        judge(self.run, self.plain, self.draw, device, fixed=fixed, draws=6)


CASES = {
    "tiny": Case(4, 8, 13, 17),
    "24 channels in a wider image": Case(3, 24, 7, 5, extra=4),
    "slice off the block": Case(3, 8, 5, 6, extra=3),
    "32 channels": Case(8, 32, 4, 6),
    "evaluation": Case(3, 16, 6, 5, training=False),
    "one image in evaluation": Case(1, 8, 40, 33, training=False),
    "two images": Case(2, 8, 6, 7),
    "5 channels": Case(3, 5, 9, 4),
    "one channel": Case(5, 1, 6, 7),
    "one pixel": Case(4, 4, 1, 1),
    "70 channels": Case(3, 70, 3, 4),
    "132 channels": Case(2, 132, 3, 2, training=False),
    "20 images": Case(20, 12, 3, 4),
    "torch's usual memory": Case(3, 8, 5, 6, planar=True),
    "far from zero": Case(4, 8, 9, 11, mean=100.0),
    "equal maxima": Case(4, 8, 23, 19, quantum=1.0),
    "gradient of the image alone": Case(3, 8, 5, 6, fixed=NAMES),
    "gradient of the weights alone": Case(3, 8, 5, 6, fixed=("base",), training=False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_reference_is_the_formula(case):
    torch.manual_seed(0)
    leaves = {name: t.double() for name, t in case.draw().items()}
    torch.testing.assert_close(case.plain(**leaves)[0], case.formula(**leaves), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_reference_passes_gradcheck(training):
    torch.manual_seed(0)
    case = Case(3, 2, 2, 1, training=training)
    leaves = {name: t.double() for name, t in case.draw().items()}
    wanted = ("base", *NAMES)
    given = [leaves[name].requires_grad_() for name in wanted]
    assert torch.autograd.gradcheck(lambda *t: case.plain(**{**leaves, **dict(zip(wanted, t))})[0], given)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", DEVICES)
def test_it_is_as_exact_as_torchs_modules(name, case):
    with on(name) as device:
        case.judge(device)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_compiled_pooling_is_as_exact_as_torchs_modules(case):
    torch.manual_seed(0)
    got, plain, exact = [], [], []
    for _ in range(6):
        leaves = case.draw()
        got.append(case.by(cpu.channel_gate, **leaves)[0])
        plain.append(case.plain(**leaves)[0])
        exact.append(case.formula(**{name: t.double() for name, t in leaves.items()}))
    assert_as_exact(got, plain, exact)


@torch.no_grad()
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 17), (8, 36)])
def test_the_compiled_pooling_takes_what_is_no_number_as_torch(value, place):
    case = Case(2, 4, 9, 37, training=False)
    leaves = case.draw()
    leaves["base"][1, place[0], place[1], 2] = value
    got, want = case.by(cpu.channel_gate, **leaves)[0], case.plain(**leaves)[0]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", [(8, 8, 256, 256), (8, 24, 64, 64), (2, 128, 40, 24)])
def test_large_images_on_a_gpu(shape):
    with on("cuda") as device:
        Case(*shape).judge(device)


@pytest.mark.parametrize("name", DEVICES)
def test_biases_before_a_norm_of_the_batch_get_no_gradient(name):
    case = Case(3, 8, 5, 7)
    with on(name) as device:
        found = outcome(case.run, {key: t.to(device) for key, t in case.draw().items()})
    assert not found["grad bias1"].any()
    assert not found["grad bias2"].any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", DEVICES)
def test_batches_are_counted_in_training(name, training):
    case = Case(3, 8, 5, 7, training=training)
    with on(name) as device:
        gate = case.module({key: t.to(device) for key, t in case.draw().items()})
        for _ in range(2):
            gpu.channel_gate(torch.randn(3, 8, 5, 7, device=device), gate)
        assert [int(gate[i].num_batches_tracked) for i in (1, 4)] == [2 * training] * 2


@pytest.mark.parametrize("name", DEVICES)
def test_a_mean_over_all_batches_is_refused_rather_than_taken_for_a_tenth(name):
    with on(name) as device:
        gate = Case(3, 8, 5, 7).module({key: t.to(device) for key, t in Case(3, 8, 5, 7).draw().items()})
        gate[1].momentum = None
        with pytest.raises(BackendError, match="momentum None"):
            gpu.channel_gate(torch.randn(3, 8, 5, 7, device=device), gate)


@pytest.mark.parametrize("name", DEVICES)
def test_of_equal_maxima_the_first_gets_the_gradient(name):
    with on(name) as device:
        case = Case(3, 4, 30, 33, training=False)
        gate = case.module({key: t.to(device) for key, t in case.draw().items()})
        x = torch.zeros(3, 4, 30, 33, device=device)
        x[:, :, 2, 5] = x[:, :, 7, 1] = x[:, :, 29, 32] = 1.0
        x.requires_grad_()
        gpu.channel_gate(x, gate).sum().backward()
    spread = x.grad[:, :, :1, :1]
    assert (x.grad != spread).flatten(2).sum(2).eq(1).all()
    torch.testing.assert_close(x.grad[:, :, 2, 5], spread[..., 0, 0] * (30 * 33 + 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", DEVICES)
def test_what_is_no_number_is_as_in_torch(name, value):
    with on(name) as device:
        case = Case(2, 4, 9, 8, training=False)
        leaves = {key: t.to(device) for key, t in case.draw().items()}
        leaves["base"][1, 4, 5, 2] = value
        got, want = case.run(**leaves)[0], case.plain(**leaves)[0]
        torch.testing.assert_close(got, want, equal_nan=True)
        leaves["base"][:] = -math.inf
        torch.testing.assert_close(case.run(**leaves)[0], case.plain(**leaves)[0], equal_nan=True)


@pytest.mark.parametrize("name", DEVICES)
def test_same_bits_every_time(name):
    case = Case(3, 8, 20, 21)
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in case.draw().items()}
        first, second = (outcome(case.run, leaves) for _ in range(2))
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("name", DEVICES)
def test_an_empty_batch_is_empty(name):
    case = Case(0, 4, 3, 3, training=False)
    with on(name) as device:
        assert case.run(**{key: t.to(device) for key, t in case.draw().items()})[0].shape == (0, 4, 1, 1)


def test_the_block_uses_it():
    torch.manual_seed(0)
    block, x = ChannelAttentionBlock(8).double(), torch.randn(2, 8, 5, 6).double()
    s = (x.amax((2, 3)) + x.mean((2, 3)))[:, :, None, None]
    want = x
    for step in block.conv:
        s = step(s)
    torch.testing.assert_close(block(x), s * want + want)


def test_on_the_cpu_the_pooling_is_compiled_and_gradients_are_torchs(monkeypatch):
    launched = []
    monkeypatch.setattr(cpu, "launch", lambda *given: launched.append(1))
    case = Case(3, 4, 5, 6)
    gate, x = case.module(case.draw()), torch.randn(3, 4, 5, 6)
    with backend.using("cpu"):
        torch.testing.assert_close(channel_gate(x, gate), reference.channel_gate(x, gate))
        assert not launched
        with torch.no_grad():
            channel_gate(x, gate)
    assert launched
    with pytest.raises(ShapeError, match="the cpu backend takes"):
        cpu.channel_gate(x.double(), gate)


@pytest.mark.parametrize(
    ("shape", "c", "training", "message"),
    [
        ((2, 8, 5), 8, True, r"x is \(2, 8, 5\)"),
        ((2, 8, 0, 5), 8, True, r"x is \(2, 8, 0, 5\)"),
        ((2, 8, 5, 5), 4, True, r"a weight is \(4, 4, 1, 1\)"),
        ((1, 8, 5, 5), 8, True, "2 or more"),
    ],
)
def test_wrong_shapes_are_named(shape, c, training, message):
    case = Case(2, c, 2, 2, training=training)
    with pytest.raises(ShapeError, match=message):
        channel_gate(torch.zeros(shape), case.module(case.draw()))


def test_another_gate_is_refused():
    with pytest.raises(ShapeError, match="the gate is Conv2d, ReLU; it must be Conv2d, BatchNorm2d"):
        channel_gate(torch.zeros(2, 4, 3, 3), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))


def test_it_refuses_float64():
    case = Case(2, 4, 3, 3)
    leaves = {key: t.double() for key, t in case.draw().items()}
    with pytest.raises(ShapeError, match=r"takes float32 and bfloat16"):
        case.run(**leaves)
