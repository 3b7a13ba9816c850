"""Chains on the GPU: fused passes in evaluation without gradients, else one layer after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain.layers import run as layers
from ascseg_cli.kernels.chain.passes import run as passes


def chain(x: Tensor, steps: Chain, other: Tensor | None = None) -> Tensor:
    """See `kernels.chain.chain`."""
    return (layers if _by_layers([steps]) else passes).chain(x, steps, other)


def side_by_side(x: Tensor, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.side_by_side`."""
    return (layers if _by_layers(chains) else passes).side_by_side(x, chains)


def gathered(x: Tensor, chains: Sequence[Chain], then: Chain) -> Tensor:
    """See `kernels.chain.gathered`."""
    return (layers if _by_layers([*chains, then]) else passes).gathered(x, chains, then)


def in_turn(x: Tensor, enter: Chain, chains: Sequence[Chain]) -> Tensor:
    """See `kernels.chain.in_turn`."""
    return (layers if _by_layers([enter, *chains]) else passes).in_turn(x, enter, chains)


def _by_layers(chains: Sequence[Chain]) -> bool:
    return torch.is_grad_enabled() or any(norm.training for steps in chains for norm in steps.norms)
