"""How the CPU kernels are compiled, kept and run: what all operators share.

A kernel's machine code is made at its first call, in about a second, and kept in the user's cache folder: from the
LLVM code in this package, or by numba where that is older than the kernel's source or newer than the LLVM here.
Threads are Python's own: the kernels hold no lock of the interpreter, and numba's own threads abort the process
where two Python threads meet in them (layer `workqueue`) or after a fork (layer `omp`).
"""

from __future__ import annotations

import functools
import importlib
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.kernels import machine_code

Strides = tuple[int, ...]
Shares = Callable[[int, int], None]

_setting = threading.Lock()


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
            return functools.partial(_run_with, self.function, args)
        entry, words = self.entry, machine_code.words(0, 0, *args)

        def share(first: int, last: int) -> None:
            own = words[:]
            own[0], own[1] = first, last
            if entry(own.buffer_info()[0]):
                raise MemoryError("no memory for a kernel's scratch")

        return share


Work = tuple[Kernel | Callable[..., None], int, tuple[Any, ...]]  # a kernel, how many tasks, other arguments


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """`function` by numba, without the interpreter's lock; compiled, or loaded, at its first call."""
    import numba
    from numba.core import config

    folder = cache_folder()
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "cache": folder is not None,
    }
    configuration: Any = config  # filled from the environment, so its names are unknown to a type checker
    with _setting:  # numba takes the folder from its configuration, here and never again
        before = configuration.CACHE_DIR
        configuration.CACHE_DIR = str(folder or before)
        try:
            return numba.njit(**options)(function)
        finally:
            configuration.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between runs; None where no folder can be written.

    `NUMBA_CACHE_DIR`, else `ASCSEG_HOME`/numba, else numba in the user's cache folder; in it one folder for each
    state of our own sources, since numba notices only changes in the file of a kernel itself.
    """
    home = os.environ.get("ASCSEG_HOME")
    try:
        folder = (
            Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home or _user_cache()) / "numba")
            / machine_code.fingerprint()[:16]
        )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _user_cache() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("ascseg")


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
    return kernel.shares(*args) if isinstance(kernel, Kernel) else functools.partial(_run_with, kernel, args)


def _run(works: Sequence[tuple[Shares, int]], thread: int, threads: int) -> None:
    for share, tasks in works:
        first, last = tasks * thread // threads, tasks * (thread + 1) // threads
        if first < last:
            share(first, last)


def _run_with(kernel: Callable[..., None], args: tuple[Any, ...], first: int, last: int) -> None:
    try:
        kernel(first, last, *args)
    except OSError:  # the cache can't be written any more, but the machine code is in memory by now
        kernel(first, last, *args)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ascseg-kernel")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
