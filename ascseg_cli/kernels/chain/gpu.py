"""Chains on the GPU."""

from __future__ import annotations

from ascseg_cli.kernels.chain.gpu_passes import chain, in_turn, side_by_side

__all__ = ["chain", "in_turn", "side_by_side"]
