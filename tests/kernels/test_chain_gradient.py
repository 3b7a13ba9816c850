"""Chains with gradients: the CPU's compiled convolutions against plain torch in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import assert_as_exact
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.chain import Add, Chain, HighPass, chain, side_by_side
from ascseg_cli.network.layers import conv, double


def norm(c: int, momentum: float = 0.1) -> nn.BatchNorm2d:
    """A batch norm in training, with weights and running values of its own."""
    layer = nn.BatchNorm2d(c, momentum=momentum)
    for tensor, low, high in ((layer.running_mean, -1, 1), (layer.running_var, 0.5, 2), (layer.weight, -1.5, 1.5)):
        nn.init.uniform_(tensor, low, high)
    nn.init.uniform_(layer.bias, -1, 1)
    return layer


CHAINS = {
    "batch norms": (5, lambda: [norm(5), conv(5, 3, 1), norm(3, 0.4), nn.Sigmoid(), norm(3)]),
    "batch norms, activated": (4, lambda: [norm(4), nn.GELU(), norm(4), nn.ReLU(), nn.Dropout(0.0)]),
    "doubled": (3, lambda: [nn.GELU(), double(), norm(3), nn.GELU(approximate="tanh")]),
    "dilated": (8, lambda: [conv(8, 4, 3, dilation=3), nn.ReLU(), conv(4, 4, 1)]),
    "dilation 4, odd channels": (5, lambda: [conv(5, 7, 3, dilation=4)]),
    "grouped": (12, lambda: [conv(12, 3, 3, groups=3), nn.GELU()]),
    "depthwise 7": (6, lambda: [conv(6, 6, 7, groups=6), nn.GELU(), conv(6, 6, 1)]),
    "depthwise 5": (3, lambda: [conv(3, 3, 5, groups=3)]),
    "one output": (2, lambda: [conv(2, 1, 7)]),
    "resized": (4, lambda: [double(), conv(4, 2, 3), nn.ReLU(), nn.MaxPool2d(2)]),
    "largest of nine": (6, lambda: [nn.ReLU(), nn.MaxPool2d(3, 1, 1), conv(6, 2, 1)]),
    "mean, high pass": (5, lambda: [nn.AvgPool2d(3, 1, 1), conv(5, 3, 1), HighPass()]),
    "halved": (3, lambda: [nn.ReLU(), nn.MaxPool2d(2), nn.GELU()]),
    "few inputs": (8, lambda: [conv(8, 18, 3), nn.ReLU()]),
    "few outputs": (9, lambda: [conv(9, 8, 3), nn.LayerNorm(8)]),
    "layer norms": (7, lambda: [nn.LayerNorm(7), nn.GELU(), nn.LayerNorm(7), conv(7, 7, 1)]),
    "torch's own": (16, lambda: [conv(16, 16, 3), nn.BatchNorm2d(16).eval(), nn.ReLU()]),
}
SIZES = [(2, 16, 24), (3, 13, 9), (1, 33, 70), (2, 1, 80), (2, 7, 5)]


def results(steps: Chain, x: Tensor, by_y: Tensor, name: str) -> dict[str, Tensor]:
    """y, every gradient and what norms remember, after one pass each way through a copy of the steps."""
    steps = Chain(*(copy.deepcopy(step).to(x.dtype) for step in steps))
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with backend.using(name):
        y = chain(x, steps)
        y.backward(by_y.to(x.dtype))
    found = {"y": y.detach(), "grad x": x.grad.clone()}
    for i, step in enumerate(steps):
        found |= {f"{i}.{n}": b.to(x.dtype) for n, b in step.named_buffers()}
        found |= {f"grad {i}.{n}": p.grad.clone() for n, p in step.named_parameters()}
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_gradients_are_as_exact_as_plain_torch(name, size):
    b, h, w = size
    got, plain, exact = [], [], []
    for draw in range(12):
        torch.manual_seed(draw)
        c, make = CHAINS[name]
        steps = Chain(*make())
        x = torch.randn(b, h, w, c).permute(0, 3, 1, 2)  # rows aren't dense
        if any(isinstance(step, nn.MaxPool2d) for step in steps) and (h % 2 or w % 2):
            pytest.skip("pooling by 2 takes even sizes")
        with torch.no_grad():
            by_y = torch.randn_like(chain(x, Chain(*(copy.deepcopy(step) for step in steps))))
        got.append(results(steps, x, by_y, "cpu"))
        plain.append(results(steps, x, by_y, "reference"))
        exact.append(results(steps, x.double(), by_y, "reference"))
    for key in exact[0]:
        assert_as_exact(*([one[key] for one in ones] for ones in (got, plain, exact)), name=key)


def test_side_by_side_has_the_gradients_of_a_concatenation():
    torch.manual_seed(2)
    parts = [Chain(conv(6, 3, 3, dilation=2)), Chain(nn.MaxPool2d(2), conv(6, 2, 3), double())]
    x, by_y = torch.randn(2, 6, 12, 20), torch.randn(2, 5, 12, 20)
    found = []
    for name, dtype in (("cpu", torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaf = x.to(dtype).requires_grad_() if dtype != x.dtype else x.clone().requires_grad_()
        copies = [Chain(*(copy.deepcopy(step).to(dtype) for step in part)) for part in parts]
        with backend.using(name):
            side_by_side(leaf, copies).backward(by_y.to(dtype))
        found.append([leaf.grad])
    assert_as_exact(*found, name="grad x")


def test_threads_change_no_bit_of_a_gradient():
    torch.manual_seed(3)
    steps = Chain(
        conv(8, 4, 3, dilation=2), norm(4), nn.GELU(), nn.LayerNorm(4), conv(4, 4, 7, groups=4), double()
    )
    x, by_y = torch.randn(3, 8, 40, 36), torch.randn(3, 4, 80, 72)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            found.append(results(steps, x, by_y, "cpu"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(other[key], t) for key, t in found[0].items())


def test_a_norm_far_from_zero_loses_no_digits():
    """Squares of numbers around 1,000 leave nothing of a variance of 1e-4 in float32."""
    torch.manual_seed(5)
    x, by_y = 1000 + 0.01 * torch.randn(2, 3, 24, 40), torch.randn(2, 3, 24, 40)
    x[0, :, 0, 0] = 0.0  # a first pixel unlike the others
    steps = Chain(norm(3), nn.ReLU())
    got, plain = results(steps, x, by_y, "cpu"), results(steps, x, by_y, "reference")
    exact = results(steps, x.double(), by_y, "reference")
    for key in exact:
        assert_as_exact([got[key]], [plain[key]], [exact[key]], name=key)


def test_a_norm_in_training_moves_its_values_without_gradients_too():
    torch.manual_seed(6)
    steps, x = Chain(conv(16, 16, 3), norm(16)), torch.randn(2, 16, 8, 8)
    before, mine = copy.deepcopy(steps[1].running_mean), copy.deepcopy(steps[1])
    with torch.no_grad(), backend.using("cpu"):
        y = chain(x, steps)
        torch.testing.assert_close(y, mine(steps[0](x)), rtol=1e-5, atol=1e-5)
    assert not torch.equal(before, steps[1].running_mean)
    torch.testing.assert_close(steps[1].running_mean, mine.running_mean)
    assert not y.requires_grad


def test_a_batch_norm_of_one_number_is_refused_as_torch_refuses_it():
    with backend.using("cpu"), pytest.raises(ValueError, match="more than 1 value per channel"):
        chain(torch.ones(1, 3, 1, 1), Chain(norm(3)))


def test_float64_is_refused():
    with backend.using("cpu"), pytest.raises(ShapeError, match=r"takes torch\.float32"):
        chain(torch.ones(1, 3, 4, 4, dtype=torch.float64, requires_grad=True), Chain(nn.ReLU()))


def test_only_what_wants_a_gradient_gets_one():
    layer, x = conv(4, 4, 3, groups=4), torch.randn(2, 4, 9, 9)
    layer.weight.requires_grad_(False)
    with backend.using("cpu"):
        y = chain(x, Chain(layer, Add()), torch.ones(2, 4, 9, 9))
        y.sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 2 * 81.0))


def test_a_spoilt_gradient_is_noticed():
    torch.manual_seed(4)
    steps, x, by_y = Chain(conv(4, 4, 3, groups=4)), torch.randn(2, 4, 9, 9), torch.randn(2, 4, 9, 9)
    plain = results(steps, x, by_y, "reference")["grad 0.weight"]
    exact = results(steps, x.double(), by_y, "reference")["grad 0.weight"]
    spoilt = plain.clone()
    spoilt[1, 0, 2, 2] += 1e-4 * exact.abs().max()
    with pytest.raises(AssertionError, match="max error"):
        assert_as_exact([spoilt], [plain], [exact])
