"""The training loss on three rungs: its formula in float64, plain torch, the GPU's kernels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from training_cases import DEVICES, judge, on, outcome

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.segmentation_loss import gpu, reference, segmentation_loss
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.loss import deep_supervision_loss

# b, h, w, scales
SIZES = {
    "as the network": (2, 16, 32, (1, 2, 4, 8)),
    "one image": (1, 24, 8, (1, 2, 4, 8)),
    "smallest maps of one pixel": (3, 8, 8, (1, 2, 4, 8)),
    "several blocks": (2, 64, 72, (1, 2, 4, 8)),
    "odd maps": (2, 21, 33, (1, 3)),
    "one column": (2, 12, 4, (4, 2)),
    "one map": (3, 5, 7, (1,)),
    "one map, enlarged": (2, 10, 6, (2,)),
    "no full size": (2, 16, 16, (2, 4, 8)),
    "one pixel": (2, 1, 1, (1, 1)),
}


def draw(b: int, h: int, w: int, scales: tuple[int, ...], spread: float = 3.0) -> dict[str, Tensor]:
    """Logits, and a target most of which is 0 or 1."""
    maps = {f"z{i}": spread * torch.randn(b, 1, h // s, w // s) for i, s in enumerate(scales)}
    return maps | {"_target": (2 * torch.rand(b, 1, h, w) - 0.5).clamp(0, 1)}


def on_gpu(_target: Tensor, **maps: Tensor) -> tuple[Tensor]:
    return (gpu.segmentation_loss(list(maps.values()), _target),)


def plain(_target: Tensor, **maps: Tensor) -> tuple[Tensor]:
    return (reference.segmentation_loss(list(maps.values()), _target),)


def enlargement(small: int, large: int) -> Tensor:
    """How much each of `small` numbers counts in each of `large`: tents, (large, small) float64."""
    at = torch.arange(large, dtype=torch.float64) * (small - 1) / max(large - 1, 1)
    return (1 - (at[:, None] - torch.arange(small)).abs()).clamp_min(0)


def oracle(low: list[Tensor], target: Tensor) -> float:
    """The definition, image after image."""
    b, _, h, w = target.shape
    loss = 0.0
    for z in low:
        for t, small in zip(target[:, 0], z[:, 0]):
            p = 1 / (1 + (-(enlargement(small.shape[0], h) @ small @ enlargement(small.shape[1], w).T)).exp())
            entropy = -(t * p.log().clamp_min(-100) + (1 - t) * (1 - p).log().clamp_min(-100)).mean()
            dice = (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            loss += float(0.5 * entropy + 0.5 * (1 - dice)) / b
    return loss


@pytest.mark.parametrize("size", [SIZES["as the network"], SIZES["odd maps"], SIZES["one pixel"]])
def test_reference_is_the_definition(size):
    torch.manual_seed(0)
    target, *low = (t.double() for t in reversed(draw(*size).values()))
    assert math.isclose(reference.segmentation_loss(low, target).item(), oracle(low, target), rel_tol=1e-12)


def test_reference_passes_gradcheck():
    torch.manual_seed(0)
    target, *low = (t.double() for t in reversed(draw(2, 4, 2, (1, 2)).values()))
    leaves = [z.requires_grad_() for z in low]
    assert torch.autograd.gradcheck(lambda *z: reference.segmentation_loss(z, target), leaves)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", DEVICES)
def test_it_is_as_exact_as_plain_torch(name, size):
    with on(name) as device:
        judge(on_gpu, plain, lambda: draw(*size), device, draws=6)


@pytest.mark.parametrize("name", DEVICES)
def test_an_empty_batch_is_as_in_plain_torch(name):
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in draw(0, 8, 8, (1, 2)).items()}
        assert on_gpu(**leaves)[0].isnan()


@pytest.mark.parametrize("name", DEVICES)
def test_only_the_maps_that_want_it_get_a_gradient(name):
    with on(name) as device:
        judge(on_gpu, plain, lambda: draw(2, 8, 16, (1, 2, 4)), device, fixed=("z0", "z2"))


@pytest.mark.parametrize(("spread", "scales"), [(40.0, (1, 2, 4, 8)), (200.0, (1, 2, 4, 8)), (1e4, (1,))])
@pytest.mark.parametrize("name", DEVICES)
def test_probabilities_may_saturate(name, spread, scales):
    with on(name) as device:
        judge(on_gpu, plain, lambda: draw(2, 16, 24, scales, spread), device, draws=6)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("name", DEVICES)
def test_logarithms_are_not_below_minus_100(name, logit):
    with on(name) as device:
        z = torch.full((2, 1, 4, 4), logit, device=device, requires_grad=True)
        target = torch.full_like(z, float(logit < 0)).detach()
        loss = gpu.segmentation_loss([z], target)
        dice = 1 / (16 + 1)
        assert math.isclose(loss.item(), 0.5 * 100 + 0.5 * (1 - dice), rel_tol=1e-6)
        loss.backward()
        assert not z.grad.any()


@pytest.mark.parametrize("name", DEVICES)
def test_a_logit_that_is_no_number_shows(name):
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in draw(2, 8, 8, (1, 2)).items()}
        leaves["z1"][1, 0, 2, 1] = math.nan
        assert on_gpu(**leaves)[0].isnan()


@pytest.mark.parametrize("name", DEVICES)
def test_same_bits_every_time(name):
    with on(name) as device:
        leaves = {key: t.to(device) for key, t in draw(2, 16, 40, (1, 2, 4, 8)).items()}
        first, second = (outcome(on_gpu, leaves) for _ in range(2))
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("name", DEVICES)
def test_memory_may_be_strided(name):
    with on(name) as device:
        z, t = torch.randn(2, 8, 6, 3, device=device)[..., 1], torch.rand(8, 6, 2, 1, device=device)
        z, t = z.unsqueeze(1), t.permute(2, 3, 0, 1)
        got, want = gpu.segmentation_loss([z], t), reference.segmentation_loss([z], t)
        torch.testing.assert_close(got, want)


def test_low_logits_give_the_loss_of_the_full_ones():
    torch.manual_seed(0)
    net = ASCSeg((4, 8, 12, 16)).double().train()
    image, target = torch.rand(2, 3, 16, 32).double(), torch.rand(2, 1, 16, 32).double()
    low = net.low_logits(image)
    assert [tuple(z.shape) for z in low] == [(2, 1, 16 >> i, 32 >> i) for i in range(4)]
    torch.testing.assert_close(segmentation_loss(low, target), deep_supervision_loss(net(image), target))


@pytest.mark.parametrize(
    ("low", "target", "message"),
    [
        ([(2, 1, 4, 4)], (2, 1, 8, 4), "same whole number"),
        ([(2, 1, 3, 3)], (2, 1, 8, 8), "same whole number"),
        ([(2, 1, 8, 8), (3, 1, 8, 8)], (2, 1, 8, 8), r"\(3, 1, 8, 8\)"),
        ([(2, 1, 0, 8)], (2, 1, 8, 8), r"\(2, 1, 0, 8\)"),
        ([(2, 8, 8)], (2, 1, 8, 8), r"\(2, 8, 8\)"),
        ([(2, 1, 8, 8)], (2, 8, 8), r"target is \(2, 8, 8\)"),
        ([(2, 1, 8, 8)] * 5, (2, 1, 8, 8), "one to four"),
        ([], (2, 1, 8, 8), "one to four"),
    ],
)
def test_wrong_shapes_are_named(low, target, message):
    with pytest.raises(ShapeError, match=message):
        segmentation_loss([torch.zeros(shape) for shape in low], torch.zeros(target))


def test_wrong_dtypes_are_named():
    with pytest.raises(ShapeError, match="float64"):
        segmentation_loss([torch.zeros(1, 1, 2, 2).double()], torch.zeros(1, 1, 2, 2))
    with pytest.raises(ShapeError, match=r"takes torch\.float32"):
        gpu.segmentation_loss([torch.zeros(1, 1, 2, 2).double()], torch.zeros(1, 1, 2, 2).double())


def test_the_cpu_takes_plain_torch():
    assert backend.for_operator("segmentation_loss", torch.zeros(1)) == "reference"
