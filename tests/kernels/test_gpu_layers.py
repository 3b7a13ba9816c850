"""Chains with gradients on the GPU's layers, against plain torch in float64."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from cases import assert_as_exact
from emulator.emulate import emulated
from test_chain import CHAINS
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import Add, Chain, reference
from ascseg_cli.kernels.chain.layers import run as layers

SIZES = [(2, 6, 34), (3, 18, 2), (2, 5, 7)]
EVEN = [(2, 6, 34), (3, 18, 2), (2, 4, 8)]


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU was found")
    if request.param == "emulated" and shutil.which("g++") is None:
        pytest.skip("g++ isn't installed")
    with emulated() if request.param == "emulated" else nullcontext():
        yield "cpu" if request.param == "emulated" else "cuda"


def run(
    operator, steps, x: Tensor, other: Tensor | None, gradient: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The result, the gradients of operands and parameters, and the running values afterwards."""
    modules = [copy.deepcopy(step).to(x.device, dtype) for step in steps]
    leaves = [None if t is None else t.detach().to(dtype).requires_grad_() for t in (x, other)]
    y = operator(leaves[0], Chain(*modules), leaves[1])
    y.backward(gradient.to(dtype))
    found = {"y": y.detach(), "x": leaves[0].grad}
    if other is not None:
        found["other"] = leaves[1].grad
    for i, module in enumerate(modules):
        for name, p in module.named_parameters():
            found[f"{i}.{name}"] = p.grad
        for name, b in module.named_buffers():
            if b.is_floating_point():
                found[f"{i}.{name}"] = b
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_layers_are_as_exact_as_plain_torch(device: str, name: str, training: bool) -> None:
    c, make, others = CHAINS[name]
    torch.manual_seed(0)
    steps = [step.train(training) for step in make()]
    halves = any(isinstance(step, nn.MaxPool2d) and step.kernel_size == 2 for step in steps)
    draws: list[list[dict[str, Tensor]]] = [[], [], []]
    for b, h, w in EVEN if halves else SIZES:
        x = torch.randn(b, h, w, c).permute(0, 3, 1, 2)
        size = (h, w) if others > 0 else (1, 1)
        other = torch.randn(b, abs(others), *size) if others else None
        gradient = torch.randn(reference.chain(x, copy.deepcopy(steps), other).shape)
        there = [None if t is None else t.to(device) for t in (x, other, gradient)]
        found = run(layers.chain, steps, *there, torch.float32)
        draws[0].append({key: t.cpu() for key, t in found.items()})
        for kept, dtype in zip(draws[1:], (torch.float32, torch.float64)):
            kept.append(run(reference.chain, steps, x, other, gradient, dtype))
    for key, exact in draws[2][0].items():
        if exact.abs().max() < 1e-12 or _before_a_batch_norm(key, steps, training):
            continue
        assert_as_exact(*([draw[key] for draw in kept] for kept in draws), 2.0, f"{name}: {key}")


def _before_a_batch_norm(key: str, steps: list[nn.Module], training: bool) -> bool:
    """A bias that a batch norm takes away again has a gradient of nothing but rounding."""
    if not training or not key.endswith(".bias"):
        return False
    after = int(key.split(".")[0]) + 1
    return after < len(steps) and isinstance(steps[after], nn.BatchNorm2d)


def test_parts_side_by_side(device: str) -> None:
    torch.manual_seed(1)
    parts = [
        [nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)],
        [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(8, 4, 1), nn.MaxPool2d(2)],
        [nn.MaxPool2d(2), nn.Conv2d(8, 5, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)],
    ]
    x = torch.randn(2, 8, 6, 10, device=device, requires_grad=True)
    doubled = x.detach().double().requires_grad_()
    chains = [Chain(*(m.to(device) for m in part)) for part in parts]
    exact = reference.side_by_side(doubled, [[copy.deepcopy(m).double() for m in part] for part in parts])
    y = layers.side_by_side(x, chains)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    (y * y).sum().backward()
    (exact * exact).sum().backward()
    torch.testing.assert_close(x.grad.double(), doubled.grad, rtol=1e-4, atol=1e-4)


def _depthwise_path(c: int, k: int) -> list[nn.Module]:
    first = nn.Conv2d(c, c, k, padding=k // 2, groups=c)
    return [first, nn.BatchNorm2d(c), nn.GELU(), nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)]


def _in_turn(operator, paths: list[list[nn.Module]], x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """The result and the gradients of x and of all weights, of paths one after another behind a norm."""
    enter, *rest = ([copy.deepcopy(step).to(x.device, dtype) for step in steps] for steps in paths)
    leaf = x.detach().to(dtype).requires_grad_()
    y = operator(leaf, Chain(*enter), [Chain(*steps) for steps in rest])
    (y * y.detach().sin()).sum().backward()
    weights = [p for steps in (enter, *rest) for step in steps for p in step.parameters() if p.dim() > 1]
    weights += [p for step in enter for p in step.parameters()]
    found = {"y": y.detach(), "x": leaf.grad} | {str(i): p.grad for i, p in enumerate(weights)}
    return {key: t.cpu() for key, t in found.items()}


def _one_by_one(x: Tensor, enter: Chain, chains: list[Chain]) -> Tensor:
    q, result = reference.chain(x, enter), None
    for steps in chains:
        result = reference.chain(q, steps, result)
    assert result is not None
    return result


def test_gradients_of_paths_in_turn(device: str) -> None:
    torch.manual_seed(2)
    c = 8
    paths = [[nn.BatchNorm2d(c)], _depthwise_path(c, 7), [*_depthwise_path(c, 5), Add()]]
    paths.append([*_depthwise_path(c, 3), Add(), nn.BatchNorm2d(c)])
    draws: list[list[dict[str, Tensor]]] = [[], [], []]
    for b, h, w in SIZES:
        x = torch.randn(b, h, w, c).permute(0, 3, 1, 2)
        draws[0].append(_in_turn(layers.in_turn, paths, x.to(device), torch.float32))
        for kept, dtype in zip(draws[1:], (torch.float32, torch.float64)):
            kept.append(_in_turn(_one_by_one, paths, x, dtype))
    for key in draws[2][0]:
        assert_as_exact(*([draw[key] for draw in kept] for kept in draws), 2.0, key)


def test_what_layers_cannot_hold_is_named() -> None:
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ShapeError, match=r"Conv2d.* can't be a step"):
        layers.chain(x, Chain(nn.Conv2d(4, 4, 3, stride=2)))
    with pytest.raises(ShapeError, match=r"Tanh.* can't be a step"):
        layers.chain(x, Chain(nn.Tanh()))
    with pytest.raises(ShapeError, match=r"take torch\.float32"):
        layers.chain(x.double(), Chain(Add()), x.double())
