"""Doubling, halving and pooling on the GPU in training against plain torch in float64."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from pixel_cases import DEVICES, SIZES, Leaves, image, judge, norm_leaves, normalised, on, statistics_of

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers import resize
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
OPERATIONS = {
    "doubled": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "halved": lambda x: F.max_pool2d(x, 2),
    "pooled_mean": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "pooled_max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "high_passed": lambda x: x - F.avg_pool2d(x, 3, 1, 1),
}
OF_NOTHING = (
    dict.fromkeys(OPERATIONS, lambda x: x)
    | {  # torch refuses some empty batches
        "doubled": lambda x: x.repeat(1, 1, 2, 2),
        "halved": lambda x: x[..., : x.shape[2] // 2, : x.shape[3] // 2],
    }
)


def plain(x, statistics, weight, bias, operation, activation, batch):
    u = x if statistics is None else normalised(x, statistics, weight, bias)
    y = (OPERATIONS if x.numel() else OF_NOTHING)[operation](ACTIVATIONS[activation](u))
    return y, statistics_of(y) if batch else None


def ours(x, statistics, weight, bias, operation, activation, batch):
    norm = None if statistics is None else Normalisation(statistics, weight, bias, 1e-5)
    return getattr(resize, operation)(x, norm, activation, batch=batch)


def leaves(size, norm=True, mean=0.0) -> Leaves:
    x = image(*size, mean=mean)
    return {"x": x} | (norm_leaves(x) if norm else dict.fromkeys(("statistics", "weight", "bias")))


def check(device, draw, operation, activation="none", batch=False, fixed=()):
    ways = {"operation": operation, "activation": activation, "batch": batch}
    with on(device) as place:
        judge(functools.partial(ours, **ways), functools.partial(plain, **ways), draw, place, fixed)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_size(device, operation, size):
    if operation == "halved" and min(size[2:4]) < 2:
        pytest.skip("an image of one pixel can't be halved")
    check(device, lambda: leaves(size), operation)


@pytest.mark.parametrize("size", [(2, 4, 1, 9, "dense"), (1, 4, 8, 1, "dense"), (2, 4, 2, 2, "wide")], ids=str)
@pytest.mark.parametrize("operation", ["doubled", "pooled_mean", "pooled_max"])
@pytest.mark.parametrize("device", DEVICES)
def test_narrow_images(device, operation, size):
    check(device, lambda: leaves(size, norm=False), operation)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_activation_before(device, operation, activation):
    check(device, lambda: leaves((2, 8, 7, 10, "dense")), operation, activation)


@pytest.mark.parametrize("size", [(2, 8, 7, 10, "dense"), (1, 6, 9, 5, "wide")], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_statistics_of_the_result(device, operation, size):
    check(device, lambda: leaves(size, norm=False), operation, batch=True)


@pytest.mark.parametrize("operation", ["doubled", "halved"])
@pytest.mark.parametrize("device", DEVICES)
def test_norm_activation_and_statistics(device, operation):
    check(device, lambda: leaves((2, 8, 7, 10, "dense")), operation, "relu", True)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_large_mean(device, operation):
    check(device, lambda: leaves((2, 8, 9, 14, "dense"), mean=1000.0), operation, batch=operation == "doubled")


@pytest.mark.parametrize("fixed", [("statistics",), ("statistics", "weight", "bias"), ("x",)], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_that_are_not_wanted(device, fixed):
    check(device, lambda: leaves((2, 8, 7, 10, "dense")), "doubled", fixed=fixed)


@pytest.mark.parametrize("operation", ["halved", "pooled_max"])
@pytest.mark.parametrize("device", DEVICES)
def test_ties_and_nan_choose_as_torch_chooses(device, operation):
    torch.manual_seed(0)
    x = torch.randint(0, 3, (2, 8, 12, 13)).float()
    x[0, :, 3:6, 4], x[1, 3, 7, 8] = float("nan"), -float("inf")
    with on(device) as place:
        x = x.to(place).requires_grad_()
        y, _ = getattr(resize, operation)(x)
        wanted = OPERATIONS[operation](x)
        dy = torch.randint(1, 100, y.shape).float().to(place)  # whole numbers: sums are exact
        got, exact = (torch.autograd.grad(result, x, dy)[0] for result in (y, wanted))
        assert torch.equal(y.nan_to_num(9), wanted.nan_to_num(9))
        assert torch.equal(got, exact)


@pytest.mark.parametrize("device", DEVICES)
def test_running_values_move_as_torch_moves_them(device):
    with on(device) as place:
        x = image(2, 8, 5, 9).to(place)
        norm = torch.nn.BatchNorm2d(8).to(place)
        running = Running(norm.running_mean.clone(), norm.running_var.clone(), 0.1)
        resize.doubled(x, batch=True, running=running)
        norm(OPERATIONS["doubled"](x))
        torch.testing.assert_close(running.mean, norm.running_mean)
        torch.testing.assert_close(running.variance, norm.running_var)


def test_one_pixel_cannot_be_halved():
    with pytest.raises(ShapeError, match="2 × 2 pixels or more"):
        resize.halved(torch.zeros(1, 4, 1, 5))
