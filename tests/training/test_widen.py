"""A widened network computes what the narrow one does, and its copies of a channel don't stay copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ascseg_cli.errors import UsageError
from ascseg_cli.kernels.backend import using
from ascseg_cli.network import ASCSeg, checkpoint
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training.widen import widened
from ascseg_cli.weights.store import locate


def _drawn(variant: str) -> dict[str, np.ndarray]:
    """The shipped weights, or for other variants random ones with running values that are not 0 and 1."""
    if variant == "tiny":
        return checkpoint.read(locate("kvasir")).tensors
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    state = ASCSeg(VARIANTS[variant]).state_dict()
    tensors = {name: state[name].numpy() for name in expected_shapes(VARIANTS[variant])}
    for name in tensors:
        if "running" in name:
            tensors[name] = rng.uniform(0.5, 1.5, tensors[name].shape).astype(np.float32)
    return tensors


def _network(tensors: dict[str, np.ndarray], variant: str) -> ASCSeg:
    network = ASCSeg(VARIANTS[variant]).double()
    state = {name: torch.tensor(tensor, dtype=torch.float64) for name, tensor in tensors.items()}
    network.load_state_dict(state, strict=False)
    return network


def _heads(network: ASCSeg, x: Tensor) -> Tensor:
    with torch.no_grad(), using("reference"):
        return torch.cat(network(x))


@pytest.mark.parametrize(
    ("variant", "wanted", "training"),
    [("tiny", "small", False), ("tiny", "small", True), ("tiny", "base", False), ("small", "base", False)],
)
def test_same_outputs(variant: str, wanted: str, training: bool) -> None:
    tensors = _drawn(variant)
    wide = widened(tensors, VARIANTS[variant], VARIANTS[wanted])
    assert {name: t.shape for name, t in wide.items()} == expected_shapes(VARIANTS[wanted])
    x = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = (_heads(_network(t, v).train(training), x) for t, v in ((tensors, variant), (wide, wanted)))
    error = ((a - b).abs().max() / a.abs().max()).item()
    assert error < 2e-5  # weights are float32 before and after; batch norms over few values enlarge that


def test_copies_part_in_training() -> None:
    """One step of plain gradient descent, and no channel of a layer has the weights of another."""
    network = _network(widened(_drawn("tiny"), VARIANTS["tiny"], VARIANTS["small"]), "small").train()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    with using("reference"):
        sum(z.square().mean() for z in network(x)).backward()
    optimiser.step()
    layer = network.get_parameter("encoder.eb2.ipc.3.weight").detach().flatten(1)
    apart = torch.cdist(layer, layer).fill_diagonal_(1)
    assert apart.min() > 1e-4
    assert layer[0::2].sub(layer[1::2]).norm(dim=1).min() > 1e-4


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [((16, 32, 48, 64), (8, 16, 24, 32)), ((8, 16, 24, 32), (16, 32, 48, 128)), ((4, 8, 12, 16), (8, 16, 24, 32))],
)
def test_what_cannot_be_widened(channels: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="can't be widened"):
        widened({}, channels, wanted)
