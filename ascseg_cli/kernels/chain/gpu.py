"""Chains on the GPU: fused passes in evaluation without gradients, else one layer after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascseg_cli.kernels.chain import Chain, gpu_layers, gpu_passes


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`."""
    return (gpu_layers if _by_layers([steps]) else gpu_passes).chain(x, steps, other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`."""
    return (gpu_layers if _by_layers(chains) else gpu_passes).side_by_side(x, chains)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """See `kernels.chain.gathered`."""
    if _by_layers([*chains, then]):
        return gpu_layers.gathered(x, chains, then)
    return gpu_passes.chain(gpu_passes.side_by_side(x, chains), then)


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.in_turn`."""
    return (gpu_layers if _by_layers([enter, *chains]) else gpu_passes).in_turn(x, enter, chains)


def _by_layers(chains: Sequence[Chain]) -> bool:
    return torch.is_grad_enabled() or any(norm.training for steps in chains for norm in steps.norms)
