"""Machine code onto a GPU and into a stream, through the CUDA driver's own interface."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.errors import BackendError
from ascseg_cli.kernels.cuda import compiler

_SHARED_LIMIT = 48 * 1024  # bytes of dynamic shared memory that need no permission
_SHARED_ATTRIBUTE = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def load(source: Path, name: str, constants: dict[str, int | str]) -> Callable[..., None]:
    """A kernel that launches on the current device and stream; compiled for a device when first launched on it."""
    functions: dict[int, ctypes.c_void_p] = {}
    allowed: dict[int, int] = {}

    def launch(grid: tuple[int, int, int], block: int, shared: int, arguments: tuple[Any, ...]) -> None:
        device = torch.cuda.current_device()
        function = functions.get(device)
        if function is None:
            function = functions[device] = _function(source, name, constants, device)
        if shared > allowed.get(device, _SHARED_LIMIT):
            _check(_driver().cuFuncSetAttribute(function, _SHARED_ATTRIBUTE, shared), name)
            allowed[device] = shared
        held = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(_driver().cuLaunchKernel(function, *grid, block, 1, 1, shared, stream, pointers, None), name)

    return launch


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(0)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)


def _function(source: Path, name: str, constants: dict[str, int | str], device: int) -> ctypes.c_void_p:
    code = compiler.machine_code(source, constants, torch.cuda.get_device_capability(device))
    torch.zeros((), device=f"cuda:{device}")  # torch makes its context, which is to be ours
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), code), name)
    _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), name)
    return function


def _check(code: int, name: str) -> None:
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        reason = (text.value or b"unknown").decode()
        raise BackendError(f"kernel {name} can't run: {reason} (CUDA error {code})", "use --backend reference")


@functools.cache
def _driver() -> Any:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise BackendError(f"the CUDA driver can't be loaded ({error})", "install NVIDIA's driver") from error
