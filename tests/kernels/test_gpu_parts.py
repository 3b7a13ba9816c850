"""Images side by side and added up on the GPU in training against plain torch in float64."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from pixel_cases import DEVICES, Leaves, image, judge, norm_leaves, normalised, on, statistics_of

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import Normalisation
from ascseg_cli.kernels.chain.layers.parts import concatenated, sum_of_norms

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}
# channels, whether normalised, activation of each part
SIDE_BY_SIDE = {
    "a decoder's": [(4, i < 6, "none") for i in range(8)],
    "unequal": [(8, True, "relu"), (12, False, "none"), (4, True, "gelu")],
    "odd": [(1, True, "sigmoid"), (3, True, "none"), (2, False, "relu")],
    "two of one": [(1, True, "none"), (1, True, "none")],
    "one": [(4, True, "none")],
}
ADDED = {
    "three": [(8, True, "none")] * 3,
    "two, odd": [(5, True, "gelu"), (5, False, "none")],
    "four": [(4, True, "relu"), (4, False, "sigmoid"), (4, True, "none"), (4, False, "none")],
}
SIZES = [(2, 7, 9, "wide"), (3, 4, 6, "usual"), (0, 3, 4, "dense")]


def leaves(kinds, size, mean=0.0) -> Leaves:
    b, h, w, memory = size
    found: Leaves = {}
    for i, (c, norm, _) in enumerate(kinds):
        z = image(b, c, h, w, memory if i else "dense", mean)
        found |= {f"z{i}": z} | (norm_leaves(z, f"{i}") if norm else {})
    return found


def part(kinds, i, given):
    return given[f"z{i}"], *(given.get(f"{i}{name}") for name in ("statistics", "weight", "bias")), kinds[i][2]


def plain_parts(kinds, given):
    for i in range(len(kinds)):
        z, statistics, weight, bias, activation = part(kinds, i, given)
        yield ACTIVATIONS[activation](z if statistics is None else normalised(z, statistics, weight, bias))


def our_parts(kinds, given):
    for i in range(len(kinds)):
        z, statistics, weight, bias, activation = part(kinds, i, given)
        yield z, None if statistics is None else Normalisation(statistics, weight, bias, 1e-5), activation


def plain_concatenated(kinds, **given):
    return [torch.cat(list(plain_parts(kinds, given)), 1)]


def our_concatenated(kinds, **given):
    return [concatenated(list(our_parts(kinds, given)))]


def plain_sum(kinds, batch, **given):
    y = functools.reduce(torch.add, plain_parts(kinds, given))
    return [y, statistics_of(y)] if batch else [y]


def our_sum(kinds, batch, **given):
    return sum_of_norms(list(our_parts(kinds, given)), batch)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
@pytest.mark.parametrize("device", DEVICES)
def test_side_by_side(device, name, size):
    kinds = SIDE_BY_SIDE[name]
    operators = (functools.partial(operator, kinds) for operator in (our_concatenated, plain_concatenated))
    with on(device) as place:
        judge(*operators, lambda: leaves(kinds, size), place)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("device", DEVICES)
def test_added(device, name, size, batch):
    if size[0] == 0 and batch:
        pytest.skip("no statistics of nothing")
    operators = (functools.partial(operator, ADDED[name], batch) for operator in (our_sum, plain_sum))
    with on(device) as place:
        judge(*operators, lambda: leaves(ADDED[name], size), place)


@pytest.mark.parametrize("device", DEVICES)
def test_large_mean(device):
    kinds = ADDED["three"]
    operators = (functools.partial(operator, kinds, True) for operator in (our_sum, plain_sum))
    with on(device) as place:
        judge(*operators, lambda: leaves(kinds, (2, 9, 14, "dense"), 1000.0), place)


@pytest.mark.parametrize("fixed", [("z0",), ("0statistics", "1weight"), ("z1", "z2")], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_that_are_not_wanted(device, fixed):
    kinds = ADDED["three"]
    operators = (functools.partial(operator, kinds) for operator in (our_concatenated, plain_concatenated))
    with on(device) as place:
        judge(*operators, lambda: leaves(kinds, (2, 7, 5, "dense")), place, fixed)


def test_wrong_parts_are_refused():
    x = image(2, 8, 3, 5)
    with pytest.raises(ShapeError, match="must be 1 to 8"):
        concatenated([(x, None, "none")] * 9)
    with pytest.raises(ShapeError, match=r"must be \(2, 8, 3, 5\)"):
        sum_of_norms([(x, None, "none"), (x[:, :4], None, "none")])
