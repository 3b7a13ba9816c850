"""Chains on three rungs: nested loops in float64, plain torch, the compiled passes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cases import assert_as_exact
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend, machine_code
from ascseg_cli.kernels.chain import (
    Add,
    Boost,
    Chain,
    Gate,
    HighPass,
    SoftGate,
    chain,
    in_turn,
    reference,
    side_by_side,
)

SIZES = [(1, 16, 16), (2, 6, 34), (1, 18, 2), (3, 2, 66), (1, 38, 50), (0, 4, 4)]


def norm(c: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(c).eval()
    for tensor, low, high in ((layer.running_mean, -1, 1), (layer.running_var, 0.5, 2), (layer.weight, 0.5, 1.5)):
        nn.init.uniform_(tensor, low, high)
    nn.init.uniform_(layer.bias, -1, 1)
    return layer


def conv(into: int, out: int, k: int, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, k, padding=dilation * (k - 1) // 2, dilation=dilation, groups=groups)


def double() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


# name: channels, steps, channels of the other operand (negative: one number each)
CHAINS = {
    "dense, dilated": (8, lambda: [conv(8, 5, 3, 4), norm(5), nn.ReLU(), conv(5, 7, 1), norm(7)], 0),
    "dilation 2": (12, lambda: [conv(12, 20, 3, 2), norm(20)], 0),
    "7 × 7": (3, lambda: [conv(3, 12, 7)], 0),
    "two passes": (3, lambda: [conv(3, 8, 7), norm(8), nn.ReLU(), conv(8, 9, 3), nn.GELU(), conv(9, 2, 1)], 0),
    "depthwise": (20, lambda: [conv(20, 20, 5, 1, 20), norm(20), nn.GELU(), conv(20, 12, 1)], 0),
    "four inputs each": (20, lambda: [conv(20, 5, 3, 1, 5), norm(5), nn.ReLU(), conv(5, 5, 1), nn.Sigmoid()], 0),
    "doubled, then halved": (6, lambda: [double(), conv(6, 4, 3, 3), norm(4), nn.ReLU(), nn.MaxPool2d(2)], 0),
    "halved, then doubled": (6, lambda: [nn.MaxPool2d(2), conv(6, 4, 3, 3), nn.ReLU(), double()], 0),
    "doubled twice": (5, lambda: [double(), double()], 0),
    "maximum": (6, lambda: [nn.MaxPool2d(3, 1, 1), conv(6, 4, 1), nn.GELU(), conv(4, 1, 1), Gate()], 9),
    "mean": (6, lambda: [nn.AvgPool2d(3, 1, 1), norm(6), nn.Sigmoid(), SoftGate()], 6),
    "high pass": (6, lambda: [HighPass(), conv(6, 6, 1), norm(6), nn.Sigmoid(), Gate()], 6),
    "layer norm": (12, lambda: [nn.LayerNorm(12), nn.Linear(12, 12), Add(), norm(12), nn.LayerNorm(12)], 12),
    "boost": (12, lambda: [Boost()], -12),
    "norm alone": (5, lambda: [norm(5)], 0),
}


def operands(c: int, others: int, b: int, h: int, w: int) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(b, h, w, c).permute(0, 3, 1, 2)  # rows aren't dense
    size = (h, w) if others > 0 else (1, 1)
    return x, torch.randn(b, abs(others), *size) if others else None


@pytest.mark.parametrize("name", CHAINS)
def test_compiled_chains_are_as_exact_as_plain_torch(name):
    c, make, others = CHAINS[name]
    torch.manual_seed(0)
    steps = Chain(*make())
    doubled = Chain(*(copy.deepcopy(step).double() for step in steps))
    got, plain, exact = [], [], []
    for b, h, w in SIZES:
        x, other = operands(c, others, b, h, w)
        with torch.no_grad():
            with backend.using("cpu"):
                got.append(chain(x, steps, other))
            plain.append(reference.chain(x, steps, other))
            exact.append(reference.chain(x.double(), doubled, None if other is None else other.double()))
    whole = [i for i, e in enumerate(exact) if e.numel()]
    assert_as_exact(*([ts[i] for i in whole] for ts in (got, plain, exact)))


@pytest.mark.parametrize(("k", "dilation", "groups"), [(3, 1, 1), (3, 3, 1), (7, 1, 1), (5, 1, 2), (1, 1, 1)])
def test_convolution_norm_and_relu_are_their_definition(k, dilation, groups):
    torch.manual_seed(1)
    layer, after = conv(4, 2, k, dilation, groups), norm(2)
    x = torch.randn(1, 4, 6, 5)
    y = torch.zeros(1, 2, 6, 5, dtype=torch.float64)
    border = dilation * (k - 1) // 2
    for o in range(2):
        inputs = range(4) if groups == 1 else range(2 * o, 2 * o + 2)
        for row in range(6):
            for column in range(5):
                total = layer.bias[o].item()
                for j, i in enumerate(inputs):
                    for r in range(k):
                        for q in range(k):
                            at, to = row + r * dilation - border, column + q * dilation - border
                            if 0 <= at < 6 and 0 <= to < 5:
                                total += layer.weight[o, j, r, q].item() * x[0, i, at, to].item()
                total = (total - after.running_mean[o].item()) / math.sqrt(after.running_var[o].item() + 1e-5)
                y[0, o, row, column] = max(total * after.weight[o].item() + after.bias[o].item(), 0)
    for name in ("reference", "cpu"):
        with torch.no_grad(), backend.using(name):
            got = chain(x, Chain(layer, after, nn.ReLU()))
        torch.testing.assert_close(got.double(), y, rtol=1e-5, atol=1e-5)


def test_side_by_side_is_a_concatenation():
    torch.manual_seed(2)
    parts = [Chain(conv(8, 3, 3)), Chain(nn.MaxPool2d(2), conv(8, 5, 1), double()), Chain(nn.ReLU())]
    x = torch.randn(2, 8, 12, 20)
    with torch.no_grad(), backend.using("cpu"):
        got, alone = side_by_side(x, parts), [chain(x, steps) for steps in parts]
    assert torch.equal(got, torch.cat(alone, 1))
    with torch.no_grad():
        torch.testing.assert_close(got, reference.side_by_side(x, parts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [Add(), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)])
def test_chains_in_turn_are_one_after_another(last):
    """Whether every chain is one pass that keeps the size, or the second isn't."""
    torch.manual_seed(5)
    enter = Chain(nn.ReLU(), conv(6, 6, 3))
    chains = [Chain(conv(6, 6, 5, groups=6), nn.GELU()), Chain(conv(6, 6, 3, groups=6), Add()), Chain(Add(), last)]
    x, before = torch.randn(2, 6, 37, 20), torch.get_num_threads()
    try:
        with torch.no_grad(), backend.using("cpu"):
            for threads in (1, 3):
                torch.set_num_threads(threads)
                q = chain(x, enter)
                result = chain(q, chains[2], chain(q, chains[1], chain(q, chains[0])))
                assert torch.equal(in_turn(x, enter, chains), result)
    finally:
        torch.set_num_threads(before)


