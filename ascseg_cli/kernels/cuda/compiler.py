"""CUDA C++ to machine code, through NVRTC: the library lies beside torch's own, and needs no toolkit."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ascseg_cli.errors import BackendError

HEADERS = Path(__file__).parent
OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "--extra-device-vectorization")


def machine_code(source: Path, constants: Mapping[str, int | str], capability: tuple[int, int]) -> bytes:
    """The cubin of a source file for GPUs of one compute capability, from the cache if it is there.

    constants  macros
    Raises BackendError.
    """
    headers = {path.name: path.read_bytes() for path in sorted(HEADERS.glob("*.cuh"))}
    headers |= {path.name: path.read_bytes() for path in sorted(source.parent.glob("*.cuh"))}
    options = [*OPTIONS, "--gpu-architecture=sm_{}{}".format(*capability)]
    options += [f"-D{name}={value}" for name, value in sorted(constants.items())]
    code = source.read_bytes()
    parts = [str(_version()).encode(), code, *headers.values(), *(option.encode() for option in options)]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    folder = cache_folder()
    kept = folder / f"{source.parent.name}-{source.stem}-{key}.cubin" if folder else None
    if kept and kept.is_file():
        return kept.read_bytes()
    made = _compile(source, code, headers, options)
    if kept:
        _keep(kept, made)
    return made


def _compile(source: Path, code: bytes, headers: Mapping[str, bytes], options: list[str]) -> bytes:
    nvrtc = library()
    program = ctypes.c_void_p()
    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    texts = (ctypes.c_char_p * len(headers))(*headers.values())
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, source.name.encode(), len(headers), texts, names))
    try:
        flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), flags):
            log = _text(nvrtc, "nvrtcGetProgramLog", program).decode(errors="replace").rstrip("\0")
            made = f"{source.parent.name}/{source.name} ({' '.join(options[len(OPTIONS) :])})"
            raise BackendError(
                f"NVRTC can't compile {made}: {log}",
                "run with --backend reference, and report this",
            )
        return _text(nvrtc, "nvrtcGetCUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: Any, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(nvrtc, f"{what}Size")(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, what)(program, content))
    return content.raw


def _check(code: int) -> None:
    if code:
        raise BackendError(f"NVRTC failed with code {code}", "run with --backend reference")


def _keep(path: Path, content: bytes) -> None:
    """Write whole or not at all; a cache that can't be written costs a compilation next time, no more."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        pass


@functools.cache
def cache_folder() -> Path | None:
    """`ASCSEG_HOME`/cuda, else cuda in the user's cache folder; None where it can't be made."""
    import platformdirs

    folder = Path(os.environ.get("ASCSEG_HOME") or platformdirs.user_cache_dir("ascseg")) / "cuda"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


@functools.cache
def _version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


@functools.cache
def library() -> Any:
    """NVRTC. Raises BackendError where it isn't found."""
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise BackendError(
        "NVRTC, the compiler library that CUDA builds of torch bring, isn't found", "reinstall torch"
    )


def _candidates() -> Iterator[str]:
    """Where NVRTC may be: in torch, in NVIDIA's packages beside it, where the system looks, in a toolkit."""
    import torch

    home = Path(torch.__file__).parent
    places = [home / "lib", *(Path(p) / "nvidia" for p in [str(home.parent), *sys.path])]
    patterns = ["libnvrtc.so*", "libnvrtc-*.so*", "nvrtc64_*.dll"]
    folders = itertools.chain.from_iterable((p, *p.glob("*/lib"), *p.glob("*/bin")) for p in dict.fromkeys(places))
    for folder, pattern in itertools.product(list(folders), patterns):
        for path in sorted(folder.glob(pattern)):
            if "builtins" not in path.name and ".alt." not in path.name:
                yield str(path)
    major = (torch.version.cuda or "12").split(".")[0]
    yield from (f"libnvrtc.so.{major}", f"nvrtc64_{major}0_0.dll")
    if toolkit := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        yield from map(str, Path(toolkit).glob("lib*/libnvrtc.so*"))
