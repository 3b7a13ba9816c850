"""The split batch norm equals torch's own in every output, gradient and running value."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ascseg_cli.training.batch_norm import SplitBatchNorm2d

SHAPES = [(2, 3, 5, 7), (4, 1, 9, 2), (3, 18, 33, 17), (2, 8, 1, 1)]


def _pair(c: int, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(c, dtype=dtype)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    split = copy.deepcopy(plain)
    SplitBatchNorm2d.replace_in(split)
    assert type(split) is SplitBatchNorm2d
    return plain, split


def _results(module: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = module(x)
    grads = torch.autograd.grad(y, [x, *module.parameters()], g)
    return [y.detach(), *grads, *(b.clone() for b in module.buffers())]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_float64(shape: tuple[int, ...]) -> None:
    plain, split = _pair(shape[1], torch.float64)
    for _ in range(3):  # running values move each time
        x, g = torch.randn(2, *shape, dtype=torch.float64) * 3 + 1
        for got, want in zip(_results(split, x, g), _results(plain, x, g)):
            torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-11)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(split.eval()(x), plain.eval()(x), atol=1e-12, rtol=1e-12)


def test_float32_errs_no_more_than_twice_torch() -> None:
    shape = (4, 8, 61, 67)
    plain, split = _pair(8, torch.float32)
    exact = copy.deepcopy(plain).double()
    x, g = torch.randn(2, *shape) * 2 + 3
    for got, base, want in zip(
        _results(split, x, g), _results(plain, x, g), _results(exact, x.double(), g.double())
    ):
        error, limit = ((t.double() - want).abs().max().item() for t in (got, base))
        assert error <= 2 * limit + torch.finfo(torch.float32).eps * want.abs().max().item()


def test_strided_input_and_gradcheck() -> None:
    _, split = _pair(3, torch.float64)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: split(t), x)
