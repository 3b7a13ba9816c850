"""The weights of `deform_block` from the modules of the network, with their batch norms folded in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Folded:
    """Weights made once, and made anew where one of the modules' has changed.

    No module itself, so that those of the network aren't registered twice.
    """

    def __init__(self, offset: nn.Sequential, deform: nn.Module, balance: nn.Sequential) -> None:
        """offset and balance: a convolution and its norm; deform: the nine weights of each channel."""
        self._pairs = tuple(_convolution_and_norm(*pair) for pair in (offset, balance))
        self._weight = deform
        self._state: Any = None
        self._folded: tuple[Tensor, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_state": None, "_folded": ()}  # a copy of the network has weights of its own

    def batch_statistics(self) -> bool:
        """Whether a norm uses those of the batch, so that it can't be folded in."""
        return any(norm.training or norm.running_mean is None for _, norm in self._pairs)

    def weights(self) -> tuple[Tensor, ...]:
        """offset_weight, offset_bias, weight, balance_weight, balance_bias, as `deform_block` takes them.

        Changed weights are written where the old ones lay, since a recording may read them there.
        """
        modules = [self._weight, *(module for pair in self._pairs for module in pair)]
        state = [_state(t) for m in modules for t in (*m._parameters.values(), *m._buffers.values())]
        if state != self._state:
            made = self._made()
            same = [(t.shape, t.device) for t in made] == [(t.shape, t.device) for t in self._folded]
            self._folded = _overwritten(self._folded, made) if same else made
            self._state = state
        return self._folded

    @torch.inference_mode(False)
    @torch.no_grad()
    def _made(self) -> tuple[Tensor, ...]:
        (offset_weight, offset_bias), (balance_weight, balance_bias) = (_joined(*pair) for pair in self._pairs)
        weight = self._weight.get_parameter("weight").float().clone()
        return _input_first(offset_weight), offset_bias, weight, _input_first(balance_weight), balance_bias


def _convolution_and_norm(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _state(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    # an inference tensor counts no changes: such weights are folded at every call
    return object() if tensor.is_inference() else (tensor.data_ptr(), tensor._version)


@torch.inference_mode(False)
@torch.no_grad()
def _overwritten(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    for target, source in zip(old, new):
        target.copy_(source)
    return old


def _joined(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that gives what both give one after another; float32, made in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = 0.0 if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    return weight.float(), ((bias - norm.running_mean.double()) * scale + norm.bias.double()).float()


def _input_first(weight: Tensor) -> Tensor:
    """weight (out, in, k, k) as it is, laid out as (k, k, in, out): what the GPU's kernel reads without a copy."""
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
