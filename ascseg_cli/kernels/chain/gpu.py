"""Chains on the GPU."""

from __future__ import annotations

from ascseg_cli.kernels.chain.gpu_passes import chain, side_by_side

__all__ = ["chain", "side_by_side"]
