"""Pixelwise operators of the GPU's training against plain torch in float64."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from pixel_cases import DEVICES, SIZES, Leaves, image, judge, norm_leaves, normalised, on, statistics_of
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running
from ascseg_cli.kernels.chain.layers.pixelwise import applied

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}
COMBINATIONS = {
    "none": lambda v, o: v,
    "add": lambda v, o: v + o,
    "gate": lambda v, o: v * o + o,
    "soft_gate": lambda v, o: v * o.sigmoid() + o,
    "boost": lambda v, o: o * v + v,
}


def plain(x, statistics, weight, bias, other, plus, activation, combine, then, batch):
    u = x if statistics is None else normalised(x, statistics, weight, bias)
    v = COMBINATIONS[combine](ACTIVATIONS[activation](u), other)
    y = ACTIVATIONS[then](v if plus is None else v + plus)
    return y, statistics_of(y) if batch else None


def ours(x, statistics, weight, bias, other, plus, **ways):
    norm = None if statistics is None else Normalisation(statistics, weight, bias, 1e-5)
    return applied(x, norm=norm, other=other, plus=plus, **ways)


def leaves(size, combine, norm=True, plus=False, channels=None, mean=0.0) -> Leaves:
    b, c, h, w, memory = size
    x = image(b, channels or c, h, w, memory, mean)
    of_norm = norm_leaves(x) if norm else dict.fromkeys(("statistics", "weight", "bias"))
    other = None if combine == "none" else image(b, c, *((1, 1) if combine == "boost" else (h, w)))
    return {"x": x, **of_norm, "other": other, "plus": image(b, c, h, w, memory) if plus else None}


def check(device, draw, fixed=(), **ways):
    ways = {"activation": "none", "combine": "none", "then": "none", "batch": False} | ways
    with on(device) as place:
        judge(functools.partial(ours, **ways), functools.partial(plain, **ways), draw, place, fixed)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_gate_on_every_size(device, size, batch):
    if size[0] == 0 and batch:
        pytest.skip("no statistics of nothing")
    check(device, lambda: leaves(size, "gate"), activation="gelu", combine="gate", batch=batch)


WAYS = [
    {"activation": "relu"},
    {"activation": "relu", "batch": True},
    {"combine": "add"},
    {"combine": "add", "then": "relu"},
    {"combine": "add", "batch": True},
    {"activation": "sigmoid", "combine": "gate"},
    {"activation": "sigmoid", "combine": "soft_gate"},
    {"activation": "sigmoid", "combine": "soft_gate", "batch": True},
    {"activation": "gelu", "combine": "gate", "plus": True},
    {"combine": "boost"},
    {"combine": "boost", "plus": True, "then": "relu"},
    {"combine": "boost", "batch": True, "then": "sigmoid"},
]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("ways", WAYS, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_every_combination(device, ways, norm):
    rest = {key: way for key, way in ways.items() if key != "plus"}
    combine, plus = ways.get("combine", "none"), "plus" in ways
    check(device, lambda: leaves((3, 8, 5, 9, "dense"), combine, norm, plus), **rest)


@pytest.mark.parametrize(
    "size", [(2, 8, 9, 7, "dense"), (1, 24, 13, 5, "wide"), (3, 5, 4, 4, "usual"), (0, 8, 3, 3, "dense")]
)
@pytest.mark.parametrize("device", DEVICES)
def test_one_channel_gates_all(device, size):
    ways = {"activation": "sigmoid", "combine": "gate"}
    check(device, lambda: leaves(size, "gate", channels=1), **ways)


@pytest.mark.parametrize("device", DEVICES)
def test_one_channel_without_norm_is_added_to_all(device):
    check(device, lambda: leaves((2, 8, 9, 7, "dense"), "add", norm=False, channels=1), combine="add", batch=True)


@pytest.mark.parametrize("device", DEVICES)
def test_large_mean(device):
    draw = functools.partial(leaves, (2, 8, 20, 31, "dense"), "add", mean=1000.0)
    check(device, draw, activation="relu", combine="add", batch=True)
    check(device, lambda: leaves((2, 8, 9, 31, "dense"), "none", False, mean=1000.0), batch=True)


FIXED = [
    ("statistics",),
    ("statistics", "weight", "bias"),
    ("x", "statistics", "weight", "bias"),
    ("other",),
    ("plus",),
]


@pytest.mark.parametrize("fixed", FIXED, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_that_are_not_wanted(device, fixed):
    ways = {"combine": "boost", "then": "relu"}
    check(device, lambda: leaves((2, 8, 5, 9, "dense"), "boost", plus=True), fixed, **ways)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_statistics_alone(device):
    def mean_only(operator, **leaves: Tensor | None):
        return [operator(**leaves, activation="none", combine="gate", then="none", batch=True)[1]]

    with on(device) as place:
        operators = (functools.partial(mean_only, operator) for operator in (ours, plain))
        judge(*operators, lambda: leaves((2, 8, 5, 9, "dense"), "gate"), place)


@pytest.mark.parametrize("device", DEVICES)
def test_running_values_move_as_torch_moves_them(device):
    with on(device) as place:
        x, other = image(2, 8, 5, 9).to(place), image(2, 8, 5, 9).to(place)
        norm = torch.nn.BatchNorm2d(8).to(place)
        running = Running(norm.running_mean.clone(), norm.running_var.clone(), 0.1)
        applied(x, combine="add", other=other, batch=True, running=running)
        norm(x + other)
        torch.testing.assert_close(running.mean, norm.running_mean)
        torch.testing.assert_close(running.variance, norm.running_var)


def test_wrong_operands_are_refused():
    x = image(2, 8, 5, 9)
    with pytest.raises(ShapeError, match="other must be given"):
        applied(x, combine="gate")
    with pytest.raises(ShapeError, match=r"must be \(2, 8, 1, 1\)"):
        applied(x, combine="boost", other=x)
    with pytest.raises(ShapeError, match=r"must be \(2, 8, 5, 9\)"):
        applied(x, combine="add", other=x[:, :4])
    with pytest.raises(ShapeError, match=r"torch\.float64"):
        applied(x.double())
