"""Runs our CUDA kernels without a GPU: compiled as C++ by g++, every thread a fiber, on tensors of the CPU.

    with emulated():
        y = gpu_operator(x)          # x on the CPU

What it proves is the arithmetic and the indexing, not the speed, nor what only real parallelism shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.kernels import backend, cuda

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
_FOLDER = Path(tempfile.gettempdir()) / "ascseg-emulated"
_OPTIONS = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=fast", "-mfma", "-shared", "-fPIC", "-w"]


@contextlib.contextmanager
def emulated(tf32: bool = False) -> Iterator[None]:
    """Inside, kernels that are asked for run on the CPU, and operators under `auto` take the `gpu` backend.

    tf32  what `kernels.precision.tf32_allowed` says; unlike torch's own default, off
    """
    before = cuda._load, backend.for_operator
    cuda._load, backend.for_operator = load, _for_operator
    cuda.kernel.cache_clear()
    try:
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            yield
    finally:
        cuda._load, backend.for_operator = before
        cuda.kernel.cache_clear()


def _for_operator(operator: str, tensor: Tensor, half: bool = False) -> str:
    wanted = backend._wanted.get()
    gpu = wanted in ("auto", "gpu") and "gpu" in backend.OPERATORS[operator]
    return "gpu" if gpu else "reference"


def load(source: Path, name: str, constants: dict[str, int | str]) -> Callable[..., None]:
    """As `cuda.driver.load`, for the emulated machine."""
    run = _library(source, name, constants).run
    run.restype = None

    def launch(grid: tuple[int, int, int], block: int, shared: int, arguments: tuple[Any, ...]) -> None:
        held = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
        run((ctypes.c_int * 3)(*grid), block, shared, pointers, len(held))

    return launch


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.device.type == "cpu"
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(0)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)


def _library(source: Path, name: str, constants: dict[str, int | str]) -> ctypes.CDLL:
    headers = [*HERE.glob("*.h"), *Path(cuda.__file__).parent.glob("*.cuh"), *source.parent.glob("*.cuh")]
    defines = [f"-D{key}={value}" for key, value in sorted(constants.items())]
    text = b"".join(path.read_bytes() for path in (source, *sorted(headers)))
    key = hashlib.sha256(text + repr((name, defines, _OPTIONS)).encode()).hexdigest()[:24]
    target = _FOLDER / f"{key}.so"
    if not target.is_file():
        _build(source, name, defines, target)
    return ctypes.CDLL(str(target))


def _build(source: Path, name: str, defines: list[str], target: Path) -> None:
    assert COMPILER, "g++ isn't installed"
    target.parent.mkdir(exist_ok=True)
    unit = target.with_name(f"{target.stem}-{os.getpid()}.cpp")
    unit.write_text(
        f'#include "cuda_on_cpu.h"\n#include "{source}"\n'
        'extern "C" void run(const int* grid, int threads, int shared, void** arguments, int count) {\n'
        f"    emulated::launch({name}, grid, threads, shared, arguments, count);\n}}\n",
        encoding="utf-8",
    )
    folders = [f"-I{HERE}", f"-I{Path(cuda.__file__).parent}", f"-I{source.parent}"]
    made = unit.with_suffix(".so.new")
    command = [COMPILER, *_OPTIONS, *folders, *defines, str(unit), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True)
    unit.unlink()
    if done.returncode:
        raise RuntimeError(f"{source.name}: {name} {defines}\n{done.stderr[:6000]}")
    os.replace(made, target)
