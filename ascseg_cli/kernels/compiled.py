"""How the CPU kernels are run: what all operators share.

Threads are Python's own: the kernels hold no lock of the interpreter, and numba's own threads abort the
process where two Python threads meet in them (layer `workqueue`) or after a fork (layer `omp`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.kernels.machine_code import call

Strides = tuple[int, ...]


def flat(tensor: Tensor) -> tuple[np.ndarray, Strides]:
    """The memory that a float32 tensor spans, as a flat array that shares it, and the tensor's strides.

    Kernels take any strides this way, and numba compiles them once.
    """
    strides = tensor.stride()
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides)) if tensor.numel() else 0
    return tensor.detach().as_strided((span,), (1,)).numpy(), strides


def split(items: int, parts: int) -> int:
    """Into how many of its `parts` each of the items is split, so that all threads have as much to do."""
    for pieces in range(1, parts):
        if items * pieces % torch.get_num_threads() == 0 or items * pieces >= 8 * torch.get_num_threads():
            return pieces
    return max(parts, 1)


def launch(kernel: Callable[..., None], tasks: int, *args: Any) -> None:
    """Run kernel(first, last, *args) over the tasks 0 … tasks - 1, an equal share to each thread."""
    shares = min(torch.get_num_threads(), tasks)
    if shares == 0:
        return
    bounds = [tasks * share // shares for share in range(shares + 1)]
    others = [_pool().submit(call, kernel, first, last, *args) for first, last in pairwise(bounds[1:])]
    call(kernel, 0, bounds[1], *args)
    for other in others:
        other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ascseg-kernel")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
