"""The network against the original computation, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.loss import deep_supervision_loss, head_loss

GRADIENTS = 724
ZERO_GRADIENTS = 171  # biases before a batch normalisation


def relative_error(got: Tensor, want: Tensor) -> float:
    """‖got − want‖₂ / ‖want‖₂."""
    got, want = got.detach().double(), want.double()
    return float((got - want).norm() / want.norm())


@pytest.fixture(autouse=True)
def float32_without_tf32() -> Iterator[None]:
    """On a GPU cuDNN would otherwise round convolutions' inputs to ten bits."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Tensor]:
    return load_file(golden)


def network(reference: dict[str, Tensor], dtype: torch.dtype) -> ASCSeg:
    weights = {name.removeprefix("weights."): t for name, t in reference.items() if name.startswith("weights.")}
    net = ASCSeg()
    result = net.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    return net.to(dtype)


def activations(net: ASCSeg, x: Tensor) -> dict[str, Tensor]:
    """Every module's output in one evaluation pass, and the probabilities, under the golden file's names."""
    found: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out))
    with torch.no_grad():
        for i, p in enumerate(net.eval().heads(x)):
            found[f"probability.{i}"] = p
    for name in [n for n in found if n.endswith("mamba")]:
        found[f"{name}.chunk0"] = found[name][: len(x)]
    return found


@pytest.mark.parametrize(
    ("name", "dtype", "limit"),
    [
        ("reference", torch.float64, 1e-7),
        ("reference", torch.float32, 1e-6),
        ("cpu", torch.float32, 1e-6),
        ("gpu", torch.float32, 1e-6),
    ],
)
def test_evaluation_equals_the_original(
    reference: dict[str, Tensor], name: str, dtype: torch.dtype, limit: float
) -> None:
    status = backend.availability(name)
    if not status.ok:
        pytest.skip(f"backend {name}: {status.reason}")
    device = "cuda" if name == "gpu" else "cpu"
    with backend.using(name):
        got = activations(network(reference, dtype).to(device), reference["input"].to(device, dtype))
    wanted = {n.removeprefix("eval."): t for n, t in reference.items() if n.startswith("eval.")}
    assert len(wanted) == 24
    errors = {n: relative_error(got[n].cpu(), t) for n, t in wanted.items()}
    # The probabilities hardly feel the scan, so the scan's own output is held to half the limit.
    too_far = {n: e for n, e in errors.items() if not e <= (limit / 2 if n.endswith("chunk0") else limit)}
    assert not too_far


def test_losses_equal_the_original(reference: dict[str, Tensor]) -> None:
    net = network(reference, torch.float64).train()
    logits = net(reference["input"].double())
    target = reference["target"].double()
    per_head = torch.stack([head_loss(z, target) for z in logits])
    assert relative_error(per_head, reference["train.loss_per_head"]) <= 1e-7
    assert relative_error(deep_supervision_loss(logits, target), reference["train.loss"][0]) <= 1e-7


def test_every_gradient_equals_the_original(reference: dict[str, Tensor]) -> None:
    net = network(reference, torch.float64).train()
    deep_supervision_loss(net(reference["input"].double()), reference["target"].double()).backward()
    got = {name: p.grad for name, p in net.named_parameters()}
    wanted = {n.removeprefix("train.grad."): t for n, t in reference.items() if n.startswith("train.grad.")}
    assert set(got) == set(wanted)
    assert len(wanted) == GRADIENTS
    zero = {n for n, t in wanted.items() if t.abs().max() < 1e-10}
    assert len(zero) == ZERO_GRADIENTS
    assert all(got[n].abs().max() < 1e-10 for n in zero)
    errors = {n: relative_error(got[n], wanted[n]) for n in wanted if n not in zero}
    assert {n: e for n, e in errors.items() if not e <= 1e-7} == {}


def evaluation_gradients(reference: dict[str, Tensor], name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Gradients with batch normalisation in evaluation mode, where they are well-conditioned."""
    device = "cuda" if name == "gpu" else "cpu"
    net = network(reference, dtype).to(device).eval()
    with backend.using(name):
        logits = net(reference["input"].to(device, dtype))
        deep_supervision_loss(logits, reference["target"].to(device, dtype)).backward()
    return {n: p.grad.cpu().double() for n, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_gradients_of_fast_backends(reference: dict[str, Tensor], name: str) -> None:
    status = backend.availability(name)
    if not status.ok:
        pytest.skip(f"backend {name}: {status.reason}")
    exact = evaluation_gradients(reference, "reference", torch.float64)
    got = evaluation_gradients(reference, name, torch.float32)
    errors = {n: relative_error(got[n], exact[n]) for n in exact if exact[n].abs().max() > 1e-10}
    assert len(errors) > 500
    assert {n: e for n, e in errors.items() if not e <= 1e-3} == {}


def test_a_spoilt_weight_is_noticed(reference: dict[str, Tensor]) -> None:
    spoilt = dict(reference)
    name = "weights.encoder.eb1.pm.mamba.A_log"
    spoilt[name] = spoilt[name].clone()
    spoilt[name][0, 0] += 1e-3
    got = activations(network(spoilt, torch.float64), reference["input"].double())
    chunk = "encoder.eb1.pm.mamba.chunk0"
    assert relative_error(got[chunk], reference[f"eval.{chunk}"]) > 1e-7
