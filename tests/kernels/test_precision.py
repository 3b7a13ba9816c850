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


def test_all_is_exempt_but_mamba_blocks_and_later_deformable_ones():
    network, seen = ASCSeg().eval(), {}
    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda _, __, name=name: seen.update({name: tf32_allowed()}))
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))
    allowed = {".".join(name.split(".")[:3]) for name, allowed in seen.items() if allowed and name.count(".") >= 2}
    mamba, deformable = (f"encoder.eb{{}}.{part}".format for part in ("pm", "dc"))
    assert allowed == {*map(mamba, (1, 2, 3, 4)), *map(deformable, (2, 3, 4))}
    assert not any(seen[name] for name in ("decoder", "final"))
