"""Chains on the CPU while training: layers of our own where torch is slow, torch's where it isn't.

Convolutions with groups, dilation, or fewer than eight outputs are compiled: torch takes their gradients at 1 to 7
GFLOP/s a core, others at 30. So are those of 3×3 with at most eight channels on either side, for half of torch's
time on wide images, batch norms with their activations, layer norms, doubling, and pooling, a mean as a
convolution. Convolutions of 1×1 are products of matrices, whose gradients take a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ascseg_cli.kernels.chain import reference
from ascseg_cli.kernels.chain.codes import AFFINE
from ascseg_cli.kernels.chain.cpu import check_dtype
from ascseg_cli.kernels.chain.cpu_layers.convolution import convolve, is_pointwise, is_slow, pointwise, windowed
from ascseg_cli.kernels.chain.cpu_layers.norms import batch_norm, layer_norm, takes_statistics
from ascseg_cli.kernels.chain.cpu_layers.resizing import double, maximum
from ascseg_cli.kernels.chain.plan import activation_code, is_doubling, is_pooling
from ascseg_cli.kernels.chain.steps import HighPass


def chain(x: Tensor, steps: Sequence[nn.Module], other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`; float32 on the CPU."""
    check_dtype(x)
    at = 0
    while at < len(steps):
        step = steps[at]
        at += 1
        if isinstance(step, nn.BatchNorm2d) and takes_statistics(step, x):
            activation = activation_code(steps[at]) if at < len(steps) else None
            at += activation is not None
            x = batch_norm(x, step, AFFINE if activation is None else activation)
        else:
            x = _step(x, step, other)
    return x


def _step(x: Tensor, step: Any, other: Tensor | None) -> Tensor:
    if isinstance(step, nn.Linear):
        return pointwise(x, step.weight, step.bias)
    if is_pointwise(step):
        return pointwise(x, step.weight.flatten(1), step.bias)
    if is_slow(step):
        return convolve(x, step)
    if isinstance(step, nn.LayerNorm) and step.weight is not None and step.bias is not None:
        return layer_norm(x, step)
    if is_pooling(step, nn.MaxPool2d, 2) or is_pooling(step, nn.MaxPool2d, 3):
        return maximum(x, step)
    if isinstance(step, HighPass) or is_pooling(step, nn.AvgPool2d, 3):
        return windowed(x, isinstance(step, HighPass))
    if is_doubling(step):
        return double(x, step)
    return reference.chain(x, [step], other)


def side_by_side(x: Tensor, chains: Sequence[Sequence[nn.Module]]) -> Tensor:
    """See `kernels.chain.side_by_side`. Chains that begin by resizing x alike share its result."""
    return reference.side_by_side(x, chains, run=chain)
