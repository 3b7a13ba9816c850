"""How the CPU kernels are compiled, kept and run: what both operators share.

numba compiles a kernel at its first call, in about a second, and keeps the machine code in the user's cache
folder. Threads are Python's own: the kernels hold no lock of the interpreter, and numba's own threads abort the
process where two Python threads meet in them (layer `workqueue`) or after a fork (layer `omp`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core import config as numba_config
from torch import Tensor

Strides = tuple[int, ...]
Work = tuple[Callable[..., None], int, tuple[Any, ...]]  # a kernel, the number of its tasks, its arguments
config: Any = numba_config  # filled from the environment, so its names are unknown to a type checker

_setting = threading.Lock()


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as machine code without the interpreter's lock; compiled, or loaded, at its first call."""
    folder = cache_folder()
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "cache": folder is not None,
    }
    with _setting:  # numba takes the folder from its configuration, here and never again
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder or before)
        try:
            return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between runs; None where no folder can be written.

    `NUMBA_CACHE_DIR`, else `ASCSEG_HOME`/numba, else numba in the user's cache folder; in it one folder for each
    state of our own sources, since numba notices only changes in the file of a kernel itself.
    """
    home = os.environ.get("ASCSEG_HOME")
    try:
        folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home or _user_cache()) / "numba") / _fingerprint()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _user_cache() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("ascseg")


def _fingerprint() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in (
        here / "lanes.py",
        here / "elementary.py",
        here / "chain" / "codes.py",
        *sorted(here.glob("*/cpu*.py")),
    ):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


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
    launch_together([(kernel, tasks, args)])


def launch_together(works: Sequence[Work]) -> None:
    """Several `launch` in turn, but no thread waits for another between them.

    A work may read what one before it wrote only in the same share of as many tasks.
    """
    threads = min(torch.get_num_threads(), max((tasks for _, tasks, _ in works), default=0))
    others = [_pool().submit(_share, works, thread, threads) for thread in range(1, threads)]
    if threads:
        _share(works, 0, threads)
    for other in others:
        other.result()


def _share(works: Sequence[Work], thread: int, threads: int) -> None:
    for kernel, tasks, args in works:
        first, last = tasks * thread // threads, tasks * (thread + 1) // threads
        if first < last:
            _run(kernel, first, last, *args)


def _run(kernel: Callable[..., None], *args: Any) -> None:
    try:
        kernel(*args)
    except OSError:  # the cache can't be written any more, but the machine code is in memory by now
        kernel(*args)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ascseg-kernel")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
