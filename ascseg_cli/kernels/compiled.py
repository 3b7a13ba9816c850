"""How the CPU kernels run over tensors: what all operators share.

Threads are Python's own: the kernels hold no lock of the interpreter, and numba's own threads abort the process
where two Python threads meet in them (layer `workqueue`) or after a fork (layer `omp`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.kernels.kernel import Kernel, Shares, by_numba
from ascseg_cli.kernels.machine_code import Memory

Strides = tuple[int, ...]
Work = tuple[Kernel | Callable[..., None], int, tuple[Any, ...]]  # a kernel, how many tasks, other arguments

_told: ContextVar[Callable[[Sequence[Work]], None] | None] = ContextVar("ascseg_told", default=None)


def flat(tensor: Tensor) -> tuple[Memory, Strides]:
    """The memory that a tensor on the CPU spans, and the tensor's strides.

    Kernels take any strides this way, and numba compiles them once.
    """
    return Memory(tensor, tensor.data_ptr(), span(tensor), tensor.element_size()), tensor.stride()


def span(tensor: Tensor) -> int:
    """How many numbers lie from a tensor's first to its last in memory, gaps included."""
    count = tensor.numel()
    if not count or tensor.is_contiguous():
        return count
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))


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
    if told := _told.get():
        told(works)
    threads = min(torch.get_num_threads(), max((tasks for _, tasks, _ in works), default=0))
    ready = [(_shares(kernel, args), tasks) for kernel, tasks, args in works if tasks]
    others = [_pool().submit(_run, ready, thread, threads) for thread in range(1, threads)]
    try:
        if threads:
            _run(ready, 0, threads)
    finally:
        for other in others:
            other.result()


def _shares(kernel: Kernel | Callable[..., None], args: tuple[Any, ...]) -> Shares:
    return kernel.shares(*args) if isinstance(kernel, Kernel) else by_numba(kernel, args)


def _run(works: Sequence[tuple[Shares, int]], thread: int, threads: int) -> None:
    for share, tasks in works:
        first, last = share_of(tasks, thread, threads)
        if first < last:
            share(first, last)


def share_of(tasks: int, thread: int, threads: int) -> tuple[int, int]:
    """A thread's first task, and the one after its last."""
    return tasks * thread // threads, tasks * (thread + 1) // threads


@contextlib.contextmanager
def launches_told(listener: Callable[[Sequence[Work]], None]) -> Iterator[None]:
    """Inside, `listener` is given what is launched, before it runs."""
    token = _told.set(listener)
    try:
        yield
    finally:
        _told.reset(token)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ascseg-kernel")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
