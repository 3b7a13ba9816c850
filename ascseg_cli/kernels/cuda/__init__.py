"""Kernels in CUDA C++, compiled on the user's machine by the compiler library that comes with torch.

A kernel is a function of a `.cu` file with some of its sizes fixed as macros. It is compiled at its first launch,
in about half a second, and kept in the user's cache folder. No CUDA toolkit is needed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.kernels.cuda import compiler, driver

Argument = Tensor | int | float | None
Launch = Callable[[tuple[int, int, int], int, int, tuple[Argument, ...]], None]

# How a kernel becomes something that can be launched; tests put a machine in its place that has no GPU.
_load: Callable[[Path, str, dict[str, int | str]], Launch] = driver.load


class Kernel:
    """One function of a CUDA source file, with constants.

    source     the `.cu` file
    name       an `extern "C" __global__` function in it
    constants  macros that the source expects; a list is text: "1,2,3"
    """

    def __init__(self, source: Path, name: str, **constants: int | str) -> None:
        self._launch = _load(source, name, constants)

    def __call__(self, grid: tuple[int, ...], block: int, *arguments: Argument, shared: int = 0) -> None:
        """Run on torch's current stream: `grid` blocks of `block` threads with `shared` bytes of dynamic memory.

        Tensors become pointers to their first number, None a null pointer, int a 32-bit int, float a float.
        """
        x, y, z = (*grid, 1, 1, 1)[:3]
        if x and y and z:
            self._launch((x, y, z), block, shared, arguments)


@functools.cache
def kernel(source: Path, name: str, **constants: int | str) -> Kernel:
    """The kernel of these constants, loaded once a process."""
    return Kernel(source, name, **constants)


def compile_ahead(run: Callable[[], Any]) -> int:
    """Compile the kernels that `run` would launch, several at a time; afterwards nothing waits for the compiler.

    `run` is called with launches that do nothing, so what it computes is garbage, and it must not care.
    Returns how many there are. Raises BackendError.
    """
    global _load
    wanted: list[tuple[Path, dict[str, int | str]]] = []
    before = _load

    def note(source: Path, name: str, constants: dict[str, int | str]) -> Launch:
        wanted.append((source, constants))
        return lambda grid, block, shared, arguments: None

    kernel.cache_clear()
    _load = note
    try:
        run()
    finally:
        _load = before
        kernel.cache_clear()
    capability = torch.cuda.get_device_capability()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(compiler.machine_code, *each, capability) for each in wanted]:
            done.result()
    return len(wanted)
