"""Machine code of the CPU kernels: made from their LLVM code once a machine, and kept in the user's cache.

Only LLVM is needed for that, not numba, which takes half a second to load.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import lzma
import os
import sys
import tempfile
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "llvm_code"
LEVEL = 2  # of LLVM's optimisation: 3 takes twice as long, and the kernels run no faster
OLDEST = 16  # LLVM that knows pointers without a type of what they point to: numba 0.62 brings 20

Entry = Callable[[int], int]


def fingerprint() -> str:
    """A hash of all sources that the kernels are made from."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    shared = [here / "lanes.py", here / "elementary.py", here / "blocks.py", here / "chain" / "codes.py"]
    for source in (*shared, *sorted(here.glob("*/cpu_kernels*.py")), *sorted((here / "llvm_code").glob("*.py"))):
        digest.update(source.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


@functools.cache
def fits() -> bool:
    """Whether the LLVM code was made from the present sources: not while someone changes a kernel."""
    try:
        return (FOLDER / "sources.sha256").read_text(encoding="ascii").strip() == fingerprint()
    except OSError:
        return False


def usable() -> bool:
    """Whether LLVM is here and the code fits; without, numba has to compile the kernels itself."""
    try:
        with _making:  # LLVM can't be made ready by two threads at once
            return fits() and _processor() is not None
    except (ImportError, OSError, RuntimeError, AttributeError):
        return False


def entry(name: str, cache: Path | None) -> Entry | None:
    """The kernel of that name: takes the address of its `words`; None where this LLVM can't take its code.

    name   module and function, such as chain.cpu_kernels.run
    cache  the folder that keeps machine code
    """
    try:
        return entry_of(name, (FOLDER / f"{name}.ll.xz").read_bytes(), cache)
    except OSError:
        return None


def entry_of(name: str, packed: bytes, cache: Path | None) -> Entry | None:
    """`entry` of that LLVM code, packed by lzma."""
    try:
        with _making:
            address = _processor().address(name, packed, cache)
    except (ImportError, OSError, RuntimeError, AttributeError):  # llvmlite is missing, broken, or of another age
        return None
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(address)  # lets go of the interpreter's lock


@functools.cache
def roomy() -> bool:
    """Whether the processor has 32 registers of sixteen float32 each."""
    try:
        return "+avx512f" in _features().split(",")
    except (ImportError, RuntimeError, AttributeError):
        return False


def _features() -> str:
    """What the processor can do, or another one by numba's own variable, as benchmarks do."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    return os.environ.get("NUMBA_CPU_FEATURES") or str(llvm.get_host_cpu_features().flatten())


class Memory:
    """Numbers in memory, one after another: what a kernel reads or writes, without the cost of a numpy array.

    owner    keeps them alive: an array, or a torch tensor that spans them
    address  of the first, and `length` of them, each of `size` bytes
    """

    __slots__ = ("address", "length", "owner", "size")

    def __init__(self, owner: Any, address: int, length: int, size: int) -> None:
        self.owner, self.address, self.length, self.size = owner, address, length, size

    @classmethod
    def of(cls, numbers: np.ndarray) -> Memory:
        """That of a flat array."""
        return cls(numbers, numbers.ctypes.data, len(numbers), numbers.itemsize)

    def array(self) -> np.ndarray:
        """The same numbers as a flat array."""
        if isinstance(self.owner, np.ndarray):
            return self.owner
        return np.asarray(self.owner.detach().as_strided((self.length,), (1,)))


def words(*arguments: Any) -> array[int]:
    """Arguments as whole numbers in memory: numbers as numba passes an array, a tuple one by one."""
    flat: list[int] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            flat += argument
        elif isinstance(argument, (Memory, np.ndarray)):
            memory = argument if isinstance(argument, Memory) else Memory.of(argument)
            length, size = memory.length, memory.size
            flat += (0, 0, length, size, memory.address, length, size)
        else:
            flat.append(argument)
    return array("q", flat)


_making = threading.RLock()


class _Processor:
    """LLVM's idea of this processor, and the machine code that was made for it or found."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        if llvm.llvm_version_info[0] < OLDEST:
            raise RuntimeError(f"LLVM {llvm.llvm_version_info[0]} can't read the code")
        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        for name, function in (("allocate", "PyMem_RawMalloc"), ("release", "PyMem_RawFree")):
            llvm.add_symbol(
                f"ascseg_{name}", ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value
            )
        llvm.add_symbol("ascseg_yield", ctypes.cast(_yielding(), ctypes.c_void_p).value)
        self._engines: list[Any] = []  # which own the code
        name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
        self._host = {"cpu": name, "features": _features()}
        self._about = repr((llvm.llvm_version_info, llvm.get_default_triple(), self._host, LEVEL)).encode()

    def _machine(self) -> Any:
        """A new one, since each engine owns its own."""
        target = self._llvm.Target.from_default_triple()
        return target.create_target_machine(
            **self._host, opt=LEVEL, reloc="default", codemodel="jitdefault", jit=True
        )

    def address(self, name: str, packed: bytes, cache: Path | None) -> int:
        """Where a kernel's entry lies in memory; `packed` is its LLVM code."""
        key = hashlib.sha256(self._about + packed).hexdigest()[:32]
        file = cache / f"{name}.{key}.o" if cache else None
        code = _kept(file) if file else None
        if code is None:
            code = self._made(packed)
            if file:
                _keep(file, code)
        llvm = self._llvm
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._engines.append(engine)
        return int(engine.get_function_address("entry"))

    def _made(self, packed: bytes) -> bytes:
        llvm = self._llvm
        module = llvm.parse_assembly(lzma.decompress(packed).decode())
        machine = self._machine()
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        options = llvm.create_pipeline_tuning_options(LEVEL)
        options.loop_vectorization = options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        return bytes(machine.emit_object(module))


_processor = functools.cache(_Processor)


def _yielding() -> Any:
    """The system's function by which a thread lets others run."""
    if sys.platform == "win32":
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


def _kept(file: Path) -> bytes | None:
    """Machine code from the cache; None if there is none, or not as it was written."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(file: Path, code: bytes) -> None:
    """Write to the cache, whole or not at all; a cache that can't be written is none."""
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "wb") as target:
            target.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, file)
    except OSError:
        pass
