"""How a CPU kernel is found. Loads no torch: evaluation can use it.

A kernel's machine code is made at its first call, in about a second, and kept in the user's cache folder: from the
LLVM code in this package, or by numba where that is older than the kernel's source or newer than the LLVM here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from ascseg_cli.kernels import machine_code
from ascseg_cli.kernels.jit import cache_folder, call

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
            return by_numba(self.function, args)
        entry, words = self.entry, machine_code.words(0, 0, *args)

        def share(first: int, last: int) -> None:
            own = words[:]
            own[0], own[1] = first, last
            if entry(own.buffer_info()[0]):
                raise MemoryError("no memory for a kernel's scratch")

        return share


def by_numba(kernel: Callable[..., None], args: tuple[Any, ...]) -> Shares:
    """What `Kernel.shares` gives, of a kernel that numba has compiled or will."""
    arrays = [argument.array() if isinstance(argument, machine_code.Memory) else argument for argument in args]
    return lambda first, last: call(kernel, first, last, *arrays)
