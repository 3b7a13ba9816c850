"""Chains of convolutions, normalisations, activations and resizings: arguments checked, backend picked."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.chain.steps import Add, Boost, Combination, Gate, HighPass, SoftGate
from ascseg_cli.kernels.shared_norm import are_shared

__all__ = ["Add", "Boost", "Chain", "Gate", "HighPass", "SoftGate", "chain", "in_turn", "side_by_side"]


class Chain(Sequence[nn.Module]):
    """Modules that run one after another, and what a backend has prepared for them.

    No module itself, so that modules of the network can stand in several chains without being registered twice.
    """

    def __init__(self, *steps: nn.Module) -> None:
        self.steps = steps
        self.norms = tuple(step for step in steps if isinstance(step, nn.BatchNorm2d))
        self.combines = any(isinstance(step, Combination) for step in steps)
        self.prepared: dict[Any, Any] = {}

    def __getitem__(self, index: Any) -> Any:
        return self.steps[index]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.steps)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"prepared": {}}  # a copy of the network has weights of its own


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """What torch's modules give one after another.

    x        (b, c, h, w)
    steps    nn.Conv2d (stride 1, size kept, groups 1 or one for each output), BatchNorm2d, LayerNorm and Linear
             (over channels), ReLU, GELU, Sigmoid, Upsample (by 2, align_corners), MaxPool2d (2, or 3 with
             stride 1), AvgPool2d (3, stride 1), and this package's HighPass, Add, Gate, SoftGate, Boost
    other    the second operand of Add, Gate, SoftGate, Boost
    returns  (b, c', h', w')  x's dtype
    Raises ShapeError, BackendError.
    """
    _check(x, steps, other)
    return _module(x, [steps]).chain(x, steps, other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """The results of several chains on the same x, concatenated over channels; shapes and errors as in `chain`."""
    for steps in chains:
        _check(x, steps, None)
    return _module(x, chains).side_by_side(x, chains)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """The chain `then` on `side_by_side(x, chains)`; shapes and errors as in `chain`.

    A backend may compute what lies between again in the backward pass instead of keeping it.
    """
    module = _module(x, [*chains, then])
    if not hasattr(module, "gathered"):
        return chain(side_by_side(x, chains), then)
    for steps in chains:
        _check(x, steps, None)
    return module.gathered(x, chains, then)


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """The last of several chains on q = enter(x), each of which takes the result of the one before it as `other`.

    Shapes and errors as in `chain`. A backend may do it in one pass.
    """
    _check(x, enter, None)
    module = _module(x, [enter, *chains])
    if hasattr(module, "in_turn"):
        return module.in_turn(x, enter, chains)
    q = chain(x, enter)
    result = None
    for steps in chains:
        result = chain(q, steps, result)
    assert result is not None
    return result


def _module(x: Tensor, chains: Sequence[Chain]) -> Any:
    """The backend's module, or the one that trains where a gradient may be wanted or a norm is in training."""
    differentiable = torch.is_grad_enabled() or any(norm.training for steps in chains for norm in steps.norms)
    name = backend.for_operator("chain", x, half=not differentiable)
    if differentiable and name == "cpu":
        name = "cpu_gradient"
    if differentiable and name == "gpu" and any(are_shared(steps.norms) for steps in chains):
        name = "reference"  # the fused layers know one process
    return _backend_module(name)


@functools.cache
def _backend_module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _check(x: Tensor, steps: Chain, other: Tensor | None) -> None:
    if x.dim() != 4:
        raise ShapeError(f"x is {tuple(x.shape)}; it must be (b, c, h, w)")
    if steps.combines != (other is not None):
        raise ShapeError("other must be given for Add, Gate, SoftGate and Boost, and only for them")
    if other is None:
        return
    if other.dim() != 4 or other.shape[0] != x.shape[0]:
        raise ShapeError(f"other is {tuple(other.shape)}; with x {tuple(x.shape)} it must be (b, c, h, w)")
    if other.device != x.device or other.dtype != x.dtype:
        raise ShapeError(f"other is {other.dtype} on {other.device}; x is {x.dtype} on {x.device}")
