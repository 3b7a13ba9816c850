"""The whole network on the GPU's kernels, run on the CPU: evaluation, losses and gradients of the golden file.

Slow motion, but every kernel takes part, at the golden input's 32×48 px.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.loss import deep_supervision_loss

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))

from emulator.emulate import emulated

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ isn't installed")


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Tensor]:
    return load_file(golden)


@pytest.fixture
def on_cpu() -> Iterator[None]:
    with emulated():
        yield


def network(reference: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> ASCSeg:
    weights = {name.removeprefix("weights."): t for name, t in reference.items() if name.startswith("weights.")}
    net = ASCSeg()
    net.load_state_dict(weights, strict=False)
    return net.to(dtype)


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got.detach().double() - want.double()).norm() / want.double().norm())


def test_probabilities_equal_the_original(reference: dict[str, Tensor], on_cpu: None) -> None:
    with torch.no_grad():
        got = network(reference).eval().heads(reference["input"])
    errors = [relative_error(p, reference[f"eval.probability.{i}"]) for i, p in enumerate(got)]
    assert max(errors) <= 1e-6


def test_losses_and_running_values_equal_the_original(reference: dict[str, Tensor], on_cpu: None) -> None:
    net, plain = network(reference).train(), network(reference).train()
    with torch.no_grad():
        loss = deep_supervision_loss(net(reference["input"]), reference["target"])
        with backend.using("reference"):
            plain(reference["input"])
    assert relative_error(loss, reference["train.loss"][0]) <= 1e-5
    for (name, got), want in zip(net.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=name)


def gradients(net: ASCSeg, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    dtype = next(net.parameters()).dtype
    logits = net(reference["input"].to(dtype))
    deep_supervision_loss(logits, reference["target"].to(dtype)).backward()
    return {name: p.grad.double() for name, p in net.named_parameters() if p.grad is not None}


def test_gradients_with_running_statistics(reference: dict[str, Tensor], on_cpu: None) -> None:
    got = gradients(network(reference).eval(), reference)
    with backend.using("reference"):
        exact = gradients(network(reference, torch.float64).eval(), reference)
    errors = {n: relative_error(got[n], exact[n]) for n in exact if exact[n].abs().max() > 1e-10}
    assert len(errors) > 500
    assert {n: e for n, e in errors.items() if not e <= 1e-3} == {}


def test_gradients_with_batch_statistics(reference: dict[str, Tensor], on_cpu: None) -> None:
    """As a whole at most twice as far from float64 as plain torch; single tensors are too ill-conditioned."""
    got = gradients(network(reference).train(), reference)
    with backend.using("reference"):
        plain = gradients(network(reference).train(), reference)
    exact = {n.removeprefix("train.grad."): t for n, t in reference.items() if n.startswith("train.grad.")}
    names = [n for n, t in exact.items() if t.abs().max() >= 1e-10]
    whole = [torch.cat([g[n].flatten() for n in names]) for g in (got, plain, exact)]
    assert relative_error(whole[0], whole[2]) <= 2 * relative_error(whole[1], whole[2])
