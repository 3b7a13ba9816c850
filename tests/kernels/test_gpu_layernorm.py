"""Layer normalisation on the GPU in training against plain torch in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pixel_cases import DEVICES, SIZES, Leaves, image, judge, on

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.layernorm import layer_normed

CHANNELS = [3, 12, 16, 32, 33, 48, 96, 124, 127, 128]


def plain(x, weight, bias, other=None):
    s = x if other is None else x + other
    return [F.layer_norm(s.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-5).permute(0, 3, 1, 2)]


def ours(x, weight, bias, other=None):
    return [layer_normed(x, weight, bias, 1e-5, other)]


def leaves(b, c, h, w, memory="dense", other=False, mean=0.0) -> Leaves:
    drawn = {"x": image(b, c, h, w, memory, mean), "weight": torch.rand(c) + 0.5, "bias": torch.randn(c)}
    return drawn | ({"other": image(b, c, h, w)} if other else {})


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("size", [s for s in SIZES if s[1] > 1], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_every_size(device, size, other):
    with on(device) as place:
        judge(ours, plain, lambda: leaves(*size, other=other), place)


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_number_of_channels(device, c):
    with on(device) as place:
        judge(ours, plain, lambda: leaves(2, c, 3, 5, other=c > 100), place, draws=3)


@pytest.mark.parametrize("device", DEVICES)
def test_one_channel_is_its_bias(device):
    with on(device) as place:
        x, weight, bias = (t.to(place) for t in (torch.randn(2, 1, 3, 5), torch.ones(1), torch.full((1,), 0.25)))
        assert torch.equal(layer_normed(x, weight, bias, 1e-5), torch.full_like(x, 0.25))


@pytest.mark.parametrize("device", DEVICES)
def test_large_mean(device):
    with on(device) as place:
        judge(ours, plain, lambda: leaves(2, 8, 9, 14, mean=1000.0), place)


@pytest.mark.parametrize("fixed", [("x",), ("weight",), ("weight", "bias"), ("other",), ("x", "other")], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_that_are_not_wanted(device, fixed):
    with on(device) as place:
        judge(ours, plain, lambda: leaves(2, 8, 7, 10, other=True), place, fixed)


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_of_nan_stay_alone(device):
    with on(device) as place:
        x = torch.randn(1, 8, 4, 4)
        x[0, 3, 1, 2] = float("nan")
        y = layer_normed(x.to(place), *torch.ones(2, 8).to(place), 1e-5)
        assert y.isnan().sum() == 8
        assert y[0, :, 1, 2].isnan().all()


def test_wrong_shapes_are_refused():
    x, one = torch.randn(2, 8, 4, 4), torch.ones(8)
    with pytest.raises(ShapeError, match="must be as x"):
        layer_normed(x, one, one, 1e-5, x[:1])
    with pytest.raises(ShapeError, match="x has 8 channels"):
        layer_normed(x, one[:4], one[:4], 1e-5)
