"""One gate a channel from its global maximum and mean: arguments checked, backend picked."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.shared_norm import are_shared

__all__ = ["channel_gate"]

_STEPS = (nn.Conv2d, nn.BatchNorm2d, nn.GELU, nn.Conv2d, nn.BatchNorm2d, nn.Sigmoid)


def channel_gate(x: Tensor, gate: nn.Sequential) -> Tensor:
    """σ(BN(conv 1(GELU(BN(conv 1(s)))))) of s = globalmax(x) + globalmean(x).

    A BN in training takes its statistics over the b numbers of a channel, and moves its running values.

    x       (b, c, h, w)  two images or more in training
    gate    conv 1 (c to c), BatchNorm2d, GELU, conv 1 (c to c), BatchNorm2d, Sigmoid
    returns (b, c, 1, 1)  x's dtype
    Raises ShapeError, BackendError. The maximum's gradient goes to the first of equal pixels.
    """
    _check(x, gate)
    name = backend.for_operator("channel_gate", x, half=not torch.is_grad_enabled())
    if name == "gpu" and are_shared(gate):
        name = "reference"  # the fused gate knows one process
    module = importlib.import_module(f"{__name__}.{name}")
    return module.channel_gate(x, gate)


def _check(x: Tensor, gate: nn.Sequential) -> None:
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ShapeError(f"x is {tuple(x.shape)}; it must be (b, c, h, w), with pixels")
    if len(gate) != len(_STEPS) or not all(isinstance(step, kind) for step, kind in zip(gate, _STEPS)):
        kinds = ", ".join(kind.__name__ for kind in _STEPS)
        raise ShapeError(f"the gate is {', '.join(type(step).__name__ for step in gate)}; it must be {kinds}")
    b, c = x.shape[:2]
    for weight in (step.weight for step in gate if isinstance(step, nn.Conv2d)):
        if weight.shape != (c, c, 1, 1):
            raise ShapeError(
                f"a weight is {tuple(weight.shape)}; with x {tuple(x.shape)} it must be {(c, c, 1, 1)}"
            )
    if b == 1 and (gate[1].training or gate[4].training):
        raise ShapeError("x holds one image; in training batch normalisation needs 2 or more")
