"""A chain on the GPU with gradients, or with the statistics of the batch: one layer after another.

A normalisation and an activation wait until a layer loads what they belong to, so most are never stored: see
`norm.py`. What still waits at the end of the chain is applied there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain.layers.dense import dense
from ascseg_cli.kernels.chain.layers.grouped import grouped
from ascseg_cli.kernels.chain.layers.layernorm import layer_normed
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running, computed_again
from ascseg_cli.kernels.chain.layers.parts import MOST, concatenated, fanned, sum_of_norms
from ascseg_cli.kernels.chain.layers.pixelwise import applied
from ascseg_cli.kernels.chain.layers.resize import doubled, halved, high_passed, pooled_max, pooled_mean
from ascseg_cli.kernels.chain.steps import Add, Boost, Combination, Gate, HighPass, SoftGate

_SMALL = 2**20  # numbers in an image whose chains are kept for the gradient: they don't fill memory
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.GELU: "gelu", nn.Sigmoid: "sigmoid"}
_COMBINATIONS: dict[type[nn.Module], str] = {Add: "add", Gate: "gate", SoftGate: "soft_gate", Boost: "boost"}


@dataclass(frozen=True)
class _Value:
    """An image as it is stored, and what is still to be done to it: a normalisation, then an activation."""

    stored: Tensor
    statistics: Tensor | None = None  # of `stored`, where a batch norm follows
    norm: Normalisation | None = None
    activation: str = "none"

    @property
    def waits(self) -> bool:
        return self.norm is not None or self.activation != "none"


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32, differentiable."""
    return _applied(_run(x, steps, other)).stored


