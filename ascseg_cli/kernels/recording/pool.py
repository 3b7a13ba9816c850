"""Memory for the tensors of one recording, which serves again once nothing refers to a tensor."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.kernels.compiled import span


class _Lease(np.ndarray):
    """A tensor's memory. When the tensor's storage goes, this goes."""


class Pool:
    """Blocks of float32 in which tensors lie."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._free: list[int] = []
        self._leases: dict[int, int] = {}  # address of a tensor's storage -> its block

    def tensor(self, like: Tensor) -> Tensor:
        """An empty tensor of that one's shape and strides; like isn't empty."""
        length = span(like)
        fitting = [block for block in self._free if length <= len(self._blocks[block]) <= 2 * length]
        if fitting:
            block = min(fitting, key=lambda block: len(self._blocks[block]))
            self._free.remove(block)
        else:
            block = len(self._blocks)
            self._blocks.append(_aligned(length))
        lease = self._blocks[block][:length].view(_Lease)
        self._leases[lease.ctypes.data] = block
        weakref.finalize(lease, self._end, lease.ctypes.data)
        return torch.from_numpy(lease).as_strided(like.shape, like.stride())

    def _end(self, address: int) -> None:
        self._free.append(self._leases.pop(address))

    def spoil(self) -> None:
        """No number that lies in a block stays."""
        for block in self._blocks:
            block.fill(np.nan)

    def holds(self, tensor: Tensor) -> bool:
        """Does the tensor lie in a block?"""
        return tensor.untyped_storage().data_ptr() in self._leases

    def alias(self, tensor: Tensor) -> Tensor:
        """The same numbers, without a claim on the block."""
        block = self._blocks[self._leases[tensor.untyped_storage().data_ptr()]]
        offset = (tensor.data_ptr() - block.ctypes.data) // block.itemsize
        return torch.from_numpy(block).as_strided(tensor.shape, tensor.stride(), offset)


def _aligned(length: int) -> np.ndarray:
    whole = np.empty(length + 16, np.float32)
    skipped = -whole.ctypes.data % 64 // 4
    return whole[skipped : skipped + length]
