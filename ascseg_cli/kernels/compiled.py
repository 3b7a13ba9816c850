"""How the CPU kernels are found and run: what all operators share.

A kernel's machine code is made at its first call, in about a second, and kept in the user's cache folder: from the
LLVM code in this package, or by numba where that is older than the kernel's source or newer than the LLVM here.
Threads are Python's own: the kernels hold no lock of the interpreter, and numba's own threads abort the process
where two Python threads meet in them (layer `workqueue`) or after a fork (layer `omp`).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.kernels import machine_code
from ascseg_cli.kernels.jit import cache_folder, call

Strides = tuple[int, ...]
Shares = Callable[[int, int], None]


class Kernel:
    """A kernel by its place in this package; machine code from its LLVM code there, else from numba.

    module  of its source, such as chain.cpu_kernels
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    @functools.cached_property
    def entry(self) -> Callable[[int], int] | None:
        """What takes the address of the arguments' words; None where numba has to compile the kernel."""
        return machine_code.entry(f"{self._module}.{self._name}", cache_folder()) if machine_code.fits() else None

    @functools.cached_property
    def function(self) -> Callable[..., None]:
        """What numba makes of it."""
        return getattr(importlib.import_module(f"ascseg_cli.kernels.{self._module}"), self._name)

    def shares(self, *args: Any) -> Shares:
        """A function of the first task and that after the last, with the other arguments given."""
        if self.entry is None:
            return _by_numba(self.function, args)
        entry, words = self.entry, machine_code.words(0, 0, *args)

        def share(first: int, last: int) -> None:
            own = words[:]
            own[0], own[1] = first, last
            if entry(own.buffer_info()[0]):
                raise MemoryError("no memory for a kernel's scratch")

        return share


Work = tuple[Kernel | Callable[..., None], int, tuple[Any, ...]]  # a kernel, how many tasks, other arguments


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


def launch(kernel: Kernel | Callable[..., None], tasks: int, *args: Any) -> None:
    """Run kernel(first, last, *args) over the tasks 0 … tasks - 1, an equal share to each thread."""
    launch_together([(kernel, tasks, args)])


def launch_together(works: Sequence[Work]) -> None:
    """Several `launch` in turn, but no thread waits for another between them.

    A work may read what one before it wrote only in the same share of as many tasks.
    """
    threads = min(torch.get_num_threads(), max((tasks for _, tasks, _ in works), default=0))
    ready = [(_shares(kernel, args), tasks) for kernel, tasks, args in works if tasks]
    others = [_pool().submit(_run, ready, thread, threads) for thread in range(1, threads)]
    if threads:
        _run(ready, 0, threads)
    for other in others:
        other.result()


def _shares(kernel: Kernel | Callable[..., None], args: tuple[Any, ...]) -> Shares:
    return kernel.shares(*args) if isinstance(kernel, Kernel) else _by_numba(kernel, args)


def _run(works: Sequence[tuple[Shares, int]], thread: int, threads: int) -> None:
    for share, tasks in works:
        first, last = tasks * thread // threads, tasks * (thread + 1) // threads
        if first < last:
            share(first, last)


def _by_numba(kernel: Callable[..., None], args: tuple[Any, ...]) -> Shares:
    return lambda first, last: call(kernel, first, last, *args)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ascseg-kernel")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