def unfinished(x: Tensor, steps: Chain) -> tuple[Tensor, Normalisation | None]:
    """`chain(x, steps)` but for its last normalisation, which whoever loads the result applies."""
    value = _run(x, steps, None)
    if value.activation != "none":
        value = _applied(value)
    return value.stored, value.norm


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`. Chains that begin by resizing x alike share its result."""
    beginnings = [repr(steps[0]) if isinstance(steps[0], (nn.Upsample, nn.MaxPool2d)) else "" for steps in chains]
    users = beginnings.count("") + len(set(beginnings) - {""})
    copies = iter(fanned(x, users) if users <= MOST else (x,) * users)
    resized: dict[str, Tensor] = {}
    parts = []
    for steps, beginning in zip(chains, beginnings):
        rest = list(steps)
        if beginning:
            if beginning not in resized:
                resized[beginning] = _run(next(copies), rest[:1], None).stored
            begun, rest = resized[beginning], rest[1:]
        else:
            begun = next(copies)
        value = _run(begun, rest, None)
        parts.append((value.stored, value.norm, value.activation))
    return concatenated(parts)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """See `kernels.chain.gathered`. Of the chains nothing is kept for the gradient: eight would fill memory."""
    if not torch.is_grad_enabled() or x.numel() < _SMALL:
        return chain(side_by_side(x, chains), then)

    def run(image: Tensor) -> Tensor:
        return chain(side_by_side(image, chains), then)

    result = checkpoint(
        run, x, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), computed_again())
    )
    assert isinstance(result, Tensor)
    return result


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.in_turn`. Paths that are only added up are added up at once."""
    q = _run(x, enter, None)
    ends = [next((i for i, step in enumerate(steps) if isinstance(step, Combination)), None) for steps in chains]
    added = [end is not None and type(steps[end]) is Add for steps, end in zip(chains[1:], ends[1:])]
    if ends[0] is not None or not all(added) or any(end != len(s) - 1 for s, end in zip(chains[1:-1], ends[1:-1])):
        result: Tensor | None = None
        for steps in chains:
            result = _applied(_continued(q, steps, result)).stored
        assert result is not None
        return result
    copies = fanned(q.stored, len(chains)) if len(chains) <= MOST else (q.stored,) * len(chains)
    begun = [replace(q, stored=copy) for copy in copies]
    values = [_continued(path, list(steps)[:end], None) for path, steps, end in zip(begun, chains, ends)]
    rest = [] if ends[-1] is None else list(chains[-1])[ends[-1] + 1 :]
    batch, running = _wants_batch(rest[0] if rest else None)
    total = sum_of_norms([(v.stored, v.norm, v.activation) for v in values], batch, running)
    return _applied(_continued(_Value(*total), rest, None)).stored


def _run(x: Tensor, steps: Sequence[nn.Module], other: Tensor | None) -> _Value:
    if x.dtype != torch.float32:
        raise ShapeError(f"x is {x.dtype}; gradients on the gpu backend take torch.float32", "use --backend auto")
    return _continued(_Value(x), steps, other)


def _continued(value: _Value, steps: Sequence[nn.Module], other: Tensor | None) -> _Value:
    rest = _reordered(steps)
    while rest:
        done, value = _step(value, rest, other)
        rest = rest[done:]
    return value


def _reordered(steps: Sequence[nn.Module]) -> list[nn.Module]:
    """A 1×1 convolution comes before the enlargement that it follows: exact, since bilinear weights sum to one."""
    ordered = list(steps)
    for i in range(len(ordered) - 1):
        first, second = ordered[i : i + 2]
        if isinstance(first, nn.Upsample) and isinstance(second, nn.Conv2d) and second.kernel_size == (1, 1):
            ordered[i : i + 2] = second, first
    return ordered


def _step(value: _Value, steps: list[nn.Module], other: Tensor | None) -> tuple[int, _Value]:
    """How many steps are done at once, and what they give."""
    step, following = steps[0], steps[1] if len(steps) > 1 else None
    if isinstance(step, nn.BatchNorm2d):
        return 1, _batch_norm(value, step)
    if type(step) in _ACTIVATIONS and getattr(step, "approximate", "none") == "none":
        ready = _applied(value) if value.activation != "none" else value
        return 1, replace(ready, activation=_ACTIVATIONS[type(step)])
    if isinstance(step, (nn.Conv2d, nn.Linear)):
        return 1, _convolution(value, step, following)
    if isinstance(step, Combination):
        return _combination(value, steps, other)
    if isinstance(step, nn.LayerNorm):
        return 1, _Value(layer_normed(_applied(value).stored, step.weight, step.bias, step.eps))
    return 1, _neighbours(value, step, following)


def _wants_batch(following: nn.Module | None) -> tuple[bool, Running | None]:
    """Whether a layer is to give its statistics, and the running values to be moved by them."""
    batch = isinstance(following, nn.BatchNorm2d) and following.training
    return batch, Running.of(following) if batch and isinstance(following, nn.BatchNorm2d) else None


def _given(value: _Value, batch: bool, running: Running | None) -> dict[str, Any]:
    """What every layer is told beside its operands."""
    return {"norm": value.norm, "activation": value.activation, "batch": batch, "running": running}


def _batch_norm(value: _Value, step: nn.BatchNorm2d) -> _Value:
    ready = _applied(value) if value.waits else value
    if not step.training:
        assert step.running_mean is not None
        assert step.running_var is not None
        statistics: Tensor | None = torch.stack([step.running_mean, step.running_var])
    elif ready.statistics is None:
        stored, statistics = applied(ready.stored, batch=True, running=Running.of(step))
        ready = _Value(stored)
    else:
        statistics = ready.statistics
    assert statistics is not None
    return _Value(ready.stored, norm=Normalisation(statistics, step.weight, step.bias, step.eps))


def _applied(value: _Value, following: nn.Module | None = None) -> _Value:
    """The image itself, with nothing left to be done."""
    if not value.waits:
        return value
    batch, running = _wants_batch(following)
    return _Value(*applied(value.stored, **_given(value, batch, running)))


def _convolution(value: _Value, step: nn.Conv2d | nn.Linear, following: nn.Module | None) -> _Value:
    ready = _applied(value) if value.activation == "sigmoid" else value
    batch, running = _wants_batch(following)
    given: dict[str, Any] = {
        "norm": ready.norm,
        "activation": ready.activation,
        "batch": batch,
        "running": running,
    }
    if isinstance(step, nn.Linear):
        return _Value(*dense(ready.stored, step.weight[:, :, None, None], step.bias, **given))
    _check(step)
    if step.groups == 1:
        return _Value(*dense(ready.stored, step.weight, step.bias, dilation=int(step.dilation[0]), **given))
    return _Value(*grouped(ready.stored, step.weight, step.bias, **given))


def _check(step: nn.Conv2d) -> None:
    size, dilation = step.kernel_size[0], int(step.dilation[0])
    square = step.kernel_size == (size, size) and step.dilation == (dilation, dilation) and size in (1, 3, 5, 7)
    border = dilation * (size - 1) // 2
    plain = step.stride == (1, 1) and step.padding == (border, border) and step.padding_mode == "zeros"
    grouping = step.groups == 1 or (step.groups == step.out_channels and dilation == 1)
    if not (square and plain and grouping and dilation <= 4):
        raise ShapeError(f"{step} can't be a step of a chain on the GPU", "use --backend reference")


def _combination(value: _Value, steps: list[nn.Module], other: Tensor | None) -> tuple[int, _Value]:
    closes = len(steps) > 1 and type(steps[1]) in _ACTIVATIONS
    done = 2 if closes else 1
    batch, running = _wants_batch(steps[done] if len(steps) > done else None)
    then = _ACTIVATIONS[type(steps[1])] if closes else "none"
    if then == "gelu":  # no chain of ours has it
        done, then, batch, running = 1, "none", False, None
    combine = _COMBINATIONS[type(steps[0])]
    given: dict[str, Any] = {
        "norm": value.norm,
        "activation": value.activation,
        "batch": batch,
        "running": running,
    }
    return done, _Value(*applied(value.stored, combine=combine, other=other, then=then, **given))


def _neighbours(value: _Value, step: nn.Module, following: nn.Module | None) -> _Value:
    """Resizing and pooling."""
    batch, running = _wants_batch(following)
    given: dict[str, Any] = {
        "norm": value.norm,
        "activation": value.activation,
        "batch": batch,
        "running": running,
    }
    return _Value(*_resizing(step)(value.stored, **given))


def _resizing(step: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    if isinstance(step, nn.Upsample):
        return doubled
    if isinstance(step, nn.MaxPool2d) and step.kernel_size == 2:
        return halved
    if isinstance(step, nn.MaxPool2d) and (step.kernel_size, step.stride, step.padding) == (3, 1, 1):
        return pooled_max
    if isinstance(step, nn.AvgPool2d) and (step.kernel_size, step.stride, step.padding) == (3, 1, 1):
        return pooled_mean
    if isinstance(step, HighPass):
        return high_passed
    raise ShapeError(f"{step} can't be a step of a chain on the GPU", "use --backend reference")
