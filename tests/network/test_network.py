"""Shapes, sizes and mistakes of the network itself."""

from __future__ import annotations

import math

import pytest
import torch

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.network import VARIANTS, ASCSeg
from ascseg_cli.network.decoder import FeatureAlignmentConnector
from ascseg_cli.network.loss import deep_supervision_loss
from ascseg_cli.network.mamba import Mamba, ParallelMambaBlock
from ascseg_cli.network.shapes import expected_shapes

PARAMETERS = {"tiny": 222_408, "small": 811_688, "base": 3_093_032}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_the_published_number_of_parameters(variant: str) -> None:
    net = ASCSeg(VARIANTS[variant])
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize("channels", [*VARIANTS.values(), (4, 8, 4, 12), (20, 36, 68, 132)])
def test_the_list_of_shapes_is_the_state_dict(channels: tuple[int, ...]) -> None:
    state = {n: tuple(t.shape) for n, t in ASCSeg(channels).state_dict().items()}
    state = {n: shape for n, shape in state.items() if not n.endswith("num_batches_tracked")}
    assert expected_shapes(channels) == state


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (80, 32)])
def test_any_multiple_of_16_gives_four_full_size_maps(size: tuple[int, int]) -> None:
    net = ASCSeg((4, 8, 12, 16)).eval()
    with torch.no_grad(), backend.using("reference"):
        maps = net.heads(torch.rand(3, 3, *size))
    assert [tuple(p.shape) for p in maps] == [(3, 1, *size)] * 4
    assert all(0 <= p.min() and p.max() <= 1 for p in maps)


@pytest.mark.parametrize(
    ("shape", "words"), [((1, 3, 20, 32), "pad it to 32×32"), ((1, 1, 16, 16), r"\(b, 3, h, w\)")]
)
def test_a_wrong_input_says_what_to_do(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        ASCSeg((4, 4, 4, 4))(torch.zeros(shape))


def test_a_training_batch_of_one_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 or more"):
        ASCSeg((4, 4, 4, 4)).train()(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("channels", [(8, 16, 24), (8, 16, 24, 30), (0, 4, 4, 4)])
def test_channels_are_four_multiples_of_4(channels: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="four multiples of 4"):
        ASCSeg(channels)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_an_observed_mamba_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    block, x, seen = ParallelMambaBlock(8).eval(), torch.randn(3, 8, 6, 7), []
    with torch.no_grad(), backend.using(name):
        alone = block(x)
        handle = block.mamba.register_forward_hook(lambda _m, given, out: seen.append((given[0], out)))
        observed = block(x)
        handle.remove()
        u = torch.nn.functional.layer_norm(x.movedim(1, -1), (8,), block.norm.weight, block.norm.bias)
        first = block.mamba(u.flatten(1, 2)[..., :2])
    torch.testing.assert_close(observed, alone, rtol=1e-5, atol=1e-6)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][1][:3], first, rtol=1e-5, atol=1e-6)  # the first b rows: Mamba(u1)


def test_mamba_starts_as_in_its_paper() -> None:
    mamba = Mamba(24)
    delta = torch.nn.functional.softplus(mamba.dt_proj.bias.detach())
    assert mamba.rank == 2
    assert 1e-3 * 0.99 <= delta.min()
    assert delta.max() <= 1e-1 * 1.01
    assert torch.equal(mamba.A_log[0], torch.arange(1.0, 17.0).log())
    assert mamba.dt_proj.weight.abs().max() <= 2**-0.5


def test_the_loss_is_clamped_where_probabilities_saturate() -> None:
    target = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    logits = [torch.full_like(target, -1e4)] * 4
    dice = 1 - 1 / (16 + 1)
    assert math.isclose(deep_supervision_loss(logits, target).item(), 4 * (0.5 * 100 + 0.5 * dice), rel_tol=1e-12)


def test_the_loss_refuses_another_shape() -> None:
    with pytest.raises(ShapeError, match="must agree"):
        deep_supervision_loss([torch.zeros(2, 1, 4, 4)], torch.zeros(2, 1, 4, 5))


@pytest.mark.parametrize("training", [False, True])
def test_a_connector_may_exchange_convolution_and_doubling_but_for_statistics(training: bool) -> None:
    torch.manual_seed(0)
    connector = FeatureAlignmentConnector(6, 4).double().train(training)
    norm = connector.pro[2]
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2.0)
    d, e = torch.randn(2, 6, 5, 8, dtype=torch.float64), torch.randn(2, 4, 10, 16, dtype=torch.float64)
    with backend.using("reference"):
        got = connector(d, e)
    wanted = connector.pro(d).sigmoid() * e.sigmoid() + e
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