def test_neither_batch_mates_nor_threads_change_a_bit():
    torch.manual_seed(3)
    steps = Chain(conv(8, 8, 3), nn.GELU(), conv(8, 8, 1), nn.MaxPool2d(2))
    x = torch.randn(3, 8, 40, 36)
    before = torch.get_num_threads()
    try:
        with torch.no_grad(), backend.using("cpu"):
            torch.set_num_threads(1)
            one = chain(x, steps)
            torch.set_num_threads(3)
            assert torch.equal(chain(x, steps), one)
            assert torch.equal(chain(x[1:2], steps), one[1:2])
    finally:
        torch.set_num_threads(before)


def test_changed_weights_count():
    layer, after = conv(4, 4, 3), norm(4)
    steps, x = Chain(layer, after), torch.randn(1, 4, 8, 8)
    with torch.no_grad(), backend.using("cpu"):
        chain(x, steps)
        layer.weight.mul_(2)
        after.running_mean.add_(1)
        torch.testing.assert_close(chain(x, steps), reference.chain(x, steps), rtol=1e-5, atol=1e-5)
        layer.weight = nn.Parameter(torch.ones(4, 4, 3, 3))
        torch.testing.assert_close(chain(x, steps), reference.chain(x, steps), rtol=1e-5, atol=1e-5)


def test_a_gradient_leaves_to_torch_what_it_does_well():
    steps, x = Chain(conv(16, 16, 3), norm(16)), torch.randn(2, 16, 8, 8, requires_grad=True)
    with backend.using("cpu"):
        y = chain(x, steps)
    assert torch.equal(y, steps[1](steps[0](x)))
    assert y.requires_grad


def test_what_a_chain_cannot_hold_is_named():
    x = torch.zeros(1, 4, 8, 8)
    with torch.no_grad(), backend.using("cpu"):
        with pytest.raises(ShapeError, match=r"Conv2d.* can't be a step"):
            chain(x, Chain(nn.Conv2d(4, 4, 3, stride=2)))
        with pytest.raises(ShapeError, match=r"Tanh.* can't be a step"):
            chain(x, Chain(nn.Tanh()))
        with pytest.raises(ShapeError, match=r"takes torch\.float32"):
            chain(x.double(), Chain(nn.ReLU()))
        with pytest.raises(ShapeError, match="other must be given"):
            chain(x, Chain(Add()))


@torch.no_grad()
@pytest.mark.parametrize(("into", "out", "size", "dilation"), [(3, 8, 7, 1), (8, 18, 3, 1), (5, 3, 3, 4)])
def test_many_registers_or_few_give_the_same_bits(monkeypatch, into, out, size, dilation):
    torch.manual_seed(0)
    layer = conv(into, out, size, dilation)
    for h, w in ((9, 50), (3, 16), (1, 1)):
        x, results = torch.randn(2, into, h, w), []
        for roomy in (True, False):
            monkeypatch.setattr(machine_code, "roomy", lambda roomy=roomy: roomy)
            with backend.using("cpu"):
                results.append(chain(x, Chain(layer, nn.ReLU())))
        assert torch.equal(*results)
