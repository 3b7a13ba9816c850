"""Where TF32 is kept out although torch's switch allows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ascseg_cli.kernels.precision import float32_products, tf32_allowed
from ascseg_cli.network import ASCSeg


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    with torch.backends.cudnn.flags(allow_tf32=True):
        yield


@pytest.mark.parametrize(
    ("dtype", "gradients", "expected"),
    [(torch.float32, False, False), (torch.bfloat16, False, True), (torch.float32, True, True)],
)
def test_only_float32_without_gradients_is_exempt(dtype, gradients, expected):
    with torch.set_grad_enabled(gradients), float32_products(torch.ones(1, dtype=dtype)):
        assert tf32_allowed() is expected
    assert tf32_allowed()


def test_an_error_within_leaves_the_switch_as_it_was():
    with torch.no_grad(), pytest.raises(ZeroDivisionError), float32_products(torch.ones(1)):
        raise ZeroDivisionError
    assert tf32_allowed()


def test_the_encoders_pyramids_and_deformable_blocks_are_exempt():
    network, seen = ASCSeg().eval(), {}
    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda _, __, name=name: seen.update({name: tf32_allowed()}))
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))
    exempt = {name for name, allowed in seen.items() if not allowed}
    blocks = {".".join(name.split(".")[:3]) for name in exempt}
    assert blocks == {f"encoder.eb{n}.{part}" for n in (1, 2, 3, 4) for part in ("ipc", "dc")}
    assert all(seen[name] for name in ("decoder", "encoder.eb1.pm", "encoder.eb2"))
