"""Kernels in CUDA C++, compiled on the user's machine by the compiler library that comes with torch.

A kernel is a function of a `.cu` file with some of its sizes fixed as macros. It is compiled at its first launch,
in about half a second, and kept in the user's cache folder. No CUDA toolkit is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ascseg_cli.kernels.cuda import driver

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
        self._name = f"{source.parent.name}/{source.name}: {name}"
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
